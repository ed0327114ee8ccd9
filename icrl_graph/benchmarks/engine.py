"""Where the runs of a comparison are worked off: an `Engine` makes their rows, and tells a `Session`.

`InProcess` works them off in this event loop; `icrl_graph.benchmarks.on_ray` on the machines of a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from langgraph.errors import GraphDrained

from icrl_graph.benchmarks.results import Cell, Row, failure
from icrl_graph.errors import JournalError, ModelError
from icrl_graph.execution.budget import TotalBudget
from icrl_graph.execution.retry import describe
from icrl_graph.state.episode import Usage
from icrl_graph.state.events import EpisodeEvent

OnAttempt = Callable[[Cell, EpisodeEvent], None]
"""Called with each attempt of a cell."""
Work = Callable[[Cell, Mapping[Cell, Row], OnAttempt], Awaitable[Row]]
"""Makes the row of a cell from the rows that are there, and reports each attempt."""


class Listener(Protocol):
    """Who is told what comes of runs."""

    @property
    def rows(self) -> Mapping[Cell, Row]:
        """The rows that are there."""

    def is_over(self) -> bool:
        """Whether no more runs are to be begun."""

    def attempt(self, cell: Cell, event: EpisodeEvent) -> None:
        """A run has made an attempt."""

    async def row(self, cell: Cell, row: Row) -> None:
        """A run has ended or failed."""

    async def refused(self, cell: Cell, error: ModelError) -> None:
        """The model has refused a run, as for a wrong key.

        Raises:
            ModelError: it will refuse them all.
        """


class Session(Listener, Protocol):
    """One session of a comparison, with what its runs share."""

    @property
    def total(self) -> TotalBudget:
        """The budget of all its runs."""

    async def spent(self) -> Usage:
        """What all runs have spent so far, by their rows and their replies."""


class Engine(Protocol):
    """Makes the rows of runs.

    Attributes:
        here: runs at once in this process.
    """

    here: int

    async def work_off(self, cells: Sequence[Cell], session: Session) -> None:
        """Make the rows of these runs, until all have ended or the session is over.

        Raises:
            ModelError: no run can succeed.
            JournalError: what was paid can't be saved.
        """


class InProcess:
    """Works runs off in this event loop.

    Args:
        work: makes a row. What it raises becomes a row that says so, unless no run can succeed.
        concurrency: runs at once.
    """

    def __init__(self, work: Work, concurrency: int) -> None:
        self._work, self.here = work, concurrency

    async def work_off(self, cells: Sequence[Cell], session: Listener) -> None:
        """Make the rows of these runs."""
        waiting = iter(cells)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.here, len(cells))):
                group.create_task(self._worker(waiting, session))

    async def _worker(self, waiting: Iterator[Cell], session: Listener) -> None:
        for cell in waiting:
            if session.is_over():
                return
            try:
                row = await self._work(cell, session.rows, session.attempt)
            except GraphDrained:
                return
            except (JournalError, OSError):
                raise
            except ModelError as error:
                await session.refused(cell, error)
            except Exception as error:
                await session.row(cell, failure(cell, describe(error)))
            else:
                await session.row(cell, row)
