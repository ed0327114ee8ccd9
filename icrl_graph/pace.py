"""How fast calls are made, and when one that failed is made again.

A provider that is busy, limits its rate, breaks a connection or sends what can't be read gets the same call again,
later and later, at the time that it asks for if it says one. What can't get better by waiting is not repeated.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import count, takewhile
from typing import Any
from weakref import WeakSet

from langchain_core.exceptions import ModelError
from langgraph.pregel import Pregel

from icrl_graph.calls import Call, amake, make
from icrl_graph.errors import BudgetExceeded

logger = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds that a provider may ask for; one that wants more is busy for longer than a run should stand still."""


class Pace:
    """A pace that many runs may share.

    Every graph has one. `Pace()` limits nothing and repeats what may succeed later; `Pace(attempts=1)` repeats nothing.

    Args:
        at_once: calls in flight at most, from however many threads and event loops; None for no limit. A graph that
            stands for a model is a call, too: it needs another pace, for with this one it would wait for itself.
        requests: calls a minute, evenly spread; None for no limit.
        tokens: tokens a minute, in and out; None for no limit. They are known once a reply is there, so the limit is
            kept on average: what was used delays the calls that come after.
        attempts: how often one call is made at most. Where that was in vain, each later call is made once, until one is
            answered: a provider that is not there costs the wait once.
        longest_wait: seconds between two of them at most, unless the provider asks for more: up to ten minutes (or
            this, where it is longer), else the call is not repeated.

    Attributes:
        repeats: calls that were made again so far.

    Raises:
        ValueError: a number is not above 0.
    """

    def __init__(
        self,
        *,
        at_once: int | None = None,
        requests: float | None = None,
        tokens: float | None = None,
        attempts: int = 6,
        longest_wait: float = 60.0,
    ) -> None:
        given = {"at_once": at_once, "requests": requests, "tokens": tokens, "attempts": attempts}
        for name, number in given.items():
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be above 0, got {number!r}")
        self._attempts, self._longest_wait = attempts, longest_wait
        self._requests, self._tokens = Bucket(requests), Bucket(tokens)
        self._places = Places(at_once)
        self._is_down = False
        self.repeats = 0

    def make(self, call: Call, within: float | None = None) -> Any:
        """Make a call; gives what came back.

        Args:
            call: what to make.
            within: seconds that are left: a call that would begin later is not made, nor repeated. None: any.

        Raises:
            BudgetExceeded: it can't be made in time.
            Exception: what the last attempt raised.
        """
        end = math.inf if within is None else time.monotonic() + within
        with self._places.one(in_thread=True) as place:
            _reach(place, end)
            pause = self._pauses(call, end)
            while True:
                _sleep(self._turn(end))
                try:
                    return self._answered(make(call))
                except Exception as error:
                    seconds = pause(error)
                _sleep(seconds)

    async def amake(self, call: Call, within: float | None = None) -> Any:
        """`make` under `ainvoke`."""
        end = math.inf if within is None else time.monotonic() + within
        with self._places.one() as place:
            await areach(place, end)
            pause = self._pauses(call, end)
            while True:
                if delay := self._turn(end):
                    await asyncio.sleep(delay)
                try:
                    return self._answered(await amake(call))
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
            if not asked_again(call, error):
                raise error
            if number >= self._attempts or self._is_down:  # the next call is tried once, until one is answered
                self._is_down = True
                raise error
            asked, usual = asked_for(error) or 0.0, self._wait(number)
            seconds = max(asked, usual)
            too_long = asked > max(PATIENCE, self._longest_wait)
            if too_long or time.monotonic() + max(seconds, self._delay(0)) > end:
                raise error
            self.repeats += 1
            logger.warning("%s: %s; asked again in %.1f s", type(error).__name__, error, seconds)
            return seconds

        return pause

    def _wait(self, number: int) -> float:
        """Seconds after the failure of an attempt: doubled each time, and never the same for two at once."""
        return min(2.0 ** min(number - 1, 30) + random.random(), self._longest_wait)

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


class Places:
    """Places in one line for threads and for tasks of any event loop: who comes first is served first.

    Args:
        number: how many there are; None for any.
    """

    def __init__(self, number: int | None) -> None:
        self._free: float = math.inf if number is None else number
        self._line: deque[Future[None]] = deque()
        self._threads: WeakSet[Future[None]] = WeakSet()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, in_thread: bool = False) -> Iterator[Future[None]]:
        """A place: one's own from when this has a result until the block ends, also if it ends before that.

        Args:
            in_thread: whether a thread waits for it. Where a Ctrl-C ends one of them, it ends all that wait: they wait
                for the same run, and would be given the place that it leaves.
        """
        place = Future[None]()
        if in_thread:
            self._threads.add(place)
        try:
            self._line.append(place)
            self._serve(0)
            yield place
        except KeyboardInterrupt as interrupt:
            with self._lock:
                for other in [other for other in self._line if in_thread and other in self._threads]:
                    self._line.remove(other)
                    if other.set_running_or_notify_cancel():
                        other.set_exception(interrupt)
            raise
        finally:
            if not place.cancel() and place.exception() is None:
                self._serve(1)

    def _serve(self, freed: int) -> None:
        """Give the places that are free to those who wait and have not left."""
        with self._lock:
            self._free += freed
            while self._free and self._line:
                place = self._line.popleft()
                if place.set_running_or_notify_cancel():
                    self._free -= 1
                    place.set_result(None)


def _reach(place: Future[None], end: float) -> None:
    """Wait for a place, but not through a Ctrl-C.

    Raises:
        BudgetExceeded: it is not there in time.
    """
    while not wait([place], min(0.1, max(0.0, end - time.monotonic()))).done:
        if interrupted():
            raise KeyboardInterrupt
        if time.monotonic() > end:
            raise BudgetExceeded("time")
    place.result()


async def areach(place: Future[None], end: float) -> None:
    """`_reach` in an event loop."""
    if place.done():
        return
    try:
        async with asyncio.timeout(None if end == math.inf else end - time.monotonic()):
            await asyncio.wrap_future(place)
    except TimeoutError:
        raise BudgetExceeded("time") from None


class Bucket:
    """Something that flows evenly, and may be overdrawn: whoever comes next waits until the debt is paid.

    Args:
        rate: units a minute; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._seconds_each = 0.0 if rate is None else 60 / rate
        self._free_at, self._lock = 0.0, threading.Lock()

    def take(self, units: float) -> float:
        """Take units; gives the seconds to wait until they are one's own."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + units * self._seconds_each
            return start - now


_BROKEN = {"APIError", "APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"}
"""Errors of a connection or within a stream, by name, so that none of these need be installed: the clients of OpenAI
and Anthropic, httpx, aiohttp."""
_FINAL = ("insufficient_quota", "context_length_exceeded")
"""Codes of what no wait mends, whatever its status."""
_CLIENTS = {"openai", "anthropic", "httpx", "httpx2", "aiohttp", "requests"}
"""Packages that read what a provider sends."""


def asked_again(call: Call, error: Exception) -> bool:
    """Whether a failed call is worth another attempt: not one that was given up on after its own time limit."""
    return is_passing(error) and not (call.timeout is not None and isinstance(error, TimeoutError))


def is_passing(error: Exception) -> bool:
    """Whether what failed may succeed later: the provider is busy, limits its rate, or the connection broke."""
    if getattr(error, "code", None) in _FINAL:
        return False
    if (status := status_of(error)) is not None:
        return status in (408, 409, 425, 429) or status >= 500
    if isinstance(error, ModelError):
        return error.is_retryable
    if isinstance(error, json.JSONDecodeError):
        return _within_client(error)
    return isinstance(error, ConnectionError | TimeoutError) or any(c.__name__ in _BROKEN for c in type(error).__mro__)


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error tells of, wherever its client keeps it; None where it tells none."""
    places = (
        (error, "status_code"),
        (getattr(error, "response", None), "status_code"),
        (error, "status"),
        (error, "code"),
    )
    told = (str(getattr(holder, name, None)) for holder, name in places)
    return next((int(status) for status in told if re.fullmatch("[45][0-9][0-9]", status)), None)


def _within_client(error: Exception) -> bool:
    """Whether an error was raised where a client read a body; a parser's or an evaluator's own is not."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS for frame in frames)


def asked_for(error: Exception) -> float | None:
    """The seconds that a provider asks to wait; None where it says nothing that can be read."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        said = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
        seconds = float(said["retry-after-ms"]) / 1000 if "retry-after-ms" in said else _seconds(said["retry-after"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _seconds(said: str) -> float:
    """A Retry-After in seconds, in which it may come, or as an HTTP date."""
    return float(said) if re.fullmatch(r"[-+.\w]+", said) else parsedate_to_datetime(said).timestamp() - time.time()


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


def interrupted() -> bool:
    """Whether the main thread is on its way out of a Ctrl-C, and waits for this one.

    It is not where it began another run while it dealt with one, as in `except KeyboardInterrupt: improve(...)`.
    """
    main = threading.main_thread().ident or 0
    handled: Any = sys._current_exceptions().get(main)
    error = handled[1] if isinstance(handled, tuple) else handled  # a triple, before Python 3.12
    if not isinstance(error, KeyboardInterrupt) or threading.get_ident() == main:
        return False
    caught = error.__traceback__ and error.__traceback__.tb_frame
    since = takewhile(lambda at: at[0] is not caught, traceback.walk_stack(sys._current_frames().get(main)))
    return not any(frame.f_code is Pregel.stream.__code__ for frame, _ in since)
