"""EnvironmentPool that an agent acts in, turn by turn, by text.

An environment is anything with `reset`, `step` and `close`, sync or async. It lives in one process; what lasts is the
list of actions: `replay` does them again in a fresh one and compares what comes back, step by step.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from icrl_graph.errors import IcrlError
from icrl_graph.state.episode import plain


class Outcome(NamedTuple):
    """What an action led to."""

    observation: str
    """What the agent sees now."""
    reward: float = 0.0
    """For this action alone; an episode's return is the sum."""
    done: bool = False
    """Whether the episode has ended; no action may follow."""
    success: bool = False
    """Whether it ended as it should."""
    info: Mapping[str, Any] = {}
    """Anything else, in JSON-able values, such as a raw score. Never shown."""
    hint: str = ""
    """What helps with the next action alone, such as the actions that are valid now: shown with the latest observation,
    and not again."""


Begun = str | Outcome
"""The first observation; as an outcome, it may have a hint."""


class Environment(Protocol):
    """A world. Each method may also be a coroutine function."""

    def reset(self, task_data: Mapping[str, Any]) -> Begun | Awaitable[Begun]:
        """Begin an episode, also after another one."""

    def step(self, action: str) -> Outcome | Awaitable[Outcome]:
        """Act. Text that means nothing to the world is an observation like others, not an error."""

    def close(self) -> Awaitable[None] | None:
        """Give back what it holds; may be called twice."""


class EnvironmentLost(IcrlError):
    """An environment has died or no longer answers; a fresh one can take its place by `replay`."""


class EnvironmentFailed(IcrlError):
    """An environment has raised something, or given what is no outcome: the run stops here, and can be gone on with."""


class ReplayDivergence(IcrlError):
    """A world did not repeat what it did before."""

    def __init__(self, step: int, expected: str, got: str) -> None:
        super().__init__(f"replayed, step {step} gave {got!r:.300} and not {expected!r:.300}")
        self.step, self.expected, self.got = step, expected, got


async def replay(
    environment: Environment, task_data: Mapping[str, Any], seen: Sequence[str], actions: Sequence[str]
) -> None:
    """Bring a fresh environment to where another one was.

    Args:
        environment: the fresh one.
        task_data: what the other was reset with.
        seen: the observation that it began with, and the one that each action led to.
        actions: what was done in it.

    Raises:
        ReplayDivergence: it does not go the same way; step 0 is the reset.
    """
    got = as_outcome(await called(environment.reset, task_data)).observation
    for step, expected in enumerate(seen):
        if step > 0:
            got = as_outcome(await called(environment.step, actions[step - 1])).observation
        if got != expected:
            raise ReplayDivergence(step, expected, got)


def as_outcome(given: Any) -> Outcome:
    """What a reset or a step gave, checked, in plain values.

    Raises:
        EnvironmentFailed: it is neither a text nor an outcome, or something in it is of another type.
    """
    found = Outcome(given) if isinstance(given, str) else given
    if not isinstance(found, Outcome) or not (isinstance(found.observation, str) and isinstance(found.hint, str)):
        raise EnvironmentFailed(f"an environment gives an Outcome whose observation is a text, got {given!r:.200}")
    try:
        reward, info = float(found.reward), plain(dict(found.info), "the environment's info")
    except (TypeError, ValueError) as wrong:
        raise EnvironmentFailed(f"an environment gave {given!r:.200}: {wrong}") from wrong
    if not math.isfinite(reward):
        raise EnvironmentFailed(f"a step's reward must be finite, got {reward}")
    return Outcome(found.observation, reward, bool(found.done), bool(found.success), info, found.hint)


async def called(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method gives that may be a coroutine function, or block.

    Raises:
        EnvironmentFailed: it has raised something that is no error of this package's.
    """
    try:
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        given = await asyncio.to_thread(method, *arguments)
        return await given if inspect.isawaitable(given) else given
    except IcrlError:
        raise
    except Exception as error:
        raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error
