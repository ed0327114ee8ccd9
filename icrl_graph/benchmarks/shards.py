"""A shard: some runs of a comparison, played side by side in one process of a cluster, which tells what comes of them.

All that must last is in PostgreSQL, so a shard may be killed at any time. One that goes on although its driver has
given it up pays for nothing more: a thread has one driver, by a lock of the database, and who gets that lock asks the
ledger whether its shard is still admitted.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

import icrl_graph
from icrl_graph.benchmarks.engine import InProcess, OnAttempt, Work
from icrl_graph.benchmarks.experiment import Experiment, Objects, prepare
from icrl_graph.benchmarks.plan import Code, Plan
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.runner import work_of
from icrl_graph.benchmarks.scheduler import make_room, seldom_collecting
from icrl_graph.benchmarks.storage import PostgresStorage, Storage, Thread
from icrl_graph.errors import JournalError, ModelError, ThreadBusy
from icrl_graph.execution.budget import TotalBudget
from icrl_graph.execution.retry import describe
from icrl_graph.execution.shared_limits import Ledger, share
from icrl_graph.state.episode import Usage
from icrl_graph.state.events import EpisodeEvent
from icrl_graph.state.fingerprint import edited

PATIENCE = 90.0
"""Seconds to wait for a run that another process still drives: a machine that is gone holds its runs for about 50."""
POLL = 1.0
"""Seconds between two looks at whether a shard is still admitted."""
BATCH = 0.05
"""Seconds for which news are collected before they are sent."""


class News(NamedTuple):
    """Something that a shard tells."""

    kind: Literal["begun", "attempt", "row", "refused", "broken", "wrong", "end"]
    """Of a run: it has begun, made an attempt, has a row, was refused by the model. Of the shard: the database is out
    of reach; the comparison can't be played here; it has ended."""
    cell: Cell | None
    value: Any
    """The attempt, the row, or an error in words; at the end the total that is reached, and what was spent."""


@dataclass(frozen=True)
class Shard:
    """Some runs, and how they are played.

    Attributes:
        name: its own.
        cells: the runs.
        drawn: the rewards that they draw from, as rows.
        concurrency: runs, and calls, at once.
        caps: the totals of the comparison; of time, what is left.
        share: of what is left of a total that is taken at once, 0 to 1.
        address: of the database.
        comparison: the comparison's name there.
    """

    name: str
    cells: Sequence[Cell]
    drawn: Mapping[Cell, Row]
    concurrency: int
    caps: Mapping[str, float]
    share: float
    address: str
    comparison: str


def packed(plan: Plan, objects: Objects, code: Code, says_how: bool) -> bytes:
    """A comparison, as a shard takes it; objects by value, as far as their modules are not importable everywhere.

    Raises:
        ValueError: an object can't be sent to another process.
    """
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps((icrl_graph.__version__, plan, dict(objects), code, says_how))
    except Exception as error:
        raise ValueError(f"an object that was passed can't be sent to another machine: {describe(error)}") from error
    return packed


def play(comparison: bytes, shard: Shard) -> Iterator[list[News]]:
    """Play the runs of a shard; tells what comes of them as it comes, and last that it has ended."""
    news = SimpleQueue[News]()
    threading.Thread(target=_play, args=(comparison, shard, news.put), daemon=True).start()
    while True:
        some = [news.get()]
        time.sleep(BATCH)
        while not news.empty():
            some.append(news.get())
        yield some
        if some[-1].kind == "end":
            return


def _play(comparison: bytes, shard: Shard, tell: Callable[[News], None]) -> None:
    ledger, total = Ledger(shard.address, shard.comparison), TotalBudget({}, {})
    try:
        experiment, says_how = _unpacked(comparison)
        plan = experiment.plan
        total = share(
            experiment.rate_limit,
            shard.caps,
            ledger,
            shard.name,
            requests_per_minute=plan.requests_per_minute,
            tokens_per_minute=plan.tokens_per_minute,
            concurrency=shard.concurrency,
            share=shard.share,
        )
        make_room(shard.concurrency)
        with seldom_collecting():
            asyncio.run(_session(experiment, says_how, shard, ledger, tell))
    except BaseException as error:
        cause = _first(error)
        is_broken = isinstance(cause, JournalError | OSError) or type(cause).__module__.startswith("psycopg")
        tell(News("broken" if is_broken else "wrong", None, f"{describe(cause)} (on {socket.gethostname()})"))
    finally:
        with suppress(Exception):
            ledger.close()
        tell(News("end", None, (total.reached, total.spent)))


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@lru_cache(maxsize=1)
def _unpacked(comparison: bytes) -> tuple[Experiment, bool]:
    """The experiment, of which a process prepares one, and whether rows say by what they were made.

    Raises:
        ValueError: what is here is not what the driver has.
    """
    import cloudpickle

    version, plan, objects, code, says_how = cloudpickle.loads(comparison)
    if version != icrl_graph.__version__:
        raise ValueError(f"icrl-graph {icrl_graph.__version__} is installed here, and {version} where it was started")
    experiment = prepare(plan, objects)
    if other := sorted({part for arm, parts in experiment.code().items() for part in edited(code.get(arm, {}), parts)}):
        raise ValueError(f"the code of the {' and the '.join(other)} here is not what it is where it was started")
    return experiment, says_how


async def _session(
    experiment: Experiment, says_how: bool, shard: Shard, ledger: Ledger, tell: Callable[[News], None]
) -> None:
    control = RunControl()
    storage = _Fenced(PostgresStorage(shard.address, shard.comparison), ledger, shard.name)
    work = work_of(experiment, storage, control, says_how=says_how)
    async with storage.open():
        watching = asyncio.ensure_future(_drained_if_revoked(ledger, shard.name, control))
        try:
            listener = _Listener(shard.drawn, control, experiment.rate_limit.total, tell)
            await InProcess(_told(work, tell), shard.concurrency).work_off(shard.cells, listener)
        finally:
            watching.cancel()


async def _drained_if_revoked(ledger: Ledger, shard: str, control: RunControl) -> None:
    """End the runs once their shard is not admitted any more."""
    while await asyncio.to_thread(ledger.is_admitted, shard):
        await asyncio.sleep(POLL)
    control.request_drain("revoked")


def _told(work: Work, tell: Callable[[News], None]) -> Work:
    async def told(cell: Cell, rows: Mapping[Cell, Row], on_attempt: OnAttempt) -> Row:
        tell(News("begun", cell, None))
        return await work(cell, rows, on_attempt)

    return told


@dataclass(frozen=True)
class _Listener:
    """Tells what comes of runs."""

    rows: Mapping[Cell, Row]
    control: RunControl
    total: TotalBudget | None
    tell: Callable[[News], None]

    def is_over(self) -> bool:
        return self.control.drain_requested or bool(self.total and self.total.reached)

    def attempt(self, cell: Cell, event: EpisodeEvent) -> None:
        self.tell(News("attempt", cell, event))

    async def row(self, cell: Cell, row: Row) -> None:
        self.tell(News("row", cell, row))

    async def refused(self, cell: Cell, error: ModelError) -> None:
        self.tell(News("refused", cell, str(error)))


class _Fenced(Storage):
    """A storage whose runs are driven by an admitted shard alone; one that another process drives is waited for."""

    def __init__(self, storage: Storage, ledger: Ledger, shard: str) -> None:
        self._storage, self._ledger, self._shard = storage, ledger, shard

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open it."""
        return self._storage.open()

    @asynccontextmanager
    async def drive(self, name: str) -> AsyncIterator[Thread]:
        """Drive a run.

        Raises:
            GraphDrained: the shard is not admitted any more; its runs are another's.
            ThreadBusy: somebody else drives the run, for longer than that.
        """
        async with AsyncExitStack() as stack:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    thread = await stack.enter_async_context(self._storage.drive(name))
                    break
                except ThreadBusy:
                    if time.monotonic() > end:
                        raise
                await asyncio.sleep(0.2)
            if not await asyncio.to_thread(self._ledger.is_admitted, self._shard):
                raise GraphDrained("the shard was given up")
            yield thread

    async def begun(self) -> set[str]:
        """The runs that have begun."""
        return await self._storage.begun()

    async def spent(self) -> Mapping[str, Usage]:
        """What each has spent."""
        return await self._storage.spent()

    async def release(self, names: Collection[str]) -> None:
        """Delete threads."""
        await self._storage.release(names)
