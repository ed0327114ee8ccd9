"""Makes the rows of a folder, many at once: each run has its own thread, saved until its row is written.

Whatever ends the process costs no more than the calls in flight. A run that fails becomes a row that says why, and is
repeated when the comparison is resumed.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph.benchmarks.engine import Engine
from icrl_graph.benchmarks.files import write_whole
from icrl_graph.benchmarks.plan import TOTALS, Plan
from icrl_graph.benchmarks.results import Cell, Row, append, appending, checked_results, failure, has_ended
from icrl_graph.benchmarks.storage import Storage, name_of
from icrl_graph.errors import ModelError
from icrl_graph.execution.budget import TotalBudget
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.retry import describe
from icrl_graph.state.episode import Usage, add_usage
from icrl_graph.state.events import Emit, EpisodeEvent
from icrl_graph.state.formatting import cost as written
from icrl_graph.topologies.nodes.telling import show

_UNITS = {TOTALS["usd"]: "usd", TOTALS["calls"]: "calls", TOTALS["time"]: "seconds"}
"""What a total budget counts, as a usage names it."""


class Left(NamedTuple):
    """What is left of a comparison because its total budget is spent."""

    total: str
    """The budget: total_usd, total_calls or total_seconds."""
    spent: Usage
    """What was spent when it ended, by all its sessions."""
    not_begun: Sequence[Cell]
    not_ended: Sequence[Cell]

    @property
    def spent_of_total(self) -> float:
        """What was spent of that budget, in its unit."""
        return cast(Mapping[str, float], self.spent).get(_UNITS[self.total], 0.0)

    def __str__(self) -> str:
        too_dear = self.total == TOTALS["usd"] and self.spent.get("unpriced")
        unpriced = "; a reply without a price counts as too dear" if too_dear else ""
        return (
            f"{self.total} is spent, after {written(self.spent)} and {self.spent.get('seconds', 0.0):.0f} s{unpriced}: "
            f"{len(self.not_begun)} runs were not begun, {len(self.not_ended)} have not ended"
        )


class Progress:
    """How far a comparison is.

    Attributes:
        runs: number of all its runs.
        done: number of those that have ended.
        failed: those that failed in this session, with the reason.
        usage: what all of it has cost so far, earlier sessions included.
        total: the budget of all its runs together, and what is spent of it.
        left: what is left undone because that is spent; None if there is nothing.
        event: the attempt that was judged just now; None where it is another thing that has happened.
    """

    total: TotalBudget
    left: Left | None = None
    event: EpisodeEvent | None = None

    def __init__(self, cells: Sequence[Cell], rounds: int, rows: Mapping[Cell, Row]) -> None:
        self.runs, self.failed = len(cells), dict[Cell, str]()
        self.done = sum(has_ended(rows, cell) for cell in cells)
        self.usage = add_usage(*(row.get("usage", {}) for row in rows.values()))
        self._rounds, self._attempts = rounds, Counter[Cell]()
        self._counted = {cell: row.get("usage", {}) for cell, row in rows.items() if "error" in row}

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1, the attempts of unfinished runs included."""
        begun = sum(min(attempts, self._rounds) for attempts in self._attempts.values())
        return (self.done + len(self.failed) + begun / self._rounds) / self.runs

    def add_attempt(self, cell: Cell, event: EpisodeEvent) -> None:
        """Count an attempt of a run."""
        self.event = event
        self._attempts[cell] += 1
        self._counted[cell] = add_usage(self._counted.get(cell, {}), event["usage"])
        self.usage = add_usage(self.usage, event["usage"])

    def add_row(self, cell: Cell, row: Row) -> None:
        """Count a run that has ended or failed; its row has all that it has cost, earlier sessions included."""
        self.event = None
        del self._attempts[cell]
        counted: Any = self._counted.pop(cell, {})
        negated: Any = {name: -amount for name, amount in counted.items()}
        self.usage = add_usage(self.usage, negated, row.get("usage", {}))
        if "error" in row:
            self._counted[cell] = row.get("usage", {})
            self.failed[cell] = row["error"]
        else:
            self.done += 1


OnProgress = Callable[[Progress], None]
"""Called whenever something has happened."""


def watched(on_progress: OnProgress, watch: Emit) -> OnProgress:
    """The same, which also shows each attempt that is judged to a function; what that raises ends nothing."""

    def tell(progress: Progress) -> None:
        on_progress(progress)
        if progress.event is not None:
            show(watch, progress.event)

    return tell


def fill(
    folder: Path,
    phases: Sequence[Sequence[Cell]],
    engine: Engine,
    plan: Plan,
    on_progress: OnProgress,
    control: RunControl,
    rate_limit: RateLimit,
    storage: Storage,
    cost: Callable[[Row], Usage] = lambda row: row.get("usage", {}),
) -> Progress:
    """Make the rows of a folder that are missing or failed, as many at once as the plan says.

    Args:
        folder: where they go.
        phases: the cells; those of a phase start when all of the phase before have ended.
        engine: makes them.
        plan: what is compared.
        on_progress: called whenever something has happened.
        control: ends it early; the one that the runs have.
        rate_limit: that of all its calls, which gets their total budget, too.
        storage: holds the runs that have not ended; it is opened here.
        cost: what a row has cost here.

    Returns:
        How far it came. Where the total budget was spent, runs are left, which the same call with more of it resumes.

    Raises:
        GraphDrained: it was ended through `control` before all rows were made.
        ModelError: no run can succeed.
        JournalError: what was paid can't be saved.
    """
    make_room(engine.here)
    with seldom_collecting(), appending(folder) as file:
        rows = checked_results(folder).rows
        cells = [cell for phase in phases for cell in phase]
        progress = Progress(cells, plan.rounds, rows)

        async def session() -> None:
            async with storage.open():
                scheduler = _Scheduler(folder, file, engine, rows, progress, on_progress, control, storage, cost)
                before: Usage = {**await scheduler.spent(), "seconds": read_clock(folder)}
                progress.total = rate_limit.total = TotalBudget(plan.caps(), before)
                try:
                    await scheduler.run(phases)
                finally:
                    scheduler.save_clock()
                if progress.total.reached:
                    progress.left = _left(progress.total, [c for c in cells if c not in rows], await storage.begun())

        try:
            _run(session(), control)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    if progress.left is None and control.drain_requested and progress.done + len(progress.failed) < progress.runs:
        raise GraphDrained(control.drain_reason or "shutdown")
    return progress


def _left(total: TotalBudget, cells: Sequence[Cell], saved: Collection[str]) -> Left:
    """What is left of a comparison because its total budget is spent."""
    begun = [cell for cell in cells if name_of(cell) in saved]
    return Left(TOTALS[total.reached or ""], total.spent, [cell for cell in cells if cell not in begun], begun)


def _run(session: Coroutine[Any, Any, None], control: RunControl) -> None:
    """Run it in an event loop; where this thread has one already, as in a notebook, in that of another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(session)
        return
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(copy_context().run, asyncio.run, session)
        try:
            running.result()
        except KeyboardInterrupt:
            control.request_drain("interrupt")
            raise


@dataclass
class _Scheduler:
    """The `Session` that has an engine work off the runs phase by phase, and saves what comes of them."""

    folder: Path
    file: IO[bytes]
    engine: Engine
    rows: dict[Cell, Row]
    progress: Progress
    on_progress: OnProgress
    control: RunControl
    storage: Storage
    cost: Callable[[Row], Usage]
    refusing: set[str] = field(default_factory=set)
    """The tasks that the model refused, as for a wrong key."""
    items: set[str] = field(default_factory=set)

    async def run(self, phases: Sequence[Sequence[Cell]]) -> None:
        self.items = {cell.item for cells in phases for cell in cells}
        self.on_progress(self.progress)
        ended = {name_of(cell) for cell in self.rows if has_ended(self.rows, cell)}
        left_over = ended & await self.storage.begun()  # by a process that ended between row and release
        await self.storage.release(left_over)
        for cells in phases:
            waiting = [cell for cell in cells if not has_ended(self.rows, cell)]
            if waiting and not self.is_over():
                await self.engine.work_off(waiting, self)

    @property
    def total(self) -> TotalBudget:
        return self.progress.total

    def is_over(self) -> bool:
        return self.control.drain_requested or self.total.reached is not None

    def attempt(self, cell: Cell, event: EpisodeEvent) -> None:
        self.progress.add_attempt(cell, event)
        self.save_clock()
        self.on_progress(self.progress)

    async def row(self, cell: Cell, row: Row) -> None:
        append(self.file, row)
        self.rows[cell] = row
        if has_ended(self.rows, cell):
            await self.storage.release([name_of(cell)])
        self.progress.add_row(cell, row)
        self.save_clock()
        self.on_progress(self.progress)

    async def refused(self, cell: Cell, error: ModelError) -> None:
        self.refusing.add(cell.item)
        not_this_task_alone = len(self.refusing) > 1 or len(self.items) == 1
        if not_this_task_alone and not self.progress.done:
            raise error
        await self.row(cell, failure(cell, describe(error)))

    async def spent(self) -> Usage:
        return _spent(self.rows, await self.storage.spent(), self.cost)

    def save_clock(self) -> None:
        """Save for how long it has run, where that is capped."""
        if "time" in self.progress.total.caps:
            write_whole(self.folder / "clock.json", {"seconds": self.progress.total.spent["seconds"]})


def read_clock(folder: Path) -> float:
    """For how many seconds a comparison has run in earlier sessions, as far as that was capped."""
    try:
        return float(json.loads((folder / "clock.json").read_text())["seconds"])
    except FileNotFoundError:
        return 0.0


def _spent(rows: Mapping[Cell, Row], begun: Mapping[str, Usage], cost: Callable[[Row], Usage]) -> Usage:
    """What all runs have cost so far: those that have ended by their rows, the others by their replies."""
    ended = {name_of(cell): cost(row) for cell, row in rows.items() if has_ended(rows, cell)}
    failed = {name_of(cell): cost(row) for cell, row in rows.items() if not has_ended(rows, cell)}
    others = (failed.keys() | begun.keys()) - ended.keys()
    return add_usage(*ended.values(), *(_larger(failed.get(name, {}), begun.get(name, {})) for name in others))


def _larger(one: Usage, other: Usage) -> Usage:
    """The larger of two accounts of a run: a row lacks what came after it, replies lack what failed calls have cost."""
    a: Mapping[str, Any] = one
    b: Mapping[str, Any] = other
    larger: Any = {name: max(a.get(name, 0), b.get(name, 0)) for name in {*a, *b}}
    return cast(Usage, larger)


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


FILES_PER_RUN = 8
"""That a run has open at most: its thread, its journal, its connections."""


def make_room(concurrency: int) -> None:
    """Let this process open as many files as this many concurrent runs need.

    Raises:
        ValueError: it may not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = FILES_PER_RUN * concurrency + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ValueError(
                f"a concurrency of {concurrency} needs about {needed} open files, and {hard} are allowed: lower it, or "
                "raise the limit (ulimit -n)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
