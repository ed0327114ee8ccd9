"""The event loop of a run under `invoke`, for what has no sync side: one for all its calls, in a thread of its own.

What an async client keeps from call to call, such as its open connections, belongs to the event loop that it was first
used in. So the loop lives as long as the run; then it is closed, with the generators and tasks that are left in it.
A run within another one, as of a graph that stands for a model, shares the loop of that one.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from icrl_graph.execution.queue import interrupted

_Any = TypeVar("_Any")
GRACE = 1.0
"""Seconds within which a loop must answer after a call was given up on; else it is blocked, and left alone."""
CLOSING = 5.0
"""Seconds that the tasks and generators which are left in a loop have for their end."""


async def uncancelled(work: Awaitable[_Any]) -> _Any:
    """Await what must not be left half done; a cancellation comes after it, however often there is one.

    LangGraph cancels what is left of a step twice: when a part of it has failed, and when the run ends.
    """
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # else asyncio would complain that nobody has looked at it
        raise cancelled
    return task.result()


class EventLoop:
    """An event loop in a daemon thread, which is started when it is first needed.

    Attributes:
        close: ends it. So does the end of the process, and that nobody holds it any more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []  # all but the last are blocked
        self.close = weakref.finalize(self, _close, self._loops)

    @contextmanager
    def entered(self) -> Iterator[EventLoop]:
        """Make it the loop of what runs within the block, unless that has one already."""
        if (current := _current.get()) is not None and current.close.alive:
            yield current
            return
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def run(self, work: Awaitable[Any], timeout: float | None) -> Any:
        """Wait for something in the loop, where it has the caller's context variables.

        Raises:
            TimeoutError: it took longer than this many seconds.
            KeyboardInterrupt: the run is being interrupted.
        """
        context = copy_context()
        context.run(_current.set, None)  # a run that is begun in the loop would wait for itself
        loop = self._running()
        outcome = context.run(asyncio.run_coroutine_threadsafe, _outcome(work), loop)
        end = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while not wait([outcome], min(0.1, max(0.0, end - time.monotonic()))).done:
                if interrupted():
                    raise KeyboardInterrupt
                if timeout is not None and time.monotonic() >= end:
                    raise too_late(timeout)
        except BaseException:
            outcome.cancel()
            self._leave_if_blocked(loop)
            raise
        value, error = outcome.result()
        if error is not None:
            raise error
        return value

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if not self._loops:
                self._loops.append(_started())
            return self._loops[-1][0]

    def _leave_if_blocked(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin another loop for later calls if something blocks this one, as a coroutine does that never awaits."""
        answered = Future[None]()
        loop.call_soon_threadsafe(answered.set_result, None)
        if wait([answered], GRACE).done:
            return
        with self._lock:
            if self._loops[-1][0] is loop:
                self._loops.append(_started())


_current: ContextVar[EventLoop | None] = ContextVar("icrl_event_loop", default=None)


@contextmanager
def event_loop() -> Iterator[EventLoop]:
    """The loop of the run that the caller is part of; outside of one, a loop for this block."""
    own = EventLoop()
    try:
        with own.entered() as loop:
            yield loop
    finally:
        own.close()


def too_late(timeout: float) -> TimeoutError:
    """The error of what has not come back in time."""
    return TimeoutError(f"nothing came back within {timeout:.4g} s")


async def _outcome(work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What came of it, as data: an exit or a Ctrl-C that a task raises would end its loop."""
    try:
        return await work, None
    except BaseException as error:
        return None, error


def _started() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    ready = Future[asyncio.AbstractEventLoop]()
    thread = threading.Thread(target=_serve, args=(ready,), daemon=True, name="icrl-event-loop")
    thread.start()
    return ready.result(), thread


def _serve(ready: Future[asyncio.AbstractEventLoop]) -> None:
    """Run a loop until it is stopped, then cancel its tasks, end its generators, and close it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready.set_result(loop)
        while True:
            with suppress(SystemExit, KeyboardInterrupt):  # of a task that the user's code has started
                loop.run_forever()
                return


def _close(loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]]) -> None:
    for loop, thread in loops:
        with suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(loop.stop)
        if (loop, thread) == loops[-1] and thread is not threading.current_thread():
            thread.join(CLOSING)
