"""EnvironmentPool that an agent acts in, turn by turn, by text.

An environment is anything with `reset`, `step` and `close`, sync or async. It lives in one process; what lasts is the
list of actions: `replay` does them again in a fresh one and compares what comes back, step by step.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from icrl_graph.errors import IcrlError
from icrl_graph.state.episode import plain

if TYPE_CHECKING:
    from icrl_graph.environments.pool import EnvironmentPool
    from icrl_graph.environments.rollouts import episode_return, rollout

_HOME = {"EnvironmentPool": "pool", "episode_return": "rollouts", "rollout": "rollouts"}
"""Names that are loaded when they are first used: their modules import this one."""

__all__ = [
    "Begun",
    "Environment",
    "EnvironmentFailed",
    "EnvironmentLost",
    "EnvironmentPool",
    "Outcome",
    "ReplayDivergence",
    "as_outcome",
    "call",
    "episode_return",
    "replay",
    "rollout",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


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
    """An environment has raised something, or given what is not an outcome: the run stops here, and can be resumed."""


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
    got = as_outcome(await call(environment.reset, task_data)).observation
    for step, expected in enumerate(seen):
        if step > 0:
            got = as_outcome(await call(environment.step, actions[step - 1])).observation
        if got != expected:
            raise ReplayDivergence(step, expected, got)


def as_outcome(value: Any) -> Outcome:
    """What a reset or a step returned, checked, in plain values.

    Raises:
        EnvironmentFailed: it is neither a text nor an outcome, or something in it is of another type.
    """
    outcome = Outcome(value) if isinstance(value, str) else value
    if not isinstance(outcome, Outcome) or not (isinstance(outcome.observation, str) and isinstance(outcome.hint, str)):
        raise EnvironmentFailed(f"an environment gives an Outcome whose observation is a text, got {value!r:.200}")
    try:
        reward, info = float(outcome.reward), plain(dict(outcome.info), "the environment's info")
    except (TypeError, ValueError) as wrong:
        raise EnvironmentFailed(f"an environment gave {value!r:.200}: {wrong}") from wrong
    if not math.isfinite(reward):
        raise EnvironmentFailed(f"a step's reward must be finite, got {reward}")
    return Outcome(outcome.observation, reward, bool(outcome.done), bool(outcome.success), info, outcome.hint)


async def call(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method gives that may be a coroutine function, or block.

    Raises:
        EnvironmentFailed: it has raised an error that is not one of this package.
    """
    try:
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        value = await asyncio.to_thread(method, *arguments)
        return await value if inspect.isawaitable(value) else value
    except IcrlError:
        raise
    except Exception as error:
        raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error
