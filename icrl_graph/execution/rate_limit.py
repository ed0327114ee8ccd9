"""How fast calls are made, and when a call that failed is retried.

A call is retried where its provider is busy, limits its rate, breaks the connection or sends what can't be read: with
exponential backoff, and not before the time that the provider asks for. What can't succeed later is not retried.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from dataclasses import replace
from itertools import count
from typing import Any

from icrl_graph.errors import BudgetExceeded
from icrl_graph.execution.budget import TotalBudget
from icrl_graph.execution.calls import Call, aexecute, execute, run_blocking
from icrl_graph.execution.queue import FairSemaphore, await_slot, interrupted, wait_for_slot
from icrl_graph.execution.retry import describe, is_retryable, retry_after
from icrl_graph.state.checks import check_above_0, is_number

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER = 600.0
"""Seconds that a provider may ask to wait; one that asks for more is busy for longer than a run should stand still."""


class RateLimit:
    """A rate limit and retry policy that many runs may share.

    Every graph has one. `RateLimit()` limits nothing and retries transient failures; `RateLimit(max_attempts=1)`
    retries nothing.

    Args:
        max_concurrency: calls in flight at most, from any number of threads and event loops; None for no limit. A graph
            used as a model is a call, too: it needs another rate limit, or it would wait for itself.
        requests_per_minute: calls a minute, evenly spread; None for no limit.
        tokens_per_minute: tokens a minute, in and out; None for no limit. They are known only after a reply, so the
            limit holds on average: what was used delays the calls that come after.
        max_attempts: attempts per call, the first included. After a call that failed each time, later calls are tried
            once, until one is answered: a provider that is down costs the wait once.
        max_backoff: seconds between two attempts at most, unless the provider asks for more: up to ten minutes (or
            this, where it is longer), else the call is not retried.

    Attributes:
        retries: retries so far.
        slots: for the calls in flight.
        requests: the bucket of requests.
        tokens: that of tokens.
        total: a budget of all calls that it lets through, or None.

    Raises:
        ValueError: a number is not above 0.
    """

    def __init__(
        self,
        *,
        max_concurrency: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_attempts: int = 6,
        max_backoff: float = 60.0,
    ) -> None:
        check_above_0(
            max_concurrency=max_concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_attempts=max_attempts,
        )
        if not (is_number(max_backoff) and max_backoff >= 0):
            raise ValueError(f"max_backoff must be 0 or more seconds, got {max_backoff!r:.80}")
        self._max_attempts, self._max_backoff = max_attempts, max_backoff
        self.requests, self.tokens = Bucket(requests_per_minute), Bucket(tokens_per_minute)
        self.slots = FairSemaphore(max_concurrency)
        self._is_down = False
        self.retries = 0
        self.total: TotalBudget | None = None

    def execute(self, call: Call, within: float | None = None) -> Any:
        """Make a call; returns what came back. A call that is not paid is made at once, and once.

        Args:
            call: what to make.
            within: seconds that are left: a call that would begin later is not made, nor retried, and one in flight is
                given up on then. None: no limit.

        Raises:
            BudgetExceeded: it can't be made in time.
            GraphDrained: the total budget is spent, or the run is being drained.
            TimeoutError: it was given up on.
            Exception: what the last attempt raised.
        """
        return run_blocking(self._execute(call, within, is_async=False))

    async def aexecute(self, call: Call, within: float | None = None) -> Any:
        """`execute` under `ainvoke`."""
        return await self._execute(call, within, is_async=True)

    async def _execute(self, call: Call, within: float | None, is_async: bool) -> Any:
        if not call.paid:
            return await aexecute(call) if is_async else execute(call)
        end = math.inf if within is None else time.monotonic() + within
        with self.slots.slot(in_thread=not is_async) as slot:
            await await_slot(slot, end) if is_async else wait_for_slot(slot, end)
            for attempt in count(1):
                await _sleep(self._until_spent(self._take_turn(end)), is_async)
                if self.total is not None:
                    self.total.admit(again=attempt > 1)
                limited = _within(call, end)
                try:
                    response = await aexecute(limited) if is_async else execute(limited)
                except Exception as error:
                    if isinstance(error, TimeoutError) and time.monotonic() > end:
                        raise TimeoutError("nothing came back before max_seconds was spent") from error
                    seconds = self._backoff(call, error, attempt, end)
                    if seconds is None:
                        raise
                else:
                    self._is_down = False
                    return response
                await _sleep(self._until_spent(seconds), is_async)

    def _until_spent(self, seconds: float) -> float:
        """The seconds to wait, but no longer than the total budget has time for: then the call is refused."""
        return seconds if self.total is None else min(seconds, self.total.seconds_left())

    def used(self, tokens: int) -> None:
        """Count the tokens that a reply has used."""
        self.tokens.take(tokens)

    def _backoff(self, call: Call, error: Exception, attempt: int, end: float) -> float | None:
        """The seconds to wait after a failed attempt; None where the call is not to be retried."""
        if not is_retryable(call, error):
            return None
        if attempt >= self._max_attempts or self._is_down:  # the next call is tried once, until one is answered
            self._is_down = True
            return None
        requested = retry_after(error) or 0.0
        seconds = max(requested, self._exponential(attempt))
        too_long = requested > max(MAX_RETRY_AFTER, self._max_backoff)
        if too_long or time.monotonic() + max(seconds, self._delay(0)) > end:
            return None
        self.retries += 1
        logger.warning("%s; retry in %.1f s", describe(error), seconds)
        return seconds

    def _exponential(self, attempt: int) -> float:
        """Seconds to wait after an attempt: doubled each time, with jitter, so that no two calls retry at once."""
        return min(2.0 ** min(attempt - 1, 30) + random.random(), self._max_backoff)

    def _take_turn(self, end: float) -> float:
        """Take the next turn; returns the seconds until it comes.

        Raises:
            BudgetExceeded: it comes too late, and is left to others.
        """
        delay = self._delay(1)
        if time.monotonic() + delay > end:
            self.requests.take(-1)
            raise BudgetExceeded("time")
        return delay

    def _delay(self, requests: int) -> float:
        """Take this many requests; returns the seconds until they may be made."""
        return max(self.requests.take(requests), self.tokens.take(0))


def _within(call: Call, end: float) -> Call:
    """A call that is given up on at the end; a millisecond later, so that no rounding leaves time for one more."""
    left = end - time.monotonic() + 0.001
    return call if left >= (math.inf if call.timeout is None else call.timeout) else replace(call, timeout=left)


class Bucket:
    """A leaky bucket that may be overdrawn: whoever comes next waits until the debt is paid.

    Args:
        rate: units a minute; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._seconds_each = 0.0 if rate is None else 60 / rate
        self._free_at, self._lock = 0.0, threading.Lock()

    def take(self, units: float) -> float:
        """Take units; returns the seconds to wait before they may be used."""
        with self._lock:
            time_now = time.monotonic()
            start = max(time_now, self._free_at)
            self._free_at = start + units * self._seconds_each
            return start - time_now


async def _sleep(seconds: float, is_async: bool) -> None:
    """Sleep; where it blocks a thread, not through a Ctrl-C: LangGraph raises that only when its threads have ended.

    Raises:
        KeyboardInterrupt: the run is being interrupted, maybe since long before this.
    """
    if is_async:
        if seconds:
            await asyncio.sleep(seconds)
        return
    end = time.monotonic() + seconds
    while not interrupted():
        if (left := end - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.1))
    raise KeyboardInterrupt
