"""Where the runs of a comparison are saved until their rows are written.

`SqliteStorage` keeps them in a few files of the folder, so that neither one lock serialises all runs, nor each run has
a connection of its own; `PostgresStorage` in a database, which other processes may work in. A run has a name there
(`name_of`); its thread is deleted once its row is on disk, so what a `Storage` holds are the runs that have not ended.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from langgraph.checkpoint.base import BaseCheckpointSaver

from icrl_graph.benchmarks.plan import Plan, id_of
from icrl_graph.benchmarks.results import Cell
from icrl_graph.execution.journal import journal_errors
from icrl_graph.execution.run_file import async_saver_of, postgres_saver, sqlite_saver
from icrl_graph.execution.sql_journals import TableJournal, beside
from icrl_graph.models.addresses import FolderAddress
from icrl_graph.state.episode import Usage, add_usage


class Thread(NamedTuple):
    """Where one run is saved, for who drives it."""

    saver: BaseCheckpointSaver[Any]
    id: str


class Storage(ABC):
    """The unfinished runs of a comparison, by their names; used while it is open, in the event loop that opened it."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[None]:
        """Open it, and close it with the block."""

    @abstractmethod
    def drive(self, name: str) -> AbstractAsyncContextManager[Thread]:
        """Be the only one who drives a run.

        Raises:
            ThreadBusy: somebody else drives it.
        """

    @abstractmethod
    async def begun(self) -> set[str]:
        """The runs that have begun, and are not released."""

    @abstractmethod
    async def spent(self) -> Mapping[str, Usage]:
        """What each of them has spent, by its replies."""

    @abstractmethod
    async def release(self, names: Collection[str]) -> None:
        """Delete the threads of runs whose rows are on disk; it is not an error if there are none."""


def name_of(cell: Cell) -> str:
    """The name of a run."""
    return hashlib.sha256("/".join(map(str, cell)).encode()).hexdigest()[:16]


def storage_of(plan: Plan, folder: Path) -> Storage:
    """Where the runs of the comparison in a folder are saved."""
    if plan.db is None:
        return SqliteStorage(folder / "unfinished")
    return PostgresStorage(database(plan), id_of(folder))


def database(plan: Plan) -> str:
    """The address of a plan's database; to one that a folder names alone, no password of this environment goes."""
    address = plan.db or ""
    if not isinstance(address, FolderAddress):
        return address
    return f"{address}{'&' if '?' in address else '?'}password="


FILES = 4
"""Over which the runs of a comparison are spread."""


class SqliteStorage(Storage):
    """A few SQLite files, each with one connection, for the only process that works in their folder.

    Runs that an earlier version began have files of their own, and end there.

    Args:
        folder: of the files; it need not be there before a run begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._savers: dict[Path, Any] = {}
        self._files: dict[str, Path] = {}
        """Where each run is that has begun."""
        self._opening, self._stack = asyncio.Lock(), AsyncExitStack()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open it; files that are empty at the end are removed."""
        try:
            async with self._stack:
                for path in sorted(self._folder.glob("*.sqlite")):
                    names = [path.stem] if _is_own(path) else await (await self._journal(path)).athreads()
                    self._files |= dict.fromkeys(names, path)
                yield
        finally:
            for path in self._savers.keys() - set(self._files.values()):
                if not _log(path).exists():  # else somebody else looks into it
                    _remove(path)
            self._savers.clear()
            self._files.clear()

    @asynccontextmanager
    async def drive(self, name: str) -> AsyncIterator[Thread]:
        """Drive a run, where it has begun or in one of the files."""
        path = self._files.setdefault(name, self._folder / f"{_SHARED}{int(name, 16) % FILES:02}.sqlite")
        if _is_own(path):
            async with async_saver_of(path, _OWN_THREAD) as saver:
                yield Thread(saver, _OWN_THREAD)
        else:
            yield Thread(await self._saver(path), name)

    async def begun(self) -> set[str]:
        """The runs that have begun, and are not released."""
        return set(self._files)

    async def spent(self) -> Mapping[str, Usage]:
        """What each of them has spent, by its replies."""
        spent: dict[str, Usage] = {}
        for path, names in self._by_file(self._files).items():
            if _is_own(path):
                async with sqlite_saver(path) as saver:
                    await saver.setup()
                    replies = await _beside(saver).aspent(await _beside(saver).athreads())
                spent[path.stem] = add_usage(*replies.values())
            else:
                spent |= await (await self._journal(path)).aspent(names)
        return spent

    async def release(self, names: Collection[str]) -> None:
        """Delete the threads of runs whose rows are on disk."""
        for path, those in self._by_file(self._files.keys() & set(names)).items():
            if _is_own(path):
                _remove(path)
            else:
                await (await self._journal(path)).adelete_threads(those)
            for name in those:
                del self._files[name]

    def _by_file(self, names: Collection[str]) -> dict[Path, list[str]]:
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        return by_file

    async def _saver(self, path: Path) -> Any:
        async with self._opening:
            if path not in self._savers:
                path.parent.mkdir(exist_ok=True)
                saver: Any = await self._stack.enter_async_context(sqlite_saver(path))
                await saver.setup()
                self._savers[path] = saver
            return self._savers[path]

    async def _journal(self, path: Path) -> TableJournal:
        return _beside(await self._saver(path))


class PostgresStorage(Storage):
    """A PostgreSQL database, which comparisons, processes and machines may share.

    Args:
        address: postgresql://user:password@host:port/name.
        comparison: its id, with which the names of its threads begin there.
    """

    def __init__(self, address: str, comparison: str) -> None:
        self._address, self._prefix = address, f"{comparison}/"
        self._saver: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open a few connections.

        Raises:
            ValueError: the address can't be read.
            MissingExtra: the extra `postgres` is not installed.
            JournalError: the database can't be reached.
        """
        async with postgres_saver(self._address) as self._saver:
            yield

    @asynccontextmanager
    async def drive(self, name: str) -> AsyncIterator[Thread]:
        """Drive a run, which no other process drives."""
        thread = Thread(self._saver, self._prefix + name)
        async with self._saver.driving(thread.id):
            yield thread

    async def begun(self) -> set[str]:
        """The runs that have begun, and are not released."""
        with journal_errors():
            return {thread.removeprefix(self._prefix) for thread in await self._threads()}

    async def spent(self) -> Mapping[str, Usage]:
        """What each of them has spent, by its replies."""
        with journal_errors():
            spent = await _beside(self._saver).aspent(await self._threads())
        return {thread.removeprefix(self._prefix): usage for thread, usage in spent.items()}

    async def release(self, names: Collection[str]) -> None:
        """Delete the threads of runs whose rows are on disk."""
        with journal_errors():
            await _beside(self._saver).adelete_threads([self._prefix + name for name in names])

    async def _threads(self) -> set[str]:
        return await _beside(self._saver).athreads(self._prefix)


_SHARED = "runs-"
"""How the name of a file begins that many runs share."""
_OWN_THREAD = "run"
"""The thread of a run that has a file of its own."""


def _is_own(path: Path) -> bool:
    """Whether it is the file of one run."""
    return not path.name.startswith(_SHARED)


def _beside(saver: Any) -> TableJournal:
    journal = beside(saver)
    assert journal is not None
    return journal


def _remove(path: Path) -> None:
    """Remove a database that nobody has open."""
    for file in (path, _log(path), path.with_name(f"{path.name}-shm")):
        file.unlink(missing_ok=True)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
