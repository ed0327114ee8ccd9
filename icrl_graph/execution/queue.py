"""A queue for threads and for tasks of any event loop: first come, first served."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from itertools import takewhile
from typing import Any
from weakref import WeakSet

from langgraph.pregel import Pregel

from icrl_graph.errors import BudgetExceeded


class FairSemaphore:
    """A semaphore for threads and for tasks of any event loop, first come, first served.

    Args:
        number: how many there are; None for any.
    """

    def __init__(self, number: int | None) -> None:
        self._free: float = math.inf if number is None else number
        self._line: deque[Future[None]] = deque()
        self._threads: WeakSet[Future[None]] = WeakSet()
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, in_thread: bool = False) -> Iterator[Future[None]]:
        """A slot: held from when this has a result until the block ends, also if it ends before that.

        Args:
            in_thread: whether a thread waits for it. Where a Ctrl-C ends one of them, it ends all that wait: they wait
                for the same run, and would get the slot that it leaves.
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
        """Give free slots to those that wait and have not left."""
        with self._lock:
            self._free += freed
            while self._free and self._line:
                place = self._line.popleft()
                if place.set_running_or_notify_cancel():
                    self._free -= 1
                    place.set_result(None)


def await_slot(place: Future[None], end: float) -> None:
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


async def aawait_slot(place: Future[None], end: float) -> None:
    """`reach` in an event loop."""
    if place.done():
        return
    try:
        async with asyncio.timeout(None if end == math.inf else end - time.monotonic()):
            await asyncio.wrap_future(place)
    except TimeoutError:
        raise BudgetExceeded("time") from None


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
