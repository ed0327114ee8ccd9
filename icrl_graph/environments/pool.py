"""Live environments: a cache of what the list of actions says.

An episode's environment stays open between its steps, and another episode uses it afterwards. Where it is not there,
after a crash, in another process, or because it has died, a fresh one is brought to the same point by doing the same
actions again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any, NamedTuple

from icrl_graph.environments import Environment, EnvironmentFailed, EnvironmentLost, Outcome, as_outcome, call, replay
from icrl_graph.errors import IcrlError
from icrl_graph.execution.queue import FairSemaphore, aawait_slot

ATTEMPTS = 3
"""Attempts at a step that the environment dies of."""


class _OpenEnvironment(NamedTuple):
    environment: Environment
    slot: ExitStack
    steps: list[str]
    """The actions that were done in it."""


class EnvironmentPool:
    """The environments of the episodes that are being played.

    Args:
        make: makes one; called without arguments.
        limit: how many may be open at once; an episode waits until there is room for one. None: any number.
    """

    def __init__(self, make: Callable[[], Environment], limit: int | None = None) -> None:
        self._make, self._slots = make, FairSemaphore(limit)
        self._open: dict[Hashable, _OpenEnvironment] = {}
        self._idle: deque[Environment] = deque()

    async def reset(self, key: Hashable, task_data: Mapping[str, Any]) -> Outcome:
        """Begin an episode; returns the first observation."""

        async def reset_once() -> Outcome:
            opened = await self._new(key)
            return as_outcome(await call(opened.environment.reset, task_data))

        return await self._retried(key, reset_once)

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

        async def step_once() -> Outcome:
            opened = await self._at(key, task_data, seen, before)
            opened.steps.append(action)  # first: after a step that breaks off nobody can continue with it
            return as_outcome(await call(opened.environment.step, action))

        return await self._retried(key, step_once)

    async def release(self, key: Hashable, is_lost: bool = False) -> None:
        """Let others have the environment of an episode, if it is open, or close it."""
        if (opened := self._open.pop(key, None)) is None:
            return
        with opened.slot:
            if not is_lost:
                self._idle.append(opened.environment)
                return
            with suppress(IcrlError):  # it is gone already
                await call(opened.environment.close)

    def discard(self, key: Hashable) -> None:
        """Give an episode's place to others at once, where it was broken off: its environment may be in mid-step."""
        if (opened := self._open.pop(key, None)) is not None:
            opened.slot.close()

    async def _retried(self, key: Hashable, attempt_once: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Try something, again where the environment dies of it; one that has died or failed is not used again."""
        for attempt in count(1):
            try:
                return await attempt_once()
            except (EnvironmentLost, EnvironmentFailed) as error:
                await self.release(key, is_lost=True)
                if attempt == ATTEMPTS or isinstance(error, EnvironmentFailed):
                    raise
        raise AssertionError

    async def _at(
        self, key: Hashable, task_data: Mapping[str, Any], seen: Sequence[str], before: Sequence[str]
    ) -> _OpenEnvironment:
        """The environment of an episode, in which just these actions were done."""
        opened = self._open.get(key)
        if opened is not None and opened.steps == list(before):
            return opened
        opened = await self._new(key)
        await replay(opened.environment, task_data, seen, before)
        opened.steps.extend(before)
        return opened

    async def _new(self, key: Hashable) -> _OpenEnvironment:
        await self.release(key)
        stack = ExitStack()
        slot = stack.enter_context(self._slots.slot())
        try:
            await aawait_slot(slot, math.inf)
            environment = self._idle.pop() if self._idle else await call(self._make)
            self._open[key] = _OpenEnvironment(environment, stack, [])
        except BaseException:
            stack.close()
            raise
        return self._open[key]
