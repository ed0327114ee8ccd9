"""How fast calls are made, and when one that failed is made again.

A provider that is busy, limits its rate or breaks a connection gets the same call again, later and later, at the time
that it asks for if it says one. What can't get better by waiting is not repeated.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from icrl_graph.calls import Call, amake, make


class Pace:
    """A pace that many runs may share.

    Args:
        at_once: calls in flight at most; None for no limit.
        requests: calls a minute, evenly spread; None for no limit.
        tokens: tokens a minute, in and out; None for no limit. They are known once a reply is there, so the limit is
            kept on average: what was used delays the calls that come after.
        attempts: how often one call is made at most.
        longest_wait: seconds between two of them at most, unless the provider asks for more.

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
        self._threads = threading.BoundedSemaphore(at_once or 2**31)
        self._tasks = asyncio.BoundedSemaphore(at_once or 2**31)
        self.repeats = 0

    def make(self, call: Call) -> Any:
        """Make a call; gives what came back.

        Raises:
            Exception: what the last attempt raised.
        """
        with self._threads:
            for attempt in self._tries(call):
                with attempt:
                    time.sleep(self._delay(attempt.num))
                    raw = make(call)
        return raw

    async def amake(self, call: Call) -> Any:
        """`make` under `ainvoke`, in one event loop."""
        async with self._tasks:
            async for attempt in self._tries(call):
                with attempt:
                    await asyncio.sleep(self._delay(attempt.num))
                    raw = await amake(call)
        return raw

    def used(self, tokens: int) -> None:
        """Count what a reply has used."""
        self._tokens.take(tokens)

    def _tries(self, call: Call) -> Any:
        import stamina  # here, because many a graph is built without a pace

        longest = self._longest_wait
        waits = {"wait_initial": min(1.0, longest), "wait_max": longest, "wait_jitter": min(1.0, longest)}
        return stamina.retry_context(on=asked_again(call), attempts=self._attempts, timeout=None, **waits)

    def _delay(self, attempt: int) -> float:
        """Seconds until a call may be made."""
        self.repeats += attempt > 1
        return max(self._requests.take(1), self._tokens.take(0))


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


_BROKEN = {"APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"}
"""Errors of a connection, by name, so that none of these need be installed: the clients of OpenAI and Anthropic, httpx,
aiohttp."""


def asked_again(call: Call) -> Callable[[Exception], bool | float]:
    """Whether a failed call is worth another attempt; the seconds to wait, where the provider says them."""

    def decide(error: Exception) -> bool | float:
        if not is_passing(error) or (call.timeout is not None and isinstance(error, TimeoutError)):
            return False
        asked = _asked_for(error)
        return True if asked is None else max(asked, 0.001)  # 0 would say that it is not worth it

    return decide


def is_passing(error: Exception) -> bool:
    """Whether what failed may succeed later: the provider is busy, limits its rate, or the connection broke."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return (status in (408, 409, 425, 429) or status >= 500) and getattr(error, "code", "") != "insufficient_quota"
    return isinstance(error, ConnectionError | TimeoutError) or any(c.__name__ in _BROKEN for c in type(error).__mro__)


def _asked_for(error: Exception) -> float | None:
    """The seconds of a Retry-After header; None where there is none (or a date)."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None
