"""Runs a comparison: arms x tasks x seeds, in a folder that takes every result as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph.api import OnEpisode, aplay, arounds, check_inputs, play
from icrl_graph.benchmarks.allocation import Played, hand_out
from icrl_graph.benchmarks.arms import Arm
from icrl_graph.benchmarks.engine import Engine, InProcess, OnAttempt, Work
from icrl_graph.benchmarks.experiment import NO_OBJECTS, Experiment, Objects, prepare
from icrl_graph.benchmarks.plan import Plan, id_of, open_folder, saved_code_of
from icrl_graph.benchmarks.results import Cell, Row, checked_results, failure, has_ended, row_of
from icrl_graph.benchmarks.scheduler import OnProgress, Progress, fill
from icrl_graph.benchmarks.storage import Storage, database, name_of, storage_of
from icrl_graph.errors import JournalError, ThreadMismatch
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.policy import as_policy
from icrl_graph.state.episode import Episode, rewards_of
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import answering, last_answered
from icrl_graph.topologies.nodes import Chooser
from icrl_graph.topologies.settings import SavedSettings


def run(
    plan: Plan,
    folder: Path,
    on_progress: OnProgress = lambda progress: None,
    control: RunControl | None = None,
    *,
    objects: Objects = NO_OBJECTS,
    durable: bool = True,
) -> Progress:
    """Run a comparison in a folder, or resume the one that is there.

    Args:
        plan: what is compared.
        folder: new, or one that holds the same comparison; arms, tasks and seeds may be added to it.
        on_progress: called whenever something has happened.
        control: its `request_drain()` ends it once the calls in flight have answered.
        objects: those that stand in place of names in the plan.
        durable: save every run step by step, so that a crash costs no more than the calls in flight. Without it, runs
            are made one after another in this thread, and those that had not ended start again: half the time, where
            calls are free and fast, such as a learner's.

    Raises:
        GraphDrained: it was ended through `control`.
        ValueError: the plan is wrong, or the folder holds something else. Nothing was paid.
        ModelError: no run can succeed: the key, the model's name or the address is wrong.
        JournalError: what was paid can't be saved.
    """
    control = control or RunControl()  # a Ctrl-C ends the runs through it
    code = prepare(plan, objects).code()  # nothing is written if something is wrong
    experiment = prepare(open_folder(folder, plan, code), objects)
    _check_tasks(experiment, checked_results(folder).rows)
    storage = storage_of(experiment.plan, folder)
    cells = experiment.cells()
    drawing = {name for name, arm in experiment.arms.items() if arm.draws_from is not None}
    early = [cell for cell in cells if cell.arm not in drawing]
    late = [cell for cell in cells if cell.arm in drawing]  # they draw from the rewards that the others got

    with _engine(experiment, folder, storage, control, objects, durable) as engine:
        return fill(
            folder, [early, late], engine, experiment.plan, on_progress, control, experiment.rate_limit, storage
        )


@contextmanager
def _engine(
    experiment: Experiment, folder: Path, storage: Storage, control: RunControl, objects: Objects, durable: bool
) -> Iterator[Engine]:
    """What works the runs off, while the block lasts."""
    plan, says_how = experiment.plan, saved_code_of(folder) is not None
    if plan.engine == "ray":
        from icrl_graph.benchmarks import on_ray, shards

        comparison = shards.packed(plan, objects, experiment.code(), says_how)
        with on_ray.connected(plan.ray_address):
            engine = on_ray.OnRay(plan, experiment.arms, comparison, database(plan), id_of(folder))
            try:
                yield engine
            finally:
                engine.close()
    else:
        yield InProcess(work_of(experiment, storage, control, says_how=says_how, durable=durable), plan.concurrency)


def work_of(
    experiment: Experiment, storage: Storage, control: RunControl, *, says_how: bool, durable: bool = True
) -> Work:
    """What makes the row of a run.

    Args:
        experiment: the run is of.
        storage: it is saved in, once that is open.
        control: ends it early.
        says_how: whether its row says by what it was made.
        durable: whether it is saved step by step.
    """
    allocated = {
        name: _Allocated(experiment, name, storage, control) for name, arm in experiment.arms.items() if arm.allocate
    }

    async def work(cell: Cell, rows: Mapping[Cell, Row], on_attempt: OnAttempt) -> Row:
        saved, settings = storage if durable or cell.arm in allocated else None, {}
        if cell.arm in allocated:
            rounds = await allocated[cell.arm].rounds(cell, rows, on_attempt)
            if not rounds:
                return failure(cell, "no call was left for it")
            settings = {"rounds": rounds}
        row = await _play(experiment, cell, saved, rows, partial(on_attempt, cell), control, settings)
        if not says_how:
            row.pop("made", None)
        return row

    return work


def _check_tasks(experiment: Experiment, rows: Mapping[Cell, Row]) -> None:
    """Raise if a task has changed since it was played under its name."""
    for cell in {cell.item: cell for cell, row in rows.items() if "error" not in row}.values():
        try:
            inputs = experiment.benchmark.inputs(cell.item)
        except ValueError:
            continue  # it was removed, and is not played again
        if any(rows[cell][name] != inputs[name] for name in ("task", "task_data")):
            raise ThreadMismatch(
                f"the task {cell.item!r} has changed since it was played: give the tasks ids that stay, or another "
                "folder"
            )


async def _play(
    experiment: Experiment,
    cell: Cell,
    storage: Storage | None,
    rows: Mapping[Cell, Row],
    on_episode: OnEpisode,
    control: RunControl | None,
    settings: Mapping[str, Any],
) -> Row:
    """The row of one run; its settings are those that differ from its arm's."""
    inputs, arm, graph = experiment.benchmark.inputs(cell.item), experiment.arms[cell.arm], experiment.graphs[cell.arm]
    if arm.draws_from is not None:
        pool = _pool(arm, cell, rows)
        if not pool:
            return failure(cell, f"there are no rewards of {arm.draws_from} on other tasks to draw from")
        graph = experiment.graph(cell.arm, pool)
    own = {**_own_settings(experiment, cell), **settings}
    checked = check_inputs(**inputs)
    if storage is None:
        result = play(graph, checked, None, name_of(cell), on_episode, control, own)
    else:
        async with storage.drive(name_of(cell)) as thread:
            result = await aplay(graph, checked, *thread, on_episode, control, own)
    if result.stopped == "failures":
        reason = result.episodes[-1].get("error", "")
        return failure(cell, f"the model failed too often in a row: {reason}", result.usage)
    return row_of(cell, inputs, vars(result), chosen(result.episodes, graph.choose))


class _Allocated:
    """The runs of an arm whose calls are handed out: played on until no call is left, before the first row is made.

    How far each is stands in its thread, so that a comparison that was killed goes on from there.
    """

    def __init__(self, experiment: Experiment, arm: str, storage: Storage, control: RunControl) -> None:
        self._experiment, self._arm, self._storage, self._control = experiment, arm, storage, control
        self._played: asyncio.Future[dict[Cell, Played]] | None = None

    async def rounds(self, cell: Cell, rows: Mapping[Cell, Row], on_attempt: OnAttempt) -> int:
        """The rounds that a run has got, once all calls are handed out.

        Raises:
            GraphDrained: the comparison ends before they are.
        """
        if self._played is None:
            self._played = asyncio.ensure_future(self._hand_out(rows, on_attempt))
        return (await self._played)[cell].rounds

    async def _hand_out(self, rows: Mapping[Cell, Row], on_attempt: OnAttempt) -> dict[Cell, Played]:
        experiment, graph = self._experiment, self._experiment.graphs[self._arm]
        cells = [cell for cell in experiment.cells() if cell.arm == self._arm]
        settings = SavedSettings.of(graph.parts.schema().model_dump())
        a_round = settings.width * graph.parts.calls_of_attempt(settings)
        waits, saved = asyncio.Semaphore(experiment.plan.concurrency), await self._storage.begun()

        async def play_on(cell: Cell, rounds: int) -> Played:
            own = {**_own_settings(experiment, cell), "rounds": rounds}
            checked, tell = check_inputs(**experiment.benchmark.inputs(cell.item)), partial(on_attempt, cell)
            try:
                async with self._storage.drive(name_of(cell)) as thread:
                    result = await aplay(graph, checked, *thread, tell, self._control, own)
            except (JournalError, OSError):
                raise
            except Exception:  # it is raised again where its row is made, if one is made: not where all is drained
                return Played(rounds, rounds * a_round, is_over=True)  # at most: what it has paid is not told
            calls = result.usage.get("calls", 0)
            return Played(rounds, calls, tuple(rewards_of(result.episodes)), is_over=result.stopped != "rounds")

        async def so_far(cell: Cell) -> Played:
            if name_of(cell) not in saved:
                return Played()
            async with waits:
                async with self._storage.drive(name_of(cell)) as thread:
                    rounds = await arounds(graph, *thread)
                return await play_on(cell, rounds) if rounds else Played()

        def may_go_on() -> bool:
            reached = experiment.rate_limit.total.reached if experiment.rate_limit.total else None
            return not (self._control.drain_requested or reached)

        ended = {cell: Played(is_over=True) for cell in cells if has_ended(rows, cell)}
        begun = [cell for cell in cells if cell not in ended]
        played = {**ended, **dict(zip(begun, await asyncio.gather(*map(so_far, begun)), strict=True))}
        if not ended:  # else all was handed out before a row was made
            total = experiment.arms[self._arm].allocate or 0
            highest, concurrency = graph.parts.highest(settings) or 0.0, experiment.plan.concurrency
            played = await hand_out(played, total, a_round, highest, play_on, may_go_on, concurrency)
        if not may_go_on():
            raise GraphDrained("the calls are not handed out yet")
        return played


def _own_settings(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """What differs from run to run of an arm."""
    model = experiment.models[experiment.arms[cell.arm].model]
    return {"seed": _seed(model, cell) if experiment.plan.send_seed else None}


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
    takes_seed = isinstance(part, FunctionModel) or openai
    return Random(f"{cell.seed}/{cell.item}").getrandbits(31) if takes_seed else None


def _pool(arm: Arm, cell: Cell, rows: Mapping[Cell, Row]) -> list[Reward]:
    """The rewards that the arm it draws from got on other tasks, in an order independent of which run ended first."""
    others = {key for key in rows if key.arm == arm.draws_from and key.item != cell.item}
    episodes = [episode for key in sorted(others) for episode in rows[key].get("episodes", [])]
    return [episode["reward"] for episode in episodes if episode["reward"].get("value") is not None]
