"""An experiment: a plan with the objects that its names stand for, checked; its runs, and what they will cost.

A plan is names and numbers, so that a folder can hold it. What has no name because it was passed as a Python object is
in `Objects`, by its field of the plan; the plan then has "python:NAME" there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from icrl_graph.benchmarks.arms import Arm, read_arms, split_and_allocated
from icrl_graph.benchmarks.benchmark import Benchmark, Inputs
from icrl_graph.benchmarks.plan import ADDRESSES, ENGINES, Code, Plan
from icrl_graph.benchmarks.registry import BENCHMARKS, canonical, find_benchmark, shipped_name
from icrl_graph.benchmarks.results import Cell
from icrl_graph.errors import missing_extra
from icrl_graph.evaluators.evaluator import Evaluator, bind_evaluator, find_evaluator
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.prices import check_price
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models.addresses import FolderAddress
from icrl_graph.models.policy import as_policy
from icrl_graph.preview import preview
from icrl_graph.prompts.plan import SCHEDULES, SPREADS
from icrl_graph.prompts.text import text_of
from icrl_graph.state.checks import check_above_0, check_counts, is_number
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.episode import Usage, plain
from icrl_graph.state.loading import absolute
from icrl_graph.state.reward import LARGEST, Reward
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import TOPOLOGIES, build, size_option
from icrl_graph.topologies.settings import SWITCH, SavedSettings

Objects = Mapping[str, Any]
"""Objects that were passed in place of names, by field of the plan: benchmark, model, judge, evaluator, metric."""
PYTHON = "python:"
"""Ahead of the name of such an object in a plan."""
NO_OBJECTS: Objects = {}


def make_plan(
    benchmark: str | Path | Benchmark,
    arms: str | Sequence[str],
    *,
    model: Any = None,
    judge: Any = None,
    rubric: str | None = None,
    evaluator: Any = None,
    metric: Any = None,
    items: Sequence[str] = (),
    limit: int | None = None,
    rounds: int | None = None,
    solved_at: float | None = None,
    options: Mapping[str, Any] | None = None,
    allocate: int | None = None,
    **numbers: Any,
) -> tuple[Plan, Objects]:
    """The plan of a comparison; what is None follows from the benchmark.

    Args:
        benchmark: see `icrl_graph.benchmarks.api.compare`, and so are the others.
        arms: as they are written.
        model: a name or an object; default the learner that plays the benchmark.
        judge: a name or an object.
        rubric: what the judge judges by.
        evaluator: a name or an object; default the benchmark's.
        metric: the same.
        items: names or patterns of tasks.
        limit: number of tasks.
        rounds: attempts at each task.
        solved_at: default the benchmark's, where its own rewards count.
        options: settings and parts that all arms share; None leaves one out.
        allocate: paid calls for all runs of an arm together: each arm is played with them split evenly over its tasks,
            and with them handed out to where they help most. Takes the place of rounds.
        numbers: the other fields of `Plan`, such as seeds and concurrency.

    Returns:
        The plan, and the objects that were passed in place of names.

    Raises:
        ValueError: there is no such benchmark, task or arm, no model to play it, or an option is not a JSON value.
    """
    given = {"limit": limit, "rounds": rounds, "solved_at": solved_at, "allocate": allocate}
    _check_numbers({**{name: value for name, value in given.items() if value is not None}, **numbers})
    _check_texts(items=items, arms=arms.split(",") if isinstance(arms, str) else arms)
    source = benchmark if isinstance(benchmark, Benchmark) else find_benchmark(str(benchmark))
    if model is None and source.model is None:
        raise ValueError(f"name the model, such as openai:gpt-4.1-mini; no learner plays {benchmark}")
    played = read_arms(arms)
    check_learners(str(benchmark), [model, *(arm.model for arm in played)])
    parts = {
        "model": source.model if model is None else model,
        "judge": judge,
        "evaluator": evaluator,
        "metric": metric,
    }
    objects = {role: part for role, part in parts.items() if part is not None and not isinstance(part, str)}
    names: dict[str, Any] = {role: f"{PYTHON}{_name_of(role, part)}" for role, part in objects.items()}
    names |= {role: absolute(part) for role, part in parts.items() if isinstance(part, str)}
    if isinstance(benchmark, Benchmark):
        objects["benchmark"], names["benchmark"] = benchmark, f"{PYTHON}{benchmark.about}"
    else:
        names["benchmark"] = canonical(str(benchmark))
    tasks = source.choose(items)
    most = limit if limit is not None or items else source.limit
    custom_rewards = any(part is not None for part in (evaluator, metric, rubric))
    shared = {**source.options, **(options or {})}
    many = len(tasks) if most is None else min(most, len(tasks))
    written = [arm.name for arm in played]
    if allocate is not None:
        runs = many * numbers.get("seeds", 1)
        if rounds is not None:
            raise ValueError(f"allocate={allocate} takes the place of rounds; got rounds={rounds}")
        if not any(size_option(arm.create) == "rounds" for arm in played):
            alone = ", ".join(arm.name for arm in played)
            raise ValueError(f"allocate={allocate} hands calls out round by round, and {alone} has one round alone")
        if allocate < runs:
            raise ValueError(f"allocate={allocate} must be a call for each of the {runs} runs of an arm at least")
        rounds = allocate // runs
        written = split_and_allocated(played, rounds, runs)
    if (runs := many * numbers.get("seeds", 1) * len(written)) > MOST_RUNS:
        raise ValueError(f"{runs} runs are more than a comparison holds, {MOST_RUNS}: take fewer tasks, seeds or arms")
    plan = Plan(
        **names,
        arms=written,
        rubric=rubric,
        items=list(items),
        limit=many,
        rounds=source.rounds if rounds is None else rounds,
        solved_at=solved_at if custom_rewards or solved_at is not None else source.solved_at,
        options=plain({name: value for name, value in shared.items() if value is not None}, "options"),
        **numbers,
    )
    if plan.ray_address is not None and plan.engine != "ray":
        raise ValueError(f"ray_address is that of a Ray cluster, and the engine is {plan.engine!r}: name engine ray")
    return plan, objects


def check_learners(benchmark: str, models: Iterable[Any]) -> None:
    """Raise ValueError if a shipped learner is to play another game than the one that it was trained on."""
    name = shipped_name(benchmark)
    own = BENCHMARKS[name].model if name else None
    for model in models:
        is_learner = isinstance(model, str) and model.startswith("learner:")
        if is_learner and name and not (own and model.startswith(own)):
            also = f", or {own}" if own and own.startswith("learner:") else ""
            raise ValueError(
                f"{model} is a small network that was trained to play one game, and can't play {name}: name a language "
                f"model, such as openai:gpt-4.1-mini{also}"
            )


def _check_numbers(plan: Mapping[str, Any]) -> None:
    """Raise ValueError if a number of a plan is none, or out of range, or an address is no text."""
    for name in ADDRESSES:
        if not isinstance(address := plan.get(name), str | None):
            raise ValueError(f"{name} is an address, such as 'http://localhost:8000/v1', got {address!r:.80}")
    if not isinstance(send_seed := plan.get("send_seed", True), bool):
        raise ValueError(f"send_seed is True or False, got {send_seed!r:.80}")
    check_counts(**{name: plan[name] for name in _COUNTS if name in plan})
    check_above_0(call_timeout=plan.get("call_timeout"))
    solved_at = plan.get("solved_at")
    if solved_at is not None and not (is_number(solved_at) and abs(solved_at) <= LARGEST):
        raise ValueError(f"solved_at must be a finite number, got {solved_at!r:.80}")


MOST_RUNS = 1_000_000
"""Of a comparison: all of its results are held in memory."""
_COUNTS = ("limit", "rounds", "seeds", "concurrency", "allocate")


def _check_texts(**lists: Any) -> None:
    for name, texts in lists.items():
        if not isinstance(texts, Sequence) or isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"{name} is a list of names, got {texts!r:.80}")


def _name_of(role: str, part: Any) -> str:
    return name_of_part(as_policy(part, what=role).part if role in ("model", "judge") else part)


@dataclass(frozen=True)
class Experiment:
    """A plan with the objects that its names stand for."""

    plan: Plan
    benchmark: Benchmark
    arms: Mapping[str, Arm]
    models: Mapping[str | None, Any]
    """By the name that arms give; None for the arms that name no model."""
    evaluator: Evaluator
    metric: Evaluator | None

    def items(self) -> list[str]:
        """The names of its tasks."""
        return self.benchmark.choose(self.plan.items)[: self.plan.limit]

    def check_tasks(self) -> None:
        """Raise if answers to one of its tasks can't be judged.

        Raises:
            ValueError: names the task, and says what of its data is wrong.
        """
        bound = [bind_evaluator(each) for each in (self.evaluator, self.metric) if each is not None]
        if any(each.check for each in bound):
            for item in self.items():
                data = self.benchmark.inputs(item)["task_data"]
                try:
                    for each in bound:
                        each.check_task(data)
                except ValueError as wrong:
                    raise ValueError(f"the task {item!r} of {self.plan.benchmark}: {wrong}") from None

    def cells(self) -> list[Cell]:
        """All its runs: every arm on a task before the next task, so that an early look compares what is there."""
        return [Cell(arm, item, seed) for seed in range(self.plan.seeds) for item in self.items() for arm in self.arms]

    def arguments(self, arm: str, pool: Sequence[Reward] = ()) -> dict[str, Any]:
        """What `improve` takes for an arm, beside the task."""
        shared = {**self.plan.shared(), "metric": self.metric}
        arguments = {**self.arms[arm].arguments(self.plan.rounds, shared, pool), "model": self.policies[arm]}
        if SWITCH in arguments:
            arguments[SWITCH] = self.plan.load_switch(arguments[SWITCH])
        return arguments

    @cached_property
    def policies(self) -> Mapping[str, Any]:
        """By arm, its model, or the policy that plays episodes with it.

        Raises:
            ValueError: an arm is to think ahead of its actions, and the benchmark has none.
        """
        if self.benchmark.player is None:
            if thinking := [name for name, arm in self.arms.items() if arm.thoughts]:
                reason = f"thoughts precede actions, in episodes of many turns; {self.plan.benchmark} has none"
                raise ValueError(f"the arm {thinking[0]!r}: {reason}")
            return {name: self.models[arm.model] for name, arm in self.arms.items()}
        makers = {name: self.benchmark.player(model) for name, model in self.models.items()}
        return {name: makers[arm.model](thoughts=arm.thoughts) for name, arm in self.arms.items()}

    @cached_property
    def rate_limit(self) -> RateLimit:
        """The rate limit that all its runs share."""
        return self.plan.rate_limit()

    @cached_property
    def graphs(self) -> Mapping[str, Graph]:
        """The graph of each arm.

        Raises:
            ValueError: an option of an arm is wrong.
        """
        return {name: self.graph(name) for name in self.arms}

    def graph(self, arm: str, pool: Sequence[Reward] = ()) -> Graph:
        """The graph of an arm; of one that is shown rewards of other tasks, with these."""
        try:
            graph = build(evaluator=self.evaluator, rate_limit=self.rate_limit, **self.arguments(arm, pool))
            graph.any_names = self._ask_by_own_names
            graph.check_names()
            return graph
        except ValueError as error:
            raise ValueError(f"the arm {arm!r}: {error}") from error

    @cached_property
    def _ask_by_own_names(self) -> bool:
        """Whether an arm may ask by names of its own: the options that all arms share may be meant for that one."""
        own = (arm for arm in self.arms.values() if arm.create not in TOPOLOGIES.values())
        kinds = ("schedule", "switch_schedule", "spread")
        asked = [arm.options.get(kind) for arm in self.arms.values() for kind in kinds]
        return any(own) or any(name not in (None, *SCHEDULES, *SPREADS) for name in asked)

    def code(self) -> Code:
        """By arm, the fingerprints of its parts."""
        return {name: {**graph.parts.schema.code} for name, graph in self.graphs.items()}

    def preview(self, response_tokens: int = 300) -> dict[str, Usage]:
        """The estimated cost of all runs of each arm; see `icrl_graph.preview`."""
        assumed = {"score": self.evaluator, "response_tokens": response_tokens}
        return {arm: self._cost(partial(_preview, **assumed, **self.arguments(arm))) for arm in self.arms}

    def _cost(self, cost_of: Callable[[Inputs], Any]) -> Usage:
        """Of runs on all tasks, by the shortest and the longest of them: a cost grows evenly with its task."""
        tasks = sorted(map(self.benchmark.read, self.items()), key=lambda task: len(text_of(task["task"])))
        sizes = [len(text_of(task["task"])) for task in tasks]
        least, most = cost_of(tasks[0]), cost_of(tasks[-1])
        share = (sum(sizes) / len(sizes) - sizes[0]) / (sizes[-1] - sizes[0] or 1)
        runs = len(tasks) * self.plan.seeds
        mean: Any = {name: (1 - share) * amount + share * most[name] for name, amount in least.items()}
        total: Any = {name: runs * each if name == "usd" else round(runs * each) for name, each in mean.items()}
        return cast(Usage, total)


def _preview(task: Inputs, **arguments: Any) -> Usage:
    return preview(**task, **arguments)


def prepare(plan: Plan, objects: Objects = NO_OBJECTS) -> Experiment:
    """Look up whatever a plan names, and check it all, without a call to a model.

    Args:
        plan: what is compared.
        objects: those that were passed in place of names.

    Raises:
        ValueError: something in it is wrong; names the value and the choices.
    """
    _check_numbers(vars(plan))
    benchmark = _part("benchmark", plan, objects)
    arms = {arm.name: arm for arm in read_arms(plan.arms)}
    evaluator = evaluator_of(plan, {**objects, "benchmark": benchmark}) or benchmark.evaluator
    if evaluator is None:
        raise ValueError(
            f"{plan.benchmark} has no evaluator of its own: name one, such as path.py:function, or a judge and a rubric"
        )
    models: dict[str | None, Any] = {
        None: _part("model", plan, objects),
        **{arm.model: _model_of(arm, plan) for arm in arms.values() if arm.model},
    }
    metric = _part("metric", plan, objects) or benchmark.metric
    switches = SWITCH in plan.options or any(SWITCH in arm.options for arm in arms.values())
    if plan.switch_base_url is not None and not switches and not isinstance(plan.switch_base_url, FolderAddress):
        raise ValueError("switch_base_url is the server of a model to switch to: name that by switch_model, too")
    experiment = Experiment(plan, benchmark, arms, models, evaluator, metric)
    asked = [
        name for graph in experiment.graphs.values() for name in graph.parts.chat_models()
    ]  # builds and checks them
    check_totals(plan, asked)
    experiment.check_tasks()
    _check_allocated(experiment)
    _check_engine(experiment)
    return experiment


def _check_allocated(experiment: Experiment) -> None:
    """Raise ValueError if the calls of an arm can't be handed out attempt by attempt."""
    runs = len(experiment.items()) * experiment.plan.seeds
    for name, arm in experiment.arms.items():
        if arm.allocate is None:
            continue
        parts = experiment.graphs[name].parts
        settings = SavedSettings.of(parts.schema().model_dump())
        a_round = settings.width * parts.calls_of_attempt(settings)
        wrong = {
            "it has no rounds": size_option(arm.create) != "rounds",
            "it can't be played for longer": not parts.schema.can_be_extended,
            "it draws from the rewards of another arm": arm.draws_from is not None,
            "its leaders are judged again whenever it ends": settings.retests or parts.selector is not None,
            "give target or bounds, the highest reward that counts": parts.highest(settings) is None,
            f"{runs} runs take {runs * a_round} calls for their first attempts": arm.allocate < runs * a_round,
        }
        if reason := next((reason for reason, is_wrong in wrong.items() if is_wrong), None):
            raise ValueError(f"the arm {name!r}: its calls can't be allocated: {reason}")


def _check_engine(experiment: Experiment) -> None:
    """Raise if runs can't be played where they are to be.

    Raises:
        ValueError: there is no such engine, or something stands against it.
        MissingExtra: the extra `ray` is not installed.
    """
    plan = experiment.plan
    if plan.engine not in ENGINES:
        raise ValueError(f"unknown engine {plan.engine!r:.80}; choose one of {', '.join(map(repr, ENGINES))}")
    if plan.engine != "ray":
        return
    if plan.db is None:
        raise ValueError("runs on several machines are saved in PostgreSQL: give its address (db), postgresql://...")
    if allocated := [name for name, arm in experiment.arms.items() if arm.allocate]:
        raise ValueError(
            f"the arm {allocated[0]!r}: which run gets the next call follows from all runs so far, so calls are handed "
            "out by one process: play this arm without engine='ray'"
        )
    if find_spec("ray") is None:
        raise missing_extra("ray", "ray")


def check_totals(plan: Plan, models: Iterable[str]) -> None:
    """Raise if a cap on all runs together is wrong, or one of dollars can't be kept.

    Args:
        plan: has the caps.
        models: the names of the chat models that will be paid.

    Raises:
        ValueError: a cap is not above 0, or one is of dollars and the price of a model is unknown.
    """
    if "usd" in plan.caps():
        for name in dict.fromkeys(models):
            check_price(name, plan.options.get("prices") or {}, "total_usd")


def _part(role: str, plan: Plan, objects: Objects) -> Any:
    """The object in a role: the one that was passed, or the one that the plan names; None if it names none."""
    if role in objects:
        return objects[role]
    name = getattr(plan, role)
    if name is None:
        return None
    if name.startswith(PYTHON):
        raise ValueError(
            f"the {role} {name.removeprefix(PYTHON)!r} is a Python object, which no folder holds: resume the "
            "comparison by the call of compare() that began it"
        )
    loaders = {"benchmark": find_benchmark, "model": plan.load, "judge": plan.load_judge}
    return loaders.get(role, find_evaluator)(name)


def _model_of(arm: Arm, plan: Plan) -> Any:
    try:
        return plan.load(arm.model or plan.model)
    except ValueError as error:
        raise ValueError(f"the arm {arm.name!r}: {error}") from error


def evaluator_of(plan: Plan, objects: Objects = NO_OBJECTS) -> Evaluator | None:
    """The evaluator or judge that a plan names; None if it names neither.

    Raises:
        ValueError: both are named, there is none of that name, the judge has nothing to judge by, or there is a server
            for a judge, and none.
    """
    if plan.evaluator is not None and plan.judge is not None:
        raise ValueError("the rewards come from an evaluator or from a judge; give one of the two")
    if plan.rubric is not None and plan.judge is None:
        raise ValueError("a rubric is what a judge judges by: name the judge, too")
    if plan.judge is None:
        if plan.judge_base_url is not None and not isinstance(plan.judge_base_url, FolderAddress):
            raise ValueError("judge_base_url is the judge's server: name the judge, too")
        return _part("evaluator", plan, objects)
    judge = _part("judge", plan, objects)
    if plan.rubric is not None:
        return llm_judge(judge, plan.rubric)
    judged = _part("benchmark", plan, objects).judged
    if judged is None:
        raise ValueError(f"{plan.benchmark} has no rubric of its own: give one, by which the judge judges")
    return judged(judge)
