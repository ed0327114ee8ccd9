"""What nodes are made of: the parts of a graph, and how a flow becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal, cast

from langchain_core.runnables import Runnable

from icrl_graph.errors import ThreadMismatch
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.execution.budget import Budget, dearest
from icrl_graph.execution.driver import Driver, Flow, Key
from icrl_graph.execution.langgraph_internals import awritten_beside, written_beside
from icrl_graph.execution.node import PlainNode
from icrl_graph.execution.prices import cost
from icrl_graph.models.policy import Policy, as_policy, chat_models, same_model
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.plan import latest_round
from icrl_graph.prompts.templates import INSTRUCTIONS
from icrl_graph.prompts.text import CHARACTERS, text_of
from icrl_graph.state.episode import (
    Episode,
    LoopState,
    Message,
    Usage,
    add_usage,
    paid_calls,
    spent,
    switched,
    upsert,
)
from icrl_graph.state.events import Emit
from icrl_graph.state.selection import LEADERS, best
from icrl_graph.topologies.settings import MAIN, SWITCH, RunSettings, SavedSettings, part

VERDICT_TOKENS = 100
"""What a judge is taken to write, before one has been asked."""
Chooser = Callable[[Sequence[Episode]], Episode | None]
"""Which episode gives the answer; None if none can."""
Extract = Callable[[str], Any]
"""Makes the answer of a response; None if there is none in it."""
Complete = Callable[[Mapping[str, Any], Random], Mapping[str, Any]]
"""Adds what is missing to an input, `task` and `task_data`, such as a task where there is none."""


@dataclass(frozen=True)
class Parts:
    """What a graph is built of, beside its settings: all that is not a name or a number."""

    name: str
    """The graph's, such as "icrl"."""
    schema: type[RunSettings]
    driver: Driver
    policies: dict[str, Policy]
    """The models that answer, by the names that they have in the graph; "model" is the main one."""
    plain: Policy
    """The main model without structured output, or the one that acts in its episodes: for words about an answer."""
    evaluator: BoundEvaluator
    metric: BoundEvaluator | None = None
    """Gives what is reported, if it is not the reward."""
    selector: BoundEvaluator | None = None
    """Gives what the answer is chosen by, if it is not the reward."""
    choose: Chooser = best
    bounds: tuple[float, float] | None = None
    """Lowest and highest reward that make sense."""
    timeout: float | None = None
    """Seconds for one evaluation."""
    shows: Shows = ("response", "shown")
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    preamble: Sequence[Message] = ()
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extract: Extract | None = None
    complete: Complete | None = None
    watch: Sequence[Emit] = ()
    """Called with each event of a run."""
    models: Sequence[str] = ()
    """The names of the chat models among the judges and others, as far as they can be known ahead."""
    plain_switch: Policy | None = None
    """As `plain`, of the model that a run switches to, if the graph was built with one."""
    extra_calls: int = 0
    """Paid calls of a round beyond an attempt and its judgements, such as a reflection."""
    round_calls: Literal[0, 1] = 0
    """Paid calls between two rounds, however many attempts they have: one, where one text is about all of them."""
    replacements: dict[str, Policy] = field(default_factory=dict)
    """The models that runs have named in place of the graph's own."""

    @property
    def policy(self) -> Policy:
        """The main model."""
        return self.policies[MAIN]

    @property
    def calls_each(self) -> int:
        """Paid calls that a round takes, an episode of many turns counted as one; none is begun that can't be paid."""
        judges = (self.evaluator, self.metric, self.selector)
        return 1 + self.extra_calls + sum(judge.calls for judge in judges if judge is not None)

    def judging_cost(self, task: str | list[Message], past: Sequence[Episode]) -> Usage:
        """What judging one attempt takes: as much as the latest, else what its questions hold; {} if it is free."""
        judges = [judge for judge in (self.evaluator, self.metric) if judge is not None and judge.calls]
        if not judges:
            return {}
        judged = [each["costs"]["evaluate"] for each in past[-3:] if paid_calls(each, "evaluate")]
        if judged:
            return dearest(judged)
        characters = sum(judge.calls * (len(judge.frame) + len(text_of(task))) for judge in judges)
        usage = Usage(input=characters // CHARACTERS, output=VERDICT_TOKENS * sum(judge.calls for judge in judges))
        prices = [cost(model, usage, self.driver.prices) or 0.0 for model in self.models]
        return {**usage, "usd": max(prices, default=0.0)}

    def calls_of_attempt(self, settings: SavedSettings) -> int:
        """As `calls_each`, with those that confirm a success."""
        return self.calls_each + ((settings.confirmations or 1) - 1) * self.evaluator.calls

    def calls_ahead(self, settings: SavedSettings, episodes: Sequence[Episode] = ()) -> int:
        """Paid calls that must be left for a round to begin: its own, and those that judge again.

        That is, those that confirm a success, and those that judge the leaders once more.

        Args:
            settings: the run's.
            episodes: those so far, where the attempts of the latest round are yet to be reflected on.
        """
        is_retested = settings.retests and self.choose is best and self.selector is None
        answered = sum("response" in each for each in latest_round(episodes))
        words = max(0, answered - 1) * self.extra_calls + min(answered, self.round_calls)
        leaders = LEADERS * self.evaluator.calls if is_retested else 0
        return self.calls_of_attempt(settings) + words + leaders

    def is_enough(self, settings: SavedSettings) -> Callable[[Sequence[float | None]], bool] | None:
        """The stop rule of a run, of the rewards so far; None if it has none."""
        rule = self.pick("stop", settings)
        return rule and (lambda rewards: bool(rule(rewards, self.highest(settings), self.calls_each)))

    def highest(self, settings: SavedSettings) -> float | None:
        """The highest reward that counts: the target, else the upper bound; None if neither is known."""
        return settings.target if settings.target is not None or self.bounds is None else self.bounds[1]

    def policy_of(self, settings: SavedSettings, name: str = MAIN) -> Policy:
        """A model of the graph, or the one that the settings name in its place.

        Raises:
            ValueError: there is none of that name, its key is missing, or the policy has no chat model to replace.
        """
        return self.replaced(self.policies.get(name, self.policy), settings, name)

    def replaced(self, policy: Policy, settings: SavedSettings, name: str = MAIN) -> Policy:
        """A policy, with the model that the settings name in place of its own.

        Raises:
            ValueError: as for `policy_of`.
        """
        model = settings.replacement(name)
        own = self.schema.model_fields.get(name)
        if model is None or (name in self.policies and own is not None and model == own.default):
            return policy
        if model not in self.replacements:
            self.replacements[model] = as_policy(model, policy.responder.cache_choice, name)
        return policy.with_model(self.replacements[model])

    def switches_model(self, settings: SavedSettings) -> bool:
        """Whether the run's switch is, among others, one to another model."""
        return settings.switch_after is not None and (SWITCH in self.policies or settings.switch_model is not None)

    def answering(self, settings: SavedSettings, episode: Episode) -> str:
        """The name of the model that is to answer: the main one, or after the switch the other."""
        return SWITCH if switched(episode) is not None and self.switches_model(settings) else MAIN

    def writer(self, settings: SavedSettings, name: str = MAIN) -> Policy:
        """A model for words about an answer, as `plain`, or the one that the settings name in its place."""
        plain = self.plain if name == MAIN else self.plain_switch or self.plain
        return self.replaced(plain, settings, name)

    def chat_models(self) -> tuple[str, ...]:
        """The names of the providers' chat models that it pays, as far as they can be known ahead."""
        return (*chat_models(*(each.responder.part for each in self.policies.values())), *self.models)

    def rewarded_by(self, settings: SavedSettings = SavedSettings()) -> str:  # noqa: B008 - it is frozen
        """The source of the rewards of a run: "oracle", "judged", "self-judged" or "human"."""
        source, names = self.evaluator.rewarded_by, (MAIN, SWITCH) if self.switches_model(settings) else (MAIN,)
        models = [self.writer(settings, name).part for name in names]
        if source is None and any(same_model(judge, model) for judge in self.evaluator.models for model in models):
            source = "self-judged"
        source = source or ("judged" if self.evaluator.calls else "oracle")
        return f"{source} and human" if settings.revised and source != "human" else source

    def pick(self, kind: str, settings: SavedSettings) -> Any:
        """The memory, schedule, spread, layout, ablation ("show") or stop rule that the settings name."""
        return part(kind, getattr(settings, kind), self.schema.custom)


def node(
    name: str,
    flow: Callable[[Any, SavedSettings, Budget], Flow],
    part: Any,
    parts: Parts,
    discard: Callable[[tuple[str, int, int]], None] | None = None,
    *,
    answers: bool = False,
) -> Runnable[Any, Any]:
    """A flow as a node.

    Args:
        name: the node's.
        flow: what it does, of the state, the run's settings and its budget.
        part: what it calls.
        parts: what the graph is built of.
        discard: called with the run, the round and the candidate if something breaks it off.
        answers: whether it makes attempts, of which a round may have several, each in a task of its own.
    """
    driver = parts.driver

    def shares_budget(settings: SavedSettings) -> bool:
        return answers and settings.width > 1 and bool(settings.caps)

    def flow_of(state: LoopState, settings: SavedSettings, beside: Sequence[list[Episode]]) -> tuple[Flow, Key, Budget]:
        make = partial(budget_of, name, parts, state, settings, answers, beside)
        place = ("budget", state["episodes"][-1]["round"])
        budget = driver.run_cache.share(settings.run, place, make) if shares_budget(settings) else make()
        return flow(state, settings, budget), key_of(name, state), budget

    def run(state: LoopState) -> Any:
        settings = settings_of(state)
        with _forgetting(driver, state, discard):
            beside = written_beside("episodes") if shares_budget(settings) else ()
            return driver.perform(*flow_of(state, settings, beside))

    async def arun(state: LoopState) -> Any:
        settings = settings_of(state)
        with _forgetting(driver, state, discard):
            beside = await awritten_beside("episodes") if shares_budget(settings) else ()
            return await driver.aperform(*flow_of(state, settings, beside))

    return PlainNode(run, arun, name, part)


@contextmanager
def _forgetting(
    driver: Driver, state: LoopState, discard: Callable[[tuple[str, int, int]], None] | None
) -> Iterator[None]:
    """Hold on to nothing of a run that something has ended."""
    try:
        yield
    except BaseException:
        run, latest = state["settings"]["run"], state["episodes"][-1]
        driver.run_cache.forget(run)
        if discard is not None:
            discard((run, latest["round"], latest["candidate"]))
        raise


def settings_of(state: Mapping[str, Any]) -> SavedSettings:
    """The settings of the run that a node works for.

    Raises:
        ThreadMismatch: another version wrote the state.
        ValueError: the state lacks what nodes need: a fan-out has sent too little.
    """
    missing = [name for name in ("inputs", "settings", "episodes") if not state.get(name)]
    if not missing and "plan" not in state["episodes"][-1]:
        missing = ["a plan in its latest episode"]
    if missing:
        raise ValueError(
            f"the state of a node lacks {', '.join(missing)}: `build_context` opens an episode with a plan "
            "for each attempt; a fan-out sends each of them on by `send_attempts`"
        )
    check_schema_version(state["settings"])
    return SavedSettings.of(state["settings"])


def key_of(name: str, state: LoopState) -> Key:
    """The key of a node's calls: the run, the node, the round, the candidate."""
    latest = state["episodes"][-1]
    return state["settings"]["run"], name, latest["round"], latest["candidate"]


def budget_of(
    name: str, parts: Parts, state: LoopState, settings: SavedSettings, answers: bool, beside: Sequence[list[Episode]]
) -> Budget:
    """The run's caps, and what is spent of them.

    Args:
        name: the node's.
        parts: what the graph is built of.
        state: its state.
        settings: the run's.
        answers: whether it makes attempts: of its budget enough is set aside to judge them.
        beside: what attempts of the round have written that had ended before a killed run was resumed.
    """
    if not settings.caps:
        return Budget({}, {})
    past = state["episodes"]
    alike = [each for each in past[-3:] if switched(each) == switched(past[-1])]  # by the same model
    costs = [each["costs"][name] for each in alike if paid_calls(each, name)]
    one = dearest([_per_call(usage) for usage in costs]) if costs else None
    set_aside = parts.judging_cost(state["inputs"]["task"], past) if answers else {}
    return Budget(settings.caps, spent(upsert(past, beside)), one, set_aside)


def _per_call(usage: Usage) -> Usage:
    shares: Any = {name: amount / usage["calls"] for name, amount in usage.items()}  # type: ignore[operator]
    return cast(Usage, shares)


def made_of(parts: Parts) -> dict[str, Any]:
    """What a saved run is known by: the names of its parts, their code, and its options, as fingerprints."""
    schema = parts.schema
    return {"parts": dict(schema.parts), "code": dict(schema.code), "options": dict(schema.options)}


def identity(episode: Episode) -> Episode:
    """Which episode a patch is for."""
    return Episode(round=episode["round"], candidate=episode["candidate"])


def costs(episode: Episode, node: str, usage: Usage) -> dict[str, Usage]:
    """What an episode has cost, with what a node has spent on it, beside what that may have spent before."""
    before = episode.get("costs", {})
    return {**before, node: add_usage(before.get(node, {}), usage)}


def random_of(settings: SavedSettings, episode: Episode, purpose: str) -> Random:
    """A generator of an episode's own: the same again if the run is repeated with the same seed, or resumed."""
    source = settings.run if settings.seed is None else settings.seed
    return Random(f"{source}/{episode['round']}/{episode['candidate']}/{purpose}")


SCHEMA_VERSION = 3
"""The version of the state's schema; saved with every run."""


def check_schema_version(saved: Mapping[str, Any]) -> None:
    """Raise `ThreadMismatch` if a run was written by another version of this package than can resume it."""
    if (version := saved.get("form")) != SCHEMA_VERSION:
        raise ThreadMismatch(
            f"the thread was written in schema version {version}, this version of icrl_graph reads {SCHEMA_VERSION}: "
            "resume it with the version that wrote it, or begin a new thread"
        )
