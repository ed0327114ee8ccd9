"""How fast calls are made, and when one that failed is made again.

A provider that is busy, limits its rate, breaks a connection or sends what can't be read gets the same call again,
later and later, at the time that it asks for if it says one. What can't get better by waiting is not repeated.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from icrl_graph.errors import BudgetExceeded
from icrl_graph.execution.calls import Call, aexecute, execute
from icrl_graph.execution.queue import FairSemaphore, aawait_slot, await_slot, interrupted
from icrl_graph.execution.retry import is_retryable, retry_after

logger = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds that a provider may ask for; one that wants more is busy for longer than a run should stand still."""


class RateLimit:
    """A rate limit and retry policy that many runs may share.

    Every graph has one. `RateLimit()` limits nothing and retries transient failures; `RateLimit(max_attempts=1)`
    retries nothing.

    Args:
        max_concurrency: calls in flight at most, from however many threads and event loops; None for no limit. A graph
            that stands for a model is a call, too: it needs another rate limit, or it would wait for itself.
        requests_per_minute: calls a minute, evenly spread; None for no limit.
        tokens_per_minute: tokens a minute, in and out; None for no limit. They are known once a reply is there, so the
            limit holds on average: what was used delays the calls that come after.
        max_attempts: attempts per call, the first included. After a call that failed each time, later calls are tried
            once, until one is answered: a provider that is down costs the wait once.
        max_backoff: seconds between two attempts at most, unless the provider asks for more: up to ten minutes (or
            this, where it is longer), else the call is not retried.

    Attributes:
        retries: retries so far.

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
        limits = {
            "max_concurrency": max_concurrency,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "max_attempts": max_attempts,
        }
        for name, number in limits.items():
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be above 0, got {number!r}")
        self._max_attempts, self._max_backoff = max_attempts, max_backoff
        self._requests, self._tokens = Bucket(requests_per_minute), Bucket(tokens_per_minute)
        self._places = FairSemaphore(max_concurrency)
        self._is_down = False
        self.retries = 0

    def execute(self, call: Call, within: float | None = None) -> Any:
        """Make a call; gives what came back.

        Args:
            call: what to make.
            within: seconds that are left: a call that would begin later is not made, nor repeated. None: any.

        Raises:
            BudgetExceeded: it can't be made in time.
            Exception: what the last attempt raised.
        """
        end = math.inf if within is None else time.monotonic() + within
        with self._places.slot(in_thread=True) as place:
            await_slot(place, end)
            pause = self._pauses(call, end)
            while True:
                _sleep(self._turn(end))
                try:
                    return self._answered(execute(call))
                except Exception as error:
                    seconds = pause(error)
                _sleep(seconds)

    async def aexecute(self, call: Call, within: float | None = None) -> Any:
        """`execute` under `ainvoke`."""
        end = math.inf if within is None else time.monotonic() + within
        with self._places.slot() as place:
            await aawait_slot(place, end)
            pause = self._pauses(call, end)
            while True:
                if delay := self._turn(end):
                    await asyncio.sleep(delay)
                try:
                    return self._answered(await aexecute(call))
                except Exception as error:
                    seconds = pause(error)
                await asyncio.sleep(seconds)

    def _answered(self, raw: Any) -> Any:
        self._is_down = False
        return raw

    def used(self, tokens: int) -> None:
        """Count what a reply has used."""
        self._tokens.take(tokens)

    def _pauses(self, call: Call, end: float) -> Callable[[Exception], float]:
        """Gives the seconds to wait after each failure of a call; raises the one that is not worth another attempt."""
        numbers = count(1)

        def pause(error: Exception) -> float:
            number = next(numbers)
            if not is_retryable(call, error):
                raise error
            if number >= self._max_attempts or self._is_down:  # the next call is tried once, until one is answered
                self._is_down = True
                raise error
            requested, backoff = retry_after(error) or 0.0, self._wait(number)
            seconds = max(requested, backoff)
            too_long = requested > max(PATIENCE, self._max_backoff)
            if too_long or time.monotonic() + max(seconds, self._delay(0)) > end:
                raise error
            self.retries += 1
            logger.warning("%s: %s; retried in %.1f s", type(error).__name__, error, seconds)
            return seconds

        return pause

    def _wait(self, number: int) -> float:
        """Seconds after the failure of an attempt: doubled each time, and never the same for two at once."""
        return min(2.0 ** min(number - 1, 30) + random.random(), self._max_backoff)

    def _turn(self, end: float) -> float:
        """Take the next turn; gives the seconds until it comes.

        Raises:
            BudgetExceeded: it comes too late, and is left to others.
        """
        delay = self._delay(1)
        if time.monotonic() + delay > end:
            self._requests.take(-1)
            raise BudgetExceeded("time")
        return delay

    def _delay(self, requests: int) -> float:
        """Take as many requests; gives the seconds until they may be made."""
        return max(self._requests.take(requests), self._tokens.take(0))


class Bucket:
    """Something that flows evenly, and may be overdrawn: whoever comes next waits until the debt is paid.

    Args:
        rate: units a minute; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._seconds_each = 0.0 if rate is None else 60 / rate
        self._free_at, self._lock = 0.0, threading.Lock()

    def take(self, units: float) -> float:
        """Take units; returns the seconds to wait until they are available."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + units * self._seconds_each
            return start - now


def _sleep(seconds: float) -> None:
    """Sleep, but not through a Ctrl-C: LangGraph lets it out only when the threads of its nodes have ended.

    Raises:
        KeyboardInterrupt: there was one, maybe long before this.
    """
    end = time.monotonic() + seconds
    while not interrupted():
        if (left := end - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.1))
    raise KeyboardInterrupt
