"""A fair semaphore for threads and for tasks of any event loop, and waits that a Ctrl-C ends."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from itertools import takewhile
from typing import Any
from weakref import WeakSet

from icrl_graph.errors import BudgetExceeded
from icrl_graph.execution.langgraph_internals import in_run


class FairSemaphore:
    """A semaphore that threads and tasks of any event loop share; its slots are assigned in the order of arrival.

    Args:
        size: number of slots; None for no limit.
    """

    def __init__(self, size: int | None) -> None:
        self._free: float = math.inf if size is None else size
        self._queue: deque[Future[None]] = deque()
        self._of_threads: WeakSet[Future[None]] = WeakSet()
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, in_thread: bool = False) -> Iterator[Future[None]]:
        """A slot: the caller's from when the future is done until the block ends, also if it ends before that.

        Args:
            in_thread: whether a thread waits for it. Where a Ctrl-C ends one of them, it ends all that wait: they wait
                for the same run, and would get the slot that it leaves.
        """
        slot = Future[None]()
        if in_thread:
            self._of_threads.add(slot)
        try:
            self._queue.append(slot)
            self._serve(0)
            yield slot
        except KeyboardInterrupt as interrupt:
            with self._lock:
                for other in [other for other in self._queue if in_thread and other in self._of_threads]:
                    self._queue.remove(other)
                    if other.set_running_or_notify_cancel():
                        other.set_exception(interrupt)
            raise
        finally:
            if not slot.cancel() and slot.exception() is None:
                self._serve(1)

    def _serve(self, freed: int) -> None:
        """Give the free slots to those who wait and have not left."""
        with self._lock:
            self._free += freed
            while self._free and self._queue:
                slot = self._queue.popleft()
                if slot.set_running_or_notify_cancel():
                    self._free -= 1
                    slot.set_result(None)


def wait_for_slot(slot: Future[None], end: float) -> None:
    """Block until a slot is free, but not through a Ctrl-C.

    Args:
        slot: the future of the slot.
        end: when to give up, by `time.monotonic`.

    Raises:
        BudgetExceeded: it was not free in time.
        KeyboardInterrupt: the run is being interrupted.
    """
    while not wait([slot], min(0.1, max(0.0, end - time.monotonic()))).done:
        if interrupted():
            raise KeyboardInterrupt
        if time.monotonic() > end:
            raise BudgetExceeded("time")
    slot.result()


async def await_slot(slot: Future[None], end: float = math.inf) -> None:
    """`wait_for_slot` in an event loop."""
    if slot.done():
        return
    try:
        async with asyncio.timeout(None if end == math.inf else end - time.monotonic()):
            await asyncio.wrap_future(slot)
    except TimeoutError:
        raise BudgetExceeded("time") from None


def interrupted() -> bool:
    """Whether the main thread is ending because of a Ctrl-C, and waits for this thread.

    It is not where it has begun another run while it handles one, as in `except KeyboardInterrupt: improve(...)`.
    """
    main = threading.main_thread().ident or 0
    if threading.get_ident() == main:  # its own frame, in a variable of that frame, would keep all its values alive
        return False
    current = _look(sys._current_exceptions, main)
    error = current[1] if isinstance(current, tuple) else current  # a triple, before Python 3.12
    if not isinstance(error, KeyboardInterrupt):
        return False
    caught = error.__traceback__ and error.__traceback__.tb_frame
    since = takewhile(lambda entry: entry[0] is not caught, traceback.walk_stack(_look(sys._current_frames, main)))
    return not any(in_run(frame) for frame, _ in since)


_LOOKING = threading.Lock()


def _look(of_all: Callable[[], Mapping[int, Any]], thread: int) -> Any:
    """The exception that a thread handles, or its topmost frame; None for none.

    Before Python 3.13 these calls may collect garbage while they hold the interpreter's lock on its list of threads; a
    finalizer then lets another thread run, which waits for that lock, and both wait for ever (CPython issue 106883).
    """
    with _LOOKING:
        collects = gc.isenabled()
        gc.disable()
        try:
            return of_all().get(thread)
        finally:
            if collects:
                gc.enable()
