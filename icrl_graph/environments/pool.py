"""Live environments: a cache of what the list of actions says.

An episode's environment is kept open between its steps, and serves another one after it. Where it is not there, after a
crash, in another process, or because it has died, a fresh one is brought to the same point by doing the same actions
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any, NamedTuple

from icrl_graph.environments import Environment, EnvironmentFailed, EnvironmentLost, Outcome, as_outcome, called, replay
from icrl_graph.errors import IcrlError
from icrl_graph.execution.queue import FairSemaphore, await_slot

ATTEMPTS = 3
"""How often a step is tried where the environment dies of it."""


class _World(NamedTuple):
    environment: Environment
    place: ExitStack
    steps: list[str]
    """What was done in it."""


class EnvironmentPool:
    """The environments of the episodes that are being played.

    Args:
        make: makes one; called with nothing.
        limit: how many may be open at once; an episode waits until there is room for its own. None: any.
    """

    def __init__(self, make: Callable[[], Environment], limit: int | None = None) -> None:
        self._make, self._slots = make, FairSemaphore(limit)
        self._open: dict[Hashable, _World] = {}
        self._idle: deque[Environment] = deque()

    async def reset(self, key: Hashable, task_data: Mapping[str, Any]) -> Outcome:
        """Begin an episode; gives the first observation."""

        async def begun() -> Outcome:
            world = await self._new(key)
            return as_outcome(await called(world.environment.reset, task_data))

        return await self._tried(key, begun)

    async def step(
        self, key: Hashable, task_data: Mapping[str, Any], seen: Sequence[str], actions: Sequence[str]
    ) -> Outcome:
        """Do the latest of an episode's actions.

        Args:
            key: whose episode it is.
            task_data: what it was begun with.
            seen: the first observation, and the one that each earlier action led to.
            actions: all of them; the latest is to be done.

        Raises:
            ReplayDivergence: a fresh environment does not repeat what was seen.
            EnvironmentLost: it has died of the action each time.
        """
        *before, action = actions

        async def done() -> Outcome:
            world = await self._at(key, task_data, seen, before)
            world.steps.append(action)  # first: a step that breaks off leaves nothing that can be gone on with
            return as_outcome(await called(world.environment.step, action))

        return await self._tried(key, done)

    async def release(self, key: Hashable, is_lost: bool = False) -> None:
        """Let others have the environment of an episode, if it is open, or close it."""
        if (world := self._open.pop(key, None)) is None:
            return
        with world.place:
            if not is_lost:
                self._idle.append(world.environment)
                return
            with suppress(IcrlError):  # it is gone already
                await called(world.environment.close)

    def discard(self, key: Hashable) -> None:
        """Give an episode's place to others at once, where it was broken off: its environment may be in mid-step."""
        if (world := self._open.pop(key, None)) is not None:
            world.place.close()

    async def _tried(self, key: Hashable, deed: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Do something, again where the environment dies of it; one that has died or failed serves nobody any more."""
        for attempt in count(1):
            try:
                return await deed()
            except (EnvironmentLost, EnvironmentFailed) as error:
                await self.release(key, is_lost=True)
                if attempt == ATTEMPTS or isinstance(error, EnvironmentFailed):
                    raise
        raise AssertionError

    async def _at(
        self, key: Hashable, task_data: Mapping[str, Any], seen: Sequence[str], before: Sequence[str]
    ) -> _World:
        """The environment of an episode, in which just these actions were done."""
        world = self._open.get(key)
        if world is not None and world.steps == list(before):
            return world
        world = await self._new(key)
        await replay(world.environment, task_data, seen, before)
        world.steps.extend(before)
        return world

    async def _new(self, key: Hashable) -> _World:
        await self.release(key)
        stack = ExitStack()
        place = stack.enter_context(self._slots.slot())
        try:
            await await_slot(place)
            environment = self._idle.pop() if self._idle else await called(self._make)
            self._open[key] = _World(environment, stack, [])
        except BaseException:
            stack.close()
            raise
        return self._open[key]
