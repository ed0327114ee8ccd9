"""EnvironmentPool that take turns."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from icrl_graph.environments.scienceworld.world import ScienceWorld
from icrl_graph.errors import NoEpisode


class Pool:
    """Some worlds that take turns, because each needs a JVM: about 0.3 GB, and 2 seconds to start.

        async with Pool() as pool:
            async with pool.world() as world:
                first = await world.reset(task_data)

    It may be used from several event loops. What breaks within a turn is mended at the world's next `reset`.

    Args:
        size: how many worlds at most; default as many as there are processors, and memory for (0.5 GB each).
        options: those of `ScienceWorld`.

    Raises:
        ValueError: an option is wrong.
    """

    def __init__(self, size: int | None = None, **options: Any) -> None:
        size = room() if size is None else size
        if type(size) is not int or size < 1:
            raise ValueError(f"size must be an integer from 1, got {size!r}")
        self._worlds = [ScienceWorld(**options) for _ in range(size)]  # none has a JVM before its first episode
        self._idle, self._waiting = deque(self._worlds), deque[Future[ScienceWorld]]()
        self._lock, self._closed = threading.Lock(), False

    @property
    def size(self) -> int:
        """How many worlds there are at most."""
        return len(self._worlds)

    @asynccontextmanager
    async def world(self) -> AsyncIterator[ScienceWorld]:
        """A world for as long as the context lasts; waits for one, first come, first served.

        Raises:
            NoEpisode: the pool is closed.
        """
        future: Future[ScienceWorld] = Future()
        with self._lock:
            if self._closed:
                raise NoEpisode("this pool is closed")
            if self._idle:
                future.set_result(self._idle.pop())  # the one used last: others may never need a JVM
            else:
                self._waiting.append(future)
        try:
            world = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and not future.cancelled() and future.exception() is None:
                self._give(future.result())
            raise
        try:
            yield world
        finally:
            self._give(world)

    async def close(self) -> None:
        """End all worlds, also those in use; may be called twice."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(NoEpisode("this pool is closed"))
        for world in self._worlds:
            await world.close()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _give(self, world: ScienceWorld) -> None:
        with self._lock:
            while self._waiting:
                future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():  # else nobody waits for it any more
                    future.set_result(world)
                    return
            self._idle.append(world)


def room() -> int:
    """For how many worlds this machine has processors and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // 2**29))
