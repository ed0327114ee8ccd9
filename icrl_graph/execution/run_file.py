"""Where `improve(path=...)` saves a run: an SQLite file or a PostgreSQL database, with one driver of each thread."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph.errors import missing_extra
from icrl_graph.execution.event_loop import EventLoop, uncancelled
from icrl_graph.execution.langgraph_internals import PlainSerializer
from icrl_graph.execution.thread_lock import driving

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from icrl_graph.execution.postgres import DrivingSaver

PATIENCE = 30.0
"""Seconds to wait for somebody else who is writing into the same file."""


@contextmanager
def saver_of(path: str | PathLike[str] | None, thread_id: str) -> Iterator[BaseCheckpointSaver[Any]]:
    """The checkpointer of a file or database, for who drives a thread of it; without a path, one in memory.

    Raises:
        ValueError: the path is another address, or that of something else.
        ThreadBusy: somebody else drives the thread.
        MissingExtra: it is the address of a PostgreSQL database, and the extra `postgres` is not installed.
        JournalError: that database can't be reached.
    """
    if path is None:
        yield InMemorySaver()
        return
    if is_postgres(path):
        with _in_own_loop(async_saver_of(path, thread_id)) as saver:
            yield saver
        return
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    database_file(path, _WHAT).parent.mkdir(parents=True, exist_ok=True)
    with (
        driving(path, thread_id),
        closing(sqlite3.connect(**_database(path), timeout=PATIENCE, check_same_thread=False)) as connection,
    ):
        yield SqliteSaver(connection, serde=PlainSerializer())


@asynccontextmanager
async def async_saver_of(
    path: str | PathLike[str] | BaseCheckpointSaver[Any] | None, thread_id: str
) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """`saver_of` for async code; a checkpointer, of a thread that the caller drives, is given back as it is."""
    if path is None or isinstance(path, BaseCheckpointSaver):
        yield path or InMemorySaver()
        return
    if is_postgres(path):
        async with postgres_saver(str(path)) as shared, shared.driving(thread_id):
            yield shared
        return
    database_file(path, _WHAT).parent.mkdir(parents=True, exist_ok=True)
    with driving(path, thread_id):
        async with sqlite_saver(path) as saver:
            yield saver


@asynccontextmanager
async def drivers_of(
    path: str | PathLike[str] | None,
) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[BaseCheckpointSaver[Any]]]]:
    """`async_saver_of` for who drives many threads: gives it as a function of a thread.

    Of a PostgreSQL database they share the connections.

    Raises:
        ValueError: the path is another address, or that of something else.
        JournalError: the database can't be reached.
    """
    if not is_postgres(path):
        if path is not None:
            database_file(path, _WHAT)
        yield partial(async_saver_of, path)
        return
    async with postgres_saver(str(path)) as shared:

        @asynccontextmanager
        async def drive(thread_id: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
            async with shared.driving(thread_id):
                yield shared

        yield drive


@asynccontextmanager
async def sqlite_saver(path: str | PathLike[str]) -> AsyncIterator[AsyncSqliteSaver]:
    """The checkpointer of an SQLite file, for who drives all threads of it."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    connection = await _opened(aiosqlite.connect(**_database(path), timeout=PATIENCE))
    saver = AsyncSqliteSaver(connection, serde=PlainSerializer())
    try:
        yield saver
    finally:
        await uncancelled(_closed(saver))


@contextmanager
def _in_own_loop(opening: AbstractAsyncContextManager[BaseCheckpointSaver[Any]]) -> Iterator[BaseCheckpointSaver[Any]]:
    """An asynchronous checkpointer for a graph under `invoke`: it works in an event loop of its own."""
    loop = EventLoop()
    try:
        saver = loop.run(opening.__aenter__(), None)
        try:
            yield saver
        finally:
            loop.run(opening.__aexit__(None, None, None), None)
    finally:
        loop.close()


def postgres_saver(address: str) -> AbstractAsyncContextManager[DrivingSaver]:
    """The checkpointer of a PostgreSQL database, for all threads that a process drives in it.

    Raises:
        MissingExtra: the extra `postgres` is not installed.
    """
    saver: AbstractAsyncContextManager[DrivingSaver] = _postgres().opened(address)
    return saver


def check_postgres(address: str) -> None:
    """Raise unless a PostgreSQL database can be opened by this address, as far as that is known before it is tried.

    Raises:
        ValueError: it is no such address, or can't be read; the error tells no password.
        MissingExtra: the extra `postgres` is not installed.
    """
    if not is_postgres(address):
        raise ValueError("a database is given by its address, postgresql://user:password@host:port/name; got another")
    _postgres().conninfo_of(address)


def reach_postgres(address: str) -> None:
    """Connect to a PostgreSQL database once.

    Raises:
        JournalError: it can't be reached.
    """
    _postgres().reach(address)


def _postgres() -> Any:
    try:
        from icrl_graph.execution import postgres
    except ImportError as error:
        raise missing_extra("psycopg", "postgres") from error
    return postgres


def is_postgres(path: Any) -> bool:
    """Whether it is the address of a PostgreSQL database."""
    return isinstance(path, str) and path.startswith(("postgresql://", "postgres://"))


_WHAT = (
    "path is a file for SQLite, or the text postgresql://...; in another database a run is saved by the checkpointer "
    "that its graph is compiled with, as in create_icrl(...).compile(saver)"
)
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]+):/")


def local(path: str | PathLike[str], what: str) -> Path:
    """A path, which must be one of this machine.

    Args:
        path: the path.
        what: what it should be, for the error.

    Raises:
        ValueError: it is no path; it is empty, which SQLite takes for a file that is deleted at the end; or an address,
            such as postgresql://..., of which the error tells no password.
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(f"{what}; got {path!r:.80}")
    if not str(path):
        raise ValueError(f"{what}; got an empty text")
    if address := _ADDRESS.match(str(path)):
        raise ValueError(f"{what}; got an address, {address[1]}://...")
    return Path(path)


def database_file(path: str | PathLike[str], what: str) -> Path:
    """The path of a database, which need not be there yet.

    Args:
        path: the path.
        what: what it should be, for the error.

    Raises:
        ValueError: it is none of this machine, or what is there is a folder or a file of another kind.
    """
    file = local(path, what)
    if file.is_dir():
        raise ValueError(f"{what}; got the folder {path}")
    if file.is_file():
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
        if begins and begins != _MAGIC:
            raise ValueError(f"{what}; {path} is a file of another kind")
    return file


_MAGIC = b"SQLite format 3\0"
"""How every database of SQLite begins, unless it is empty."""


def _database(path: str | PathLike[str]) -> dict[str, Any]:
    """What to connect to; in a folder that can't be written to, where SQLite can keep no log, a file is only read."""
    file = Path(path)
    if os.access(file.parent, os.W_OK) or not file.exists():
        return {"database": str(path)}
    how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "immutable=1"
    return {"database": f"{file.resolve().as_uri()}?{how}", "uri": True}


async def _opened(connection: Any) -> Any:
    """Open a connection; a cancellation comes after that, and closes it."""
    task = asyncio.ensure_future(connection)
    try:
        return await uncancelled(task)
    except asyncio.CancelledError:
        await uncancelled(task.result().close())
        raise


async def _closed(saver: Any) -> None:
    """Close, once nobody is in the midst of writing: else SQLite keeps its lock for as long as a cursor is about."""
    async with saver.lock:
        await saver.conn.rollback()
        await saver.conn.close()


ROOM = 256 * 1024
"""Bytes that must be free beside a file when it is first used: more than most replies and their checkpoints take."""


class OpenedFile:
    """The file of a database that is open, as it was at first; SQLite goes on writing into one that was deleted.

    Args:
        path: its path; empty for a database in memory.

    Raises:
        OSError: there is no room beside it.
    """

    def __init__(self, path: str) -> None:
        self.path = path.encode()  # SQLite's names are UTF-8 in any locale
        self._stat = os.stat(self.path) if self.path else None
        if self.path:
            self._try_to_write()

    def _try_to_write(self) -> None:
        """Write and take away again. SQLite may find room for who drives a thread, and then none for a reply."""
        with suppress(PermissionError), TemporaryFile(dir=os.path.dirname(self.path), buffering=0) as file:
            for _ in range(0, ROOM, 4096):
                file.write(bytes(4096))

    def check(self) -> None:
        """Check that it is still there.

        Raises:
            FileNotFoundError: it was deleted or replaced.
        """
        if self._stat is None:
            return
        try:
            is_same = os.path.samestat(os.stat(self.path), self._stat)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise FileNotFoundError(f"{self.path.decode()} was deleted or replaced while the run went on")
