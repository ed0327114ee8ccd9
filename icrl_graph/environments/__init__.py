"""Environments: what an agent acts in, turn by turn, by text.

An environment is anything with `reset`, `step` and `close`, sync or async. It lives in one process; what lasts is the
list of actions: `replay` repeats them in a fresh one and compares each observation.

The names in `_HOME` are loaded when they are first used, for their modules import this one.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from icrl_graph.errors import IcrlError
from icrl_graph.state.episode import plain
from icrl_graph.state.unicode import cleaned

if TYPE_CHECKING:
    from icrl_graph.environments.pool import EnvironmentPool
    from icrl_graph.environments.rollouts import episode_return, rollout

_HOME = {"EnvironmentPool": "pool", "episode_return": "rollouts", "rollout": "rollouts"}

__all__ = [
    "Environment",
    "EnvironmentFailed",
    "EnvironmentLost",
    "EnvironmentPool",
    "Outcome",
    "ReplayDivergence",
    "episode_return",
    "replay",
    "restores",
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
    """Of this action alone; an episode's return is the sum."""
    done: bool = False
    """Whether the episode has ended; no action may follow."""
    success: bool = False
    """Whether its goal was reached."""
    info: Mapping[str, Any] = {}
    """Anything else, in JSON-able values, such as a raw score. Never shown to the model."""
    hint: str = ""
    """What helps with the next action alone, such as the actions that are valid in this state: shown with the latest
    observation, and not again."""


FirstObservation = str | Outcome
"""What `reset` returns; an outcome may have a hint."""


class Environment(Protocol):
    """An environment. Each method may also be a coroutine function.

    Where chance is to fall differently in each episode of a task, and yet alike when an episode is repeated, `reset`
    also names an argument `episode`, with a default: it tells the episodes of a run apart (round and candidate). What
    is drawn within an episode then comes from a generator that is seeded by the task data and by this.
    """

    def reset(self, task_data: Mapping[str, Any]) -> FirstObservation | Awaitable[FirstObservation]:
        """Begin an episode, also after another one."""

    def step(self, action: str) -> Outcome | Awaitable[Outcome]:
        """Do an action. One that is not understood has an observation like any other, and is not an error."""

    def close(self) -> Awaitable[None] | None:
        """Release its resources; may be called twice."""


class EnvironmentLost(IcrlError):
    """An environment has died or no longer answers; a fresh one can replace it by `replay`."""


class EnvironmentFailed(IcrlError):
    """An environment has raised an error, or not returned an outcome: the run stops here, and can be resumed."""


class ReplayDivergence(IcrlError):
    """An environment did not repeat what it did before.

    Attributes:
        step: number of the action that differs; 0 is the reset.
        expected: the observation of before.
        got: the observation of the replay.
    """

    def __init__(self, step: int, expected: str, got: str) -> None:
        super().__init__(f"replayed, step {step} gave {got!r:.300} and not {expected!r:.300}")
        self.step, self.expected, self.got = step, expected, got


async def replay(
    environment: Environment,
    task_data: Mapping[str, Any],
    seen: Sequence[str],
    actions: Sequence[str],
    episode: Hashable = 0,
) -> None:
    """Bring a fresh environment to the state of another one.

    Args:
        environment: the fresh one.
        task_data: what the other was reset with.
        seen: its first observation, and that of each action.
        actions: the actions that were done in it.
        episode: which of the run's episodes it is.

    Raises:
        ReplayDivergence: an observation differs; step 0 is the reset.
    """
    for step, expected in enumerate(seen):
        if step == 0:
            got = (await reset_environment(environment, task_data, episode)).observation
        else:
            got = (await call_environment(environment.step, actions[step - 1])).observation
        if got != expected:
            raise ReplayDivergence(step, expected, got)


async def restores(
    environment: Environment, task_data: Mapping[str, Any], actions: Sequence[str], episode: Hashable = 0
) -> None:
    """Check that an environment is the same again after `reset`, also with another episode in between.

    It is what learning across episodes stands on: all episodes of a trial are of one hidden instance.

    Args:
        environment: it plays three episodes, the second with the actions in the opposite order.
        task_data: what it is reset with.
        actions: what is done in the first and in the third episode, as far as these last.
        episode: which of the run's episodes they are: all of them the same.

    Raises:
        ReplayDivergence: an observation or a reward of the third episode is not that of the first; step 0 is the reset.
    """
    first, _, again = [
        await _told(environment, task_data, order, episode) for order in (actions, actions[::-1], actions)
    ]
    for step, (expected, got) in enumerate(zip_longest(first, again, fillvalue="nothing")):
        if got != expected:
            raise ReplayDivergence(step, expected, got)


async def _told(
    environment: Environment, task_data: Mapping[str, Any], actions: Sequence[str], episode: Hashable
) -> list[str]:
    """What an episode shows and pays, step by step."""
    outcomes = [await reset_environment(environment, task_data, episode)]
    for action in actions:
        if not outcomes[-1].done:
            outcomes.append(await call_environment(environment.step, action))
    return [f"{outcome.observation} (reward {outcome.reward:g}{', end' * outcome.done})" for outcome in outcomes]


async def reset_environment(environment: Environment, task_data: Mapping[str, Any], episode: Hashable) -> Outcome:
    """Begin an episode; `reset` is told which one it is, where it asks."""
    reset: Callable[..., Any] = environment.reset
    try:
        asks = "episode" in inspect.signature(reset).parameters
    except (TypeError, ValueError):  # written in another language
        asks = False
    return await call_environment(partial(reset, episode=episode) if asks else reset, task_data)


async def call_environment(method: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call an environment's `reset` or `step`; returns the outcome, checked, in plain values.

    Raises:
        EnvironmentFailed: it has not returned a text or an outcome, a value in it is of another type, or it has raised
            an error that is not one of this package.
    """
    return _checked(await call_method(method, *arguments))


async def call_method(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method that may be a coroutine function, or block.

    Raises:
        EnvironmentFailed: it has raised an error that is not one of this package.
    """
    try:
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        result = await asyncio.to_thread(method, *arguments)
        return await result if inspect.isawaitable(result) else result
    except IcrlError:
        raise
    except Exception as error:
        raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error


def _checked(result: Any) -> Outcome:
    outcome = Outcome(result) if isinstance(result, str) else result
    if not isinstance(outcome, Outcome) or not (isinstance(outcome.observation, str) and isinstance(outcome.hint, str)):
        raise EnvironmentFailed(f"an environment returns an Outcome whose observation is a text, got {result!r:.200}")
    try:
        reward, info = float(outcome.reward), plain(dict(outcome.info), "the environment's info")
    except (TypeError, ValueError) as error:
        raise EnvironmentFailed(f"an environment returned {result!r:.200}: {error}") from error
    if not math.isfinite(reward):
        raise EnvironmentFailed(f"a step's reward must be finite, got {reward}")
    observation, hint = cleaned(outcome.observation), cleaned(outcome.hint)
    return Outcome(observation, reward, bool(outcome.done), bool(outcome.success), info, hint)
