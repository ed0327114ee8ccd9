"""What a run tells while it runs: `stream_mode="custom"`, for user interfaces.

    for event in graph.stream(inputs, stream_mode="custom"):
        if event["type"] == "episode":
            print(event["round"], event["reward"], event["best"])

In order, a round is a "round", for each of its attempts a "response" (ahead of it a "step" for each action, where it is
an episode of many turns) and an "episode", and then a "budget", if the run has caps; the run ends with "done". Each
says whose it is (`Source`), so runs side by side can be told apart. An event is a plain dictionary of JSON-able values;
custom parts may write others beside them. Of a graph that is nested in a larger one, LangGraph streams them with
`subgraphs=True`; the option `watch` of a topology hears them wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, NotRequired, TypeGuard

from typing_extensions import TypedDict

from icrl_graph.state.episode import Episode, Usage, answer_of, cost_of, switched, value_of
from icrl_graph.state.selection import best_value, metric_of

Emit = Callable[[Any], None]
"""Streams an event."""
TASK_CHARACTERS = 200
"""Of a task that an event says, at most."""


class Source(TypedDict, total=False):
    """Whose an event is; each of a run has all of these."""

    run: str
    """The run's id, which stays the same when it is resumed."""
    thread: str | None
    """The thread that it is saved under, if any; of a graph within a larger one, that one's."""
    topology: str
    """The name of its graph, such as "icrl"."""
    task: str
    """The beginning of its task, as text."""


class RoundEvent(Source):
    """A round is begun."""

    type: Literal["round"]
    round: int
    """From 0."""
    instruction: str
    """What it asks for."""
    shown: int
    """How many earlier episodes its prompt shows."""
    left_out: int
    """How many it does not."""
    attempts: int
    """How many there will be in it, side by side."""
    switched: NotRequired[int]
    """The round from which on the run plays with another model, memory or schedule; absent before it."""


class StepEvent(Source):
    """An action was done, in an episode of many turns."""

    type: Literal["step"]
    round: int
    candidate: int
    step: int
    """From 0."""
    action: str
    observation: str
    reward: float
    done: bool
    success: bool
    info: dict[str, Any]


class ResponseEvent(Source):
    """An attempt was made, and is not judged yet."""

    type: Literal["response"]
    round: int
    candidate: int
    response: str | None
    error: str | None
    """Why there is no response, or no answer in it."""


class EpisodeEvent(Source):
    """An attempt was judged."""

    type: Literal["episode"]
    round: int
    candidate: int
    instruction: str
    response: str | None
    answer: Any
    reward: float | None
    steps: list[float | None]
    """The reward of each of its steps; empty where the evaluator gives none."""
    metric: float | None
    error: str | None
    """Why there is no response, no answer or no reward."""
    best: float | None
    """The highest reward so far."""
    usage: Usage
    model: NotRequired[str]
    """Which of the graph's models wrote it; absent where there is one alone."""
    switched: NotRequired[int]
    """As in the round."""


class BudgetEvent(Source):
    """What is spent of the caps that are set."""

    type: Literal["budget"]
    spent: Usage
    """In all."""
    caps: dict[str, float]
    """By "calls", "tokens" (in and out), "usd" and "time" (seconds), those that are set."""


class DoneEvent(Source):
    """The run is over."""

    type: Literal["done"]
    stopped: str
    answer: Any
    reward: float | None
    metric: float | None
    rounds: int
    usage: Usage


Event = RoundEvent | StepEvent | ResponseEvent | EpisodeEvent | BudgetEvent | DoneEvent


def episode_event(episodes: Sequence[Episode], at: int) -> EpisodeEvent:
    """What is told of a judged attempt.

    Args:
        episodes: all so far.
        at: its place among them.
    """
    episode = episodes[at]
    told = EpisodeEvent(
        type="episode",
        round=episode["round"],
        candidate=episode["candidate"],
        instruction=episode["plan"]["instruction"],
        response=episode.get("response"),
        answer=deepcopy(answer_of(episode)),  # who listens may change it
        reward=value_of(episode),
        steps=[*episode["reward"].get("steps", [])],
        metric=metric_of(episode),
        error=episode.get("error") or episode["reward"].get("error"),
        best=best_value(episodes[: at + 1]),
        usage=cost_of(episode),
    )
    if "model" in episode:
        told["model"] = episode["model"]
    if (since := switched(episode)) is not None:
        told["switched"] = since
    return told


def is_episode(event: Any) -> TypeGuard[EpisodeEvent]:
    """Whether an event tells an attempt with its reward."""
    return isinstance(event, Mapping) and event.get("type") == "episode"
