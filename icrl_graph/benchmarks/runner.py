"""Runs a comparison: methods x tasks x seeds, as many at once as asked for, each at its own speed.

A run is a thread of its own, kept in a file until its row is written, so that whatever ends the process costs no more
than the calls in flight. One that fails is reported, and done again when the comparison is gone on with.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any, cast

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph.api import OnEpisode, aplay, build, check_inputs, play
from icrl_graph.benchmarks.arms import Arm, read_arms
from icrl_graph.benchmarks.benchmark import Benchmark, Inputs
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import (
    Cell,
    Plan,
    Row,
    append,
    appending,
    failure,
    has_ended,
    open_folder,
    read_results,
    row_of,
)
from icrl_graph.errors import JournalError, ModelError, ThreadMismatch
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.loading import load
from icrl_graph.models.policy import as_policy
from icrl_graph.preview import preview
from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Episode, Usage, add_usage
from icrl_graph.state.events import EpisodeEvent
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import answering, last_answered
from icrl_graph.topologies.methods import Graph
from icrl_graph.topologies.nodes import Chooser


def _rehearsed(task: Inputs, **arguments: Any) -> Usage:
    return preview(**task, **arguments)


@dataclass(frozen=True)
class Comparison:
    """A plan with the objects that its names stand for."""

    plan: Plan
    benchmark: Benchmark
    arms: Mapping[str, Arm]
    models: Mapping[str | None, Any]
    """By the name that an arm calls its own by; that of all other arms is None."""
    evaluator: Evaluator
    metric: Evaluator | None

    def items(self) -> list[str]:
        """The names of its tasks."""
        return self.benchmark.choose(self.plan.items)[: self.plan.limit]

    def cells(self) -> list[Cell]:
        """All its runs: every method on a task before the next task, so that an early look compares what is there."""
        return [Cell(arm, item, seed) for seed in range(self.plan.seeds) for item in self.items() for arm in self.arms]

    def arguments(self, arm: str, pool: Sequence[Reward] = ()) -> dict[str, Any]:
        """What `improve` takes for an arm, beside the task."""
        shared = {**self.plan.shared(), "metric": self.metric}
        return {**self.arms[arm].arguments(self.plan.rounds, shared, pool), "model": self.policies[arm]}

    @cached_property
    def policies(self) -> Mapping[str, Any]:
        """By arm, its model, or what plays with it.

        Raises:
            ValueError: an arm is to think ahead of its actions, and the benchmark has none.
        """
        if self.benchmark.player is None:
            if thinking := [name for name, arm in self.arms.items() if arm.thoughts]:
                many = f"thoughts stand ahead of actions, in episodes of many turns; {self.plan.benchmark} has none"
                raise ValueError(f"the arm {thinking[0]!r}: {many}")
            return {name: self.models[arm.model] for name, arm in self.arms.items()}
        makers = {name: self.benchmark.player(model) for name, model in self.models.items()}
        return {name: makers[arm.model](thoughts=arm.thoughts) for name, arm in self.arms.items()}

    @cached_property
    def rate_limit(self) -> RateLimit:
        """The pace that all its runs share."""
        return self.plan.rate_limit()

    @cached_property
    def graphs(self) -> Mapping[str, Graph]:
        """The graph of each arm.

        Raises:
            ValueError: an option of an arm is wrong.
        """
        return {name: self.graph(name) for name in self.arms}

    def preview(self, response_tokens: int = 300) -> dict[str, Usage]:
        """What all runs of each arm will cost, about; see `icrl_graph.preview`."""
        asked = {"score": self.evaluator, "response_tokens": response_tokens}
        return {arm: self._cost(partial(_rehearsed, **asked, **self.arguments(arm))) for arm in self.arms}

    def _cost(self, of: Callable[[Inputs], Any]) -> Usage:
        """Of runs on all tasks: by the shortest and the longest of them, for a cost grows evenly with its task."""
        tasks = sorted(map(self.benchmark.read, self.items()), key=lambda task: len(text_of(task["task"])))
        sizes = [len(text_of(task["task"])) for task in tasks]
        least, most = of(tasks[0]), of(tasks[-1])
        share = (sum(sizes) / len(sizes) - sizes[0]) / (sizes[-1] - sizes[0] or 1)
        runs = len(tasks) * self.plan.seeds
        mean: Any = {name: (1 - share) * amount + share * most[name] for name, amount in least.items()}
        total: Any = {name: runs * each if name == "usd" else round(runs * each) for name, each in mean.items()}
        return cast(Usage, total)

    def graph(self, arm: str, pool: Sequence[Reward] = ()) -> Graph:
        """The graph of an arm; of one that is shown rewards of other tasks, with these."""
        try:
            return build(evaluator=self.evaluator, rate_limit=self.rate_limit, **self.arguments(arm, pool))
        except ValueError as wrong:
            raise ValueError(f"the arm {arm!r}: {wrong}") from wrong


def prepare(plan: Plan) -> Comparison:
    """Look up whatever a plan names, and check it all, without asking a model anything.

    Raises:
        ValueError: something in it is wrong; names the value and the choices.
    """
    for name in ("limit", "rounds", "seeds", "concurrency"):
        if (given := getattr(plan, name)) < 1:
            raise ValueError(f"{name} must be 1 or more, got {given}")
    benchmark = find_benchmark(plan.benchmark)
    arms = read_arms(",".join(plan.arms))
    evaluator, metric = _evaluator(plan, benchmark), load(plan.metric) if plan.metric else benchmark.metric
    models: dict[str | None, Any] = {
        None: plan.load(plan.model),
        **{arm.model: _load_model(plan, arm) for arm in arms if arm.model},
    }
    comparison = Comparison(plan, benchmark, {arm.name: arm for arm in arms}, models, evaluator, metric)
    assert comparison.graphs  # builds and so checks them
    return comparison


def _load_model(plan: Plan, arm: Arm) -> Any:
    try:
        return plan.load(arm.model or plan.model)
    except ValueError as error:
        raise ValueError(f"the arm {arm.name!r}: {error}") from error


def _evaluator(plan: Plan, benchmark: Benchmark) -> Evaluator:
    named = named_evaluator(plan, benchmark)
    if named is not None:
        return named
    if benchmark.evaluator is None:
        raise ValueError(
            f"{plan.benchmark} has no evaluator of its own: name one, such as path.py:function, or a judge and a rubric"
        )
    return benchmark.evaluator


def named_evaluator(plan: Plan, benchmark: Benchmark) -> Evaluator | None:
    """The evaluator or judge of that name; None if none is named.

    Raises:
        ValueError: both are named, there is none of that name, or the judge has nothing to judge by.
    """
    if plan.evaluator is not None and plan.judge is not None:
        raise ValueError("the rewards come from an evaluator or from a judge; give one of the two")
    if plan.rubric is not None and plan.judge is None:
        raise ValueError("a rubric is what a judge judges by: name the judge, too")
    if plan.evaluator is not None:
        evaluator: Evaluator = load(plan.evaluator)
        return evaluator
    if plan.judge is None:
        return None
    judge = plan.load(plan.judge)
    if plan.rubric is not None:
        return llm_judge(judge, plan.rubric)
    if benchmark.judged is None:
        raise ValueError(f"{plan.benchmark} has no rubric of its own: say by a rubric what the judge judges by")
    return benchmark.judged(judge)


class Progress:
    """How far a comparison is.

    Attributes:
        runs: in all.
        done: those that have ended.
        failed: those that failed in this session, with the reason.
        usage: what all of it has cost so far, what was there before included.
    """

    def __init__(self, cells: Sequence[Cell], rounds: int, rows: Mapping[Cell, Row]) -> None:
        self.runs, self.failed = len(cells), dict[Cell, str]()
        self.done = sum(has_ended(rows, cell) for cell in cells)
        self.usage = add_usage(*(row.get("usage", {}) for row in rows.values()))
        self._rounds, self._attempts = rounds, Counter[Cell]()
        self._counted = {cell: row.get("usage", {}) for cell, row in rows.items() if "error" in row}

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1, also of the runs that have begun."""
        begun = sum(min(made, self._rounds) for made in self._attempts.values())
        return (self.done + len(self.failed) + begun / self._rounds) / self.runs

    def heard(self, cell: Cell, event: EpisodeEvent) -> None:
        """A run has made an attempt."""
        self._attempts[cell] += 1
        self._counted[cell] = add_usage(self._counted.get(cell, {}), event["usage"])
        self.usage = add_usage(self.usage, event["usage"])

    def ended(self, cell: Cell, row: Row) -> None:
        """A run has ended, or failed; its row tells all that it has cost, also before."""
        del self._attempts[cell]
        before: Any = self._counted.pop(cell, {})
        taken_back: Any = {name: -amount for name, amount in before.items()}
        self.usage = add_usage(self.usage, taken_back, row.get("usage", {}))
        if "error" in row:
            self._counted[cell] = row.get("usage", {})
            self.failed[cell] = row["error"]
        else:
            self.done += 1


Tell = Callable[[Progress], None]

FILES = 8
"""That one run has open at most: its thread, its journal, its connections."""


def run(
    plan: Plan,
    folder: Path,
    tell: Tell = lambda progress: None,
    control: RunControl | None = None,
    *,
    durable: bool = True,
) -> Progress:
    """Run a comparison in a folder, or what is left of it.

    Args:
        plan: what is asked for.
        folder: new, or one that holds the same comparison; arms, tasks and seeds may be added to it.
        tell: called whenever something has happened.
        control: its `request_drain()` ends it once the calls in flight have answered.
        durable: save every run step by step, so that a crash costs no more than the calls in flight. Without it, runs
            are made one after another in this thread, and what had not ended begins anew: half the time, where calls
            are free and fast, such as a learner's.

    Raises:
        GraphDrained: it was ended through `control`.
        ValueError: something asked for is wrong, or the folder holds something else. Nothing was paid.
        ModelError: no run can succeed: the key, the model's name or the address is wrong.
        JournalError: what was paid can't be kept.
    """
    prepare(plan)  # nothing is written if something is wrong
    comparison = prepare(open_folder(folder, plan))
    _check_tasks(comparison, read_results(folder).rows)
    cells = comparison.cells()
    drawing = {name for name, arm in comparison.arms.items() if arm.draws_from is not None}
    early = [cell for cell in cells if cell.arm not in drawing]
    late = [cell for cell in cells if cell.arm in drawing]  # the rewards of other tasks are known after the others

    async def work(cell: Cell, rows: Mapping[Cell, Row], heard: OnEpisode) -> Row:
        path = thread(folder, cell) if durable else None
        return await _play(comparison, cell, path, rows, heard, control)

    return fill(folder, [early, late], work, comparison.plan, tell, control)


def _check_tasks(comparison: Comparison, rows: Mapping[Cell, Row]) -> None:
    """Raise if a task is another one by now than the one that was played under its name."""
    for cell in {cell.item: cell for cell, row in rows.items() if "error" not in row}.values():
        try:
            now = comparison.benchmark.read(cell.item)
        except ValueError:
            continue  # it is not there any more, and is not played again
        if any(rows[cell][name] != now[name] for name in ("task", "task_data")):
            raise ThreadMismatch(
                f"the task {cell.item!r} is another one by now than when it was played: give the tasks ids that stay, "
                "or another folder"
            )


Work = Callable[[Cell, Mapping[Cell, Row], OnEpisode], Awaitable[Row]]
"""Makes the row of a cell, given those that are there, and tells each attempt."""


def fill(
    folder: Path,
    stages: Sequence[Sequence[Cell]],
    work: Work,
    plan: Plan,
    tell: Tell,
    control: RunControl | None = None,
) -> Progress:
    """Make the rows of a folder that are missing or failed, so many at once as the plan says.

    Args:
        folder: where they go.
        stages: the cells; those of a stage are begun when all of the stage before have ended.
        work: makes one. What it raises becomes a row that says so, unless nothing can succeed.
        plan: says how many at once.
        tell: called whenever something has happened.
        control: ends it early.
    """
    make_room(plan.concurrency)
    try:
        with seldom_collecting():
            return asyncio.run(_fill(folder, stages, work, plan, tell, control or RunControl()))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _fill(
    folder: Path,
    stages: Sequence[Sequence[Cell]],
    work: Work,
    plan: Plan,
    tell: Tell,
    control: RunControl,
) -> Progress:
    rows = read_results(folder).rows
    progress = Progress([cell for cells in stages for cell in cells], plan.rounds, rows)
    refused = set[str]()
    items = {cell.item for cells in stages for cell in cells}
    tell(progress)
    with appending(folder) as file:
        for cell in rows:
            if has_ended(rows, cell):
                _forget(thread(folder, cell))  # left behind by a process that ended between the two

        async def one(cell: Cell) -> Row:
            def heard(event: EpisodeEvent) -> None:
                progress.heard(cell, event)
                tell(progress)

            try:
                return await work(cell, rows, heard)
            except (JournalError, OSError, GraphDrained):
                raise
            except Exception as error:
                if isinstance(error, ModelError):
                    refused.add(cell.item)
                    if not progress.done and (len(refused) > 1 or len(items) == 1):
                        raise  # not one task alone is refused, and so all are
                return failure(cell, f"{type(error).__name__}: {error}")

        async def make_rows(waiting: Iterator[Cell]) -> None:
            for cell in waiting:
                if control.drain_requested:
                    return
                try:
                    row = await one(cell)
                except GraphDrained:
                    return
                append(file, row)
                rows[cell] = row
                if has_ended(rows, cell):
                    _forget(thread(folder, cell))
                progress.ended(cell, row)
                tell(progress)

        for cells in stages:
            waiting = iter([cell for cell in cells if not has_ended(rows, cell)])
            async with asyncio.TaskGroup() as group:
                for _ in range(min(plan.concurrency, len(cells))):
                    group.create_task(make_rows(waiting))
    if control.drain_requested and progress.done + len(progress.failed) < progress.runs:
        raise GraphDrained(control.drain_reason or "shutdown")
    return progress


async def _play(
    comparison: Comparison,
    cell: Cell,
    path: Path | None,
    rows: Mapping[Cell, Row],
    heard: OnEpisode,
    control: RunControl | None,
) -> Row:
    """The row of one run."""
    inputs, arm, graph = comparison.benchmark.read(cell.item), comparison.arms[cell.arm], comparison.graphs[cell.arm]
    if arm.draws_from is not None:
        pool = _pool(arm, cell, rows)
        if not pool:
            return failure(cell, f"there are no rewards of {arm.draws_from} on other tasks to draw from")
        graph = comparison.graph(cell.arm, pool)
    seed = {"seed": _seed(comparison.models[arm.model], cell)}
    whole = check_inputs(**inputs)
    if path is None:
        result = play(graph, whole, None, "run", heard, control, seed)
    else:
        result = await aplay(graph, whole, path, "run", heard, control, seed)
    if result.stopped == "failures":
        why = result.episodes[-1].get("error", "")
        return failure(cell, f"the model failed too often in a row: {why}", result.usage)
    return row_of(cell, inputs, vars(result), chosen(result.episodes, graph.choose))


def chosen(episodes: Sequence[Episode], choose: Chooser) -> list[int | None]:
    """After each attempt, the place of the one so far that gives the answer."""
    places = {id(episode): place for place, episode in enumerate(episodes)}
    prefixes = [episodes[: place + 1] for place in range(len(episodes))]
    tops = [choose(prefix) or last_answered(prefix) for prefix in prefixes[:-1]] + [answering(episodes, choose)]
    return [None if top is None else places[id(top)] for top in tops]


def _seed(model: Any, cell: Cell) -> int | None:
    """A seed that the arms share, where the model is known to take one."""
    part = as_policy(model).part
    openai = any(kind.__module__.startswith("langchain_openai") for kind in type(part).__mro__)
    takes_one = isinstance(part, FunctionModel) or openai
    return Random(f"{cell.seed}/{cell.item}").getrandbits(31) if takes_one else None


def _pool(arm: Arm, cell: Cell, rows: Mapping[Cell, Row]) -> list[Reward]:
    """What the arm that it draws from was given on other tasks, in an order that does not depend on who ended first."""
    others = {key for key in rows if key.arm == arm.draws_from and key.item != cell.item}
    episodes = [episode for key in sorted(others) for episode in rows[key].get("episodes", [])]
    return [episode["reward"] for episode in episodes if episode["reward"].get("value") is not None]


def thread(folder: Path, cell: Cell) -> Path:
    """Where a run is kept until its row is written."""
    name = hashlib.sha256("/".join(map(str, cell)).encode()).hexdigest()[:16]
    return folder / "unfinished" / f"{name}.sqlite"


def _forget(path: Path) -> None:
    """Remove the thread of a run whose row is kept."""
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        file.unlink(missing_ok=True)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Have Python look for garbage seldom, and never in what is there already.

    With hundreds of runs at once it would go through all of them again and again: 28 to 41 % of the CPU.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def make_room(concurrency: int) -> None:
    """Let this process open as many files as so many runs need.

    Raises:
        ValueError: it may not.
    """
    try:
        import resource
    except ImportError:  # there is no such limit on Windows
        return
    needed = FILES * concurrency + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ValueError(
                f"a concurrency of {concurrency} needs about {needed} open files, and {hard} are allowed: lower it, or "
                "raise the limit (ulimit -n)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
