"""What nodes are made of: the parts of a graph, and how a flow or a function becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from langchain_core.runnables import Runnable

from icrl_graph.errors import ThreadMismatch
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.driver import Driver, Flow, Key
from icrl_graph.execution.node import Straight
from icrl_graph.models.policy import Policy, as_policy, same_model
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.templates import INSTRUCTIONS
from icrl_graph.state.episode import Episode, LoopState, Message, Usage, add_usage, spent
from icrl_graph.topologies import settings
from icrl_graph.topologies.stopping import caps_of

Chooser = Callable[[Sequence[Episode]], Episode | None]
"""Which episode gives the answer; None if none can."""
Extract = Callable[[str], Any]
"""Makes the answer of a response; None if there is none in it."""
Complete = Callable[[Mapping[str, Any], Random], Mapping[str, Any]]
"""Adds what is missing to an input, `task` and `task_data`, such as a task where none is given."""


@dataclass(frozen=True)
class Parts:
    """What a graph is built of, beside its settings: all that is no name or number."""

    schema: type[settings.RunSettings]
    driver: Driver
    policy: Policy
    """Who answers, unless the settings name another model."""
    plain: Policy
    """The same without structured output, or who acts in its episodes: for words about an answer."""
    evaluator: BoundEvaluator
    shows: Shows = ("response", "shown")
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    preamble: Sequence[Message] = ()
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extract: Extract | None = None
    complete: Complete | None = None
    models: Sequence[str] = ()
    """The names of the chat models among the judges and others, as far as they can be told ahead."""
    calls_each: int = 1
    """Paid calls that a round takes, an episode of many turns taken for one; none is begun that can't be paid."""
    others: dict[str, Policy] = field(default_factory=dict)
    """The models that runs have named, in place of the graph's own."""

    def by(self, policy: Policy, frozen: Mapping[str, Any]) -> Policy:
        """A policy, or the same one with the model that the settings name.

        Raises:
            ValueError: there is none of that name, its key is missing, or the policy has no chat model to replace.
        """
        name = frozen.get("model")
        if name in (None, self.schema.model_fields["model"].default):
            return policy
        if name not in self.others:
            self.others[name] = as_policy(name, policy.responder.cache_choice)
        return policy.with_model(self.others[name])

    def asked(self, frozen: Mapping[str, Any]) -> Any:
        """The model that a run with these settings asks, as it was given."""
        return self.by(self.plain, frozen).part

    def rewarded_by(self, frozen: Mapping[str, Any] | None = None) -> str:
        """Who gives the rewards of a run with these settings: "oracle", "judged", "self-judged" or "human"."""
        frozen, source = frozen or {}, self.evaluator.rewarded_by
        if source is None and any(same_model(judge, self.asked(frozen)) for judge in self.evaluator.models):
            source = "self-judged"
        source = source or ("judged" if self.evaluator.calls else "oracle")
        return f"{source} and human" if frozen.get("revised") and source != "human" else source

    def pick(self, kind: str, frozen: Mapping[str, Any]) -> Any:
        """The memory, schedule, layout or ablation that the settings name."""
        return settings.part(kind, frozen[kind], self.schema.custom)


def node(
    name: str,
    flow: Callable[[Any, Any], Flow],
    part: Any,
    driver: Driver,
    discard: Callable[[tuple[str, int, int]], None] | None = None,
) -> Runnable[Any, Any]:
    """A flow as a node.

    Args:
        name: the node's.
        flow: what it does.
        part: what it calls.
        driver: performs it.
        discard: called with the run, the round and the candidate if something breaks it off.
    """

    def run(state: LoopState) -> Any:
        with _forgetting(driver, state, discard):
            return driver.perform(flow(state, part), key_of(name, state), budget_of(state))

    async def arun(state: LoopState) -> Any:
        with _forgetting(driver, state, discard):
            return await driver.aperform(flow(state, part), key_of(name, state), budget_of(state))

    return Straight(run, arun, name, part)


@contextmanager
def _forgetting(
    driver: Driver, state: LoopState, discard: Callable[[tuple[str, int, int]], None] | None
) -> Iterator[None]:
    """Hold on to nothing of a run that something has ended."""
    try:
        yield
    except BaseException:
        run, now = state["settings"]["run"], state["episodes"][-1]
        driver.run_cache.forget(run)
        if discard is not None:
            discard((run, now["round"], now["candidate"]))
        raise


def key_of(name: str, state: LoopState) -> Key:
    """Who asks in a node: the run, the node, the round, the candidate."""
    check_schema_version(state["settings"])
    now = state["episodes"][-1]
    return state["settings"]["run"], name, now["round"], now["candidate"]


def budget_of(state: LoopState) -> Budget:
    """The run's caps, and what is spent of them."""
    caps = caps_of(state["settings"])
    return Budget(caps, spent(state["episodes"]) if caps else {})


def identity(episode: Episode) -> Episode:
    """Which episode a patch is for."""
    return Episode(round=episode["round"], candidate=episode["candidate"])


def costs(episode: Episode, node: str, usage: Usage) -> dict[str, Usage]:
    """What an episode has cost, with what a node has spent on it now, beside what it may have spent before."""
    before = episode.get("costs", {})
    return {**before, node: add_usage(before.get(node, {}), usage)}


def random_of(frozen: Mapping[str, Any], episode: Episode, what: str) -> Random:
    """A generator of an episode's own: the same again if the run is repeated with the same seed, or resumed."""
    source = frozen["run"] if frozen["seed"] is None else frozen["seed"]
    return Random(f"{source}/{episode['round']}/{episode['candidate']}/{what}")


SCHEMA_VERSION = 3
"""The form of the state; stored with every run."""


def check_schema_version(frozen: Mapping[str, Any]) -> None:
    """Raise `ThreadMismatch` if a run was written by another version of this package than can go on with it."""
    if (version := frozen.get("form")) != SCHEMA_VERSION:
        raise ThreadMismatch(
            f"the thread was written in schema version {version}, this version of icrl_graph reads {SCHEMA_VERSION}: "
            "resume it with the version that wrote it, or begin a new thread"
        )
