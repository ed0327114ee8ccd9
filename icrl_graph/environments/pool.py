"""Live environments: a cache of the state that a list of actions leads to.

An episode's environment stays open between its steps, and serves another episode after it. Where it is not there, after
a crash, in another process, or because it has died, a fresh one is brought to the same state by repeating the actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from icrl_graph.environments import (
    Environment,
    EnvironmentFailed,
    EnvironmentLost,
    Outcome,
    call_environment,
    call_method,
    replay,
    reset_environment,
)
from icrl_graph.errors import IcrlError
from icrl_graph.execution.queue import FairSemaphore, await_slot

MAX_ATTEMPTS = 3
"""How often a step is tried where the environment dies of it."""


class _Open(NamedTuple):
    """The environment of an episode that is being played."""

    environment: Environment
    slot: ExitStack
    actions: list[str]
    """The actions that were done in it."""


class EnvironmentPool:
    """The environments of the episodes that are being played.

    Args:
        make: makes an environment; called without arguments.
        limit: environments that may be open at once; further episodes wait. None: no limit.
    """

    def __init__(self, make: Callable[[], Environment], limit: int | None = None) -> None:
        self._make, self._slots = make, FairSemaphore(limit)
        self._open: dict[Hashable, _Open] = {}
        self._idle: deque[Environment] = deque()

    async def reset(self, key: Hashable, task_data: Mapping[str, Any], episode: Hashable = 0) -> Outcome:
        """Begin an episode; returns the first observation."""

        async def reset() -> Outcome:
            opened = await self._acquire(key)
            return await reset_environment(opened.environment, task_data, episode)

        return await self._with_retries(key, reset)

    async def step(
        self,
        key: Hashable,
        task_data: Mapping[str, Any],
        seen: Sequence[str],
        actions: Sequence[str],
        episode: Hashable = 0,
    ) -> Outcome:
        """Do the latest of an episode's actions.

        Args:
            key: identifies the episode.
            task_data: what it was reset with.
            seen: the first observation, and that of each earlier action.
            actions: all actions; the latest is to be done.
            episode: which of its run's episodes it is.

        Raises:
            ReplayDivergence: a fresh environment does not repeat what was seen.
            EnvironmentLost: it has died of the action each time.
        """
        *before, action = actions

        async def step() -> Outcome:
            opened = await self._after(key, task_data, seen, before, episode)
            opened.actions.append(action)  # first: an environment whose step breaks off must not be used again
            return await call_environment(opened.environment.step, action)

        return await self._with_retries(key, step)

    async def release(self, key: Hashable, is_lost: bool = False) -> None:
        """Give the environment of an episode to others, if it is open; close it where it is lost."""
        if (opened := self._open.pop(key, None)) is None:
            return
        with opened.slot:
            if not is_lost:
                self._idle.append(opened.environment)
                return
            with suppress(IcrlError):  # it is gone already
                await call_method(opened.environment.close)

    def discard(self, key: Hashable) -> None:
        """Free an episode's slot at once, where it was interrupted: its environment may be in the middle of a step."""
        if (opened := self._open.pop(key, None)) is not None:
            opened.slot.close()

    async def _with_retries(self, key: Hashable, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Reset or step, again where the environment dies of it; one that has died or failed is not used again."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return await act()
            except (EnvironmentLost, EnvironmentFailed) as error:
                await self.release(key, is_lost=True)
                if attempt == MAX_ATTEMPTS or isinstance(error, EnvironmentFailed):
                    raise
        raise AssertionError

    async def _after(
        self,
        key: Hashable,
        task_data: Mapping[str, Any],
        seen: Sequence[str],
        actions: Sequence[str],
        episode: Hashable,
    ) -> _Open:
        """The environment of an episode, after exactly these actions."""
        opened = self._open.get(key)
        if opened is not None and opened.actions == list(actions):
            return opened
        opened = await self._acquire(key)
        await replay(opened.environment, task_data, seen, actions, episode)
        opened.actions.extend(actions)
        return opened

    async def _acquire(self, key: Hashable) -> _Open:
        """An environment that is idle or new, once there is a slot for it."""
        await self.release(key)
        stack = ExitStack()
        slot = stack.enter_context(self._slots.slot())
        try:
            await await_slot(slot)
            environment = self._idle.pop() if self._idle else await call_method(self._make)
            self._open[key] = _Open(environment, stack, [])
        except BaseException:
            stack.close()
            raise
        return self._open[key]
