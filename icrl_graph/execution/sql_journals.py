"""Journals in databases, and which journal a run has.

A graph needs no setting for where its replies are saved. `journal_of` takes

    the store that the graph, or the graph around it, is compiled with,
    else a table `icrl_replies` beside the checkpoints, in the same SQLite file or PostgreSQL database,
    else nothing that outlives the process.

A thread has one driver: the invocation that claimed it last, with its first paid call. Each look into a table beside
the checkpoints says who that is, so one that was taken over pays for nothing more, and a dead one holds nobody up.

A store in memory is ignored where the checkpoints outlive it. A table beside the checkpoints is used through the
connection of the checkpointer, under its lock: there is nothing more to open, to close or to wait for.
"""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any
from uuid import uuid4

from langgraph.store.memory import InMemoryStore

from icrl_graph.errors import ThreadBusy
from icrl_graph.execution.journal import Journal, Reply, StoreJournal, journal_errors
from icrl_graph.execution.langgraph_internals import databases_of_run, invocation_of_run, next_ids_after, unwrapped
from icrl_graph.execution.run_file import OpenedFile, database_file
from icrl_graph.execution.thread_lock import named, this_process
from icrl_graph.state.episode import Usage, add_usage

Statement = tuple[Any, ...]
"""SQL with ? for its parameters, and the parameters."""
Rows = list[tuple[Any, ...]]

_TABLE = "CREATE TABLE IF NOT EXISTS icrl_replies (id TEXT PRIMARY KEY, thread TEXT NOT NULL, reply TEXT NOT NULL)"
_INDEX = "CREATE INDEX IF NOT EXISTS icrl_replies_thread ON icrl_replies (thread)"
_DRIVERS = "CREATE TABLE IF NOT EXISTS icrl_drivers (thread TEXT PRIMARY KEY, driver TEXT NOT NULL)"
_GET = "SELECT (SELECT driver FROM icrl_drivers WHERE thread = ?), (SELECT reply FROM icrl_replies WHERE id = ?)"
"""Gives one row: who drives the thread, and the reply."""
_DRIVER = "SELECT (SELECT driver FROM icrl_drivers WHERE thread = ?), NULL"
_CLAIM = (
    "INSERT INTO icrl_drivers (thread, driver) VALUES (?, ?) "
    "ON CONFLICT (thread) DO UPDATE SET driver = excluded.driver"
)
_PUT = (
    "INSERT INTO icrl_replies (id, thread, reply) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET reply = excluded.reply"
)

_THREADS = (
    "SELECT thread_id FROM checkpoints WHERE thread_id LIKE ? UNION SELECT thread FROM icrl_replies WHERE thread LIKE ?"
)
_AT_ONCE = 100
"""Threads whose replies are read at once."""


class TableJournal(Journal):
    """Saves every reply in a table of a database, which is created if it is missing."""

    schema: Iterable[Statement] = ((_TABLE,), (_INDEX,), (_DRIVERS,))
    writes: str = "writes"
    """The table of LangGraph's writes, where the database holds its checkpoints."""
    blobs: str | None = None
    """The table of the channels' values, if they have one."""
    keeps_drivers: bool = False
    """Whether its threads are those of the checkpoints beside it, so that each has one driver."""
    locate: Statement | None = None
    """Gives the path of a database that is a file."""
    _has_table = False
    _file: OpenedFile | None = None

    @abstractmethod
    def run(self, *statements: Statement) -> Rows:
        """Run statements as one transaction, durable when this returns; returns the rows of the last."""

    async def arun(self, *statements: Statement) -> Rows:
        """`run`, without blocking the event loop."""
        return await asyncio.to_thread(self.run, *statements)

    def get(self, id: str, thread: str) -> Reply | None:
        """The reply to a call, or None.

        Raises:
            ThreadBusy: another invocation drives the thread by now.
            OSError: the file was deleted, or its disk is full: what is paid for from now on would be lost.
        """
        if self.locate is not None:
            self._file = self._file or OpenedFile(_path_in(self._execute(self.locate)))
            self._file.check()
        driver, claim = self._claim(thread)
        rows = self._execute(*claim, (_GET, thread, id))
        return self._read(rows, driver, thread)

    def put(self, id: str, thread: str, reply: Reply) -> None:
        """Save a reply.

        Raises:
            ThreadBusy: another invocation drives the thread by now; the reply is saved for it.
        """
        driver, _ = self._claim(thread)
        rows = self._execute((_PUT, id, thread, json.dumps(reply)), (_DRIVER, thread))
        self._read(rows, driver, thread)

    def delete(self, thread: str) -> None:
        """Delete all replies of a thread."""
        self._execute(*_deletions(thread))

    async def aget(self, id: str, thread: str) -> Reply | None:
        """`get`, without blocking the event loop."""
        if self.locate is not None:
            self._file = self._file or OpenedFile(_path_in(await self._aexecute(self.locate)))
            self._file.check()
        driver, claim = self._claim(thread)
        rows = await self._aexecute(*claim, (_GET, thread, id))
        return self._read(rows, driver, thread)

    async def aput(self, id: str, thread: str, reply: Reply) -> None:
        """`put`, without blocking the event loop."""
        driver, _ = self._claim(thread)
        rows = await self._aexecute((_PUT, id, thread, json.dumps(reply)), (_DRIVER, thread))
        self._read(rows, driver, thread)

    async def athreads(self, prefix: str = "") -> set[str]:
        """The threads of the database whose names begin so, for a journal beside checkpoints."""
        rows = await self._aexecute((_THREADS, f"{prefix}%", f"{prefix}%"))
        return {thread for (thread,) in rows}

    async def aspent(self, threads: Collection[str]) -> dict[str, Usage]:
        """What the replies of each of these threads have cost."""
        spent: dict[str, Usage] = {each: {} for each in threads}
        for some in _batches(spent):
            marks = ", ".join("?" * len(some))
            rows = await self._aexecute((f"SELECT thread, reply FROM icrl_replies WHERE thread IN ({marks})", *some))
            for thread, text in rows:
                spent[thread] = add_usage(spent[thread], Reply(*json.loads(text)).usage)
        return spent

    async def adelete_threads(self, threads: Collection[str]) -> None:
        """Delete whole threads, their checkpoints, too, in one transaction; for a journal beside checkpoints."""
        tables = [table for table in ("checkpoints", self.writes, self.blobs) if table is not None]
        checkpoints = [(f"DELETE FROM {table} WHERE thread_id = ?", each) for each in threads for table in tables]
        await self._aexecute(*checkpoints, *(statement for each in threads for statement in _deletions(each)))

    def _execute(self, *statements: Statement) -> Rows:
        rows = self.run(*self._with_schema(statements))
        self._has_table = True
        return rows

    async def _aexecute(self, *statements: Statement) -> Rows:
        rows = await self.arun(*self._with_schema(statements))
        self._has_table = True
        return rows

    def _with_schema(self, statements: Iterable[Statement]) -> list[Statement]:
        return [*([] if self._has_table else self.schema), *statements]

    def _claim(self, thread: str) -> tuple[_Driver | None, list[Statement]]:
        """Who drives a thread, as far as the caller knows, and at its first call what claims the thread."""
        invocation = invocation_of_run() if self.keeps_drivers else None
        if invocation is None:
            return None, []
        driver = self._drivers.of(invocation, thread)
        return driver, [] if driver.has_claimed else [(_CLAIM, thread, driver.name)]

    def _read(self, rows: Rows, driver: _Driver | None, thread: str) -> Reply | None:
        ((latest, reply),) = rows
        if driver is not None:
            driver.has_claimed = True
            if latest not in (driver.name, None):  # None: the thread was deleted
                raise ThreadBusy(f"thread {thread!r} was taken over by {named(latest)}; this run pays for nothing more")
        return None if reply is None else Reply(*json.loads(reply))

    @cached_property
    def _drivers(self) -> _Drivers:
        return _Drivers()


@dataclass
class _Driver:
    """An invocation that drives a thread.

    Attributes:
        name: its own, as JSON.
        has_claimed: whether it stands in the table, or stood there until another one came.
    """

    name: str
    has_claimed: bool = False


class _Drivers:
    """The latest invocations of this process that use a journal."""

    def __init__(self, limit: int = 4096) -> None:
        self._drivers: OrderedDict[tuple[Any, str], _Driver] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def of(self, invocation: Any, thread: str) -> _Driver:
        with self._lock:
            if (invocation, thread) not in self._drivers:
                name = json.dumps({**this_process(), "invocation": uuid4().hex})
                self._drivers[invocation, thread] = _Driver(name)
                while len(self._drivers) > self._limit:
                    self._drivers.popitem(last=False)
            return self._drivers[invocation, thread]


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    listed = list(names)
    return (listed[at : at + _AT_ONCE] for at in range(0, len(listed), _AT_ONCE))


def _deletions(thread: str) -> list[Statement]:
    return [(f"DELETE FROM {table} WHERE thread = ?", thread) for table in ("icrl_drivers", "icrl_replies")]


class SqliteJournal(TableJournal):
    """A journal in an SQLite file.

    Args:
        path: the file; created if it is missing.

    Raises:
        ValueError: it is an address, a folder, or a file of another kind.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        import sqlite3

        database_file(path, "a SqliteJournal is a file for SQLite")
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")  # synchronous=FULL stays as it is: safe in a power cut, too

    def run(self, *statements: Statement) -> Rows:
        """Run statements as one transaction."""
        with self._lock:
            return _run_sqlite(self._connection, statements)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _run_sqlite(connection: Any, statements: Iterable[Statement]) -> Rows:
    rows: Rows = []
    with connection:
        for sql, *parameters in statements:
            rows = connection.execute(sql, parameters).fetchall()
    return rows


_LOCATE: Statement = ("PRAGMA database_list",)


def _path_in(rows: Rows) -> str:
    """The path that SQLite's database_list tells; none of a database in memory."""
    return str(rows[0][2] or "")


class _BesideSqlite(TableJournal):
    keeps_drivers = True
    locate = _LOCATE

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        with self._saver.lock:
            return _run_sqlite(self._saver.conn, statements)


class _BesideAsync(TableJournal):
    """Beside an asynchronous saver, which is bound to one event loop; other threads may use it, too."""

    keeps_drivers = True

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        return asyncio.run_coroutine_threadsafe(self.arun(*statements), self._saver.loop).result()


class _BesideAsyncSqlite(_BesideAsync):
    locate = _LOCATE

    async def arun(self, *statements: Statement) -> Rows:
        connection, rows = self._saver.conn, []
        async with self._saver.lock:
            try:
                for sql, *parameters in statements:
                    rows = list(await connection.execute_fetchall(sql, parameters))
                if connection.in_transaction:
                    await connection.commit()
            except BaseException:
                await connection.rollback()
                raise
        return rows


_SCHEMA_LOCK: Statement = ("SELECT pg_advisory_xact_lock(?)", 0x1C41)
"""CREATE TABLE IF NOT EXISTS fails in PostgreSQL where two connections do it at once."""


class _BesidePostgres(TableJournal):
    keeps_drivers = True
    schema = (_SCHEMA_LOCK, (_TABLE,), (_INDEX,), (_DRIVERS,))
    writes, blobs = "checkpoint_writes", "checkpoint_blobs"

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        for attempt in retries(self._saver.conn, is_async=False):
            with attempt:
                rows = self._transaction(statements)
        return rows

    def _transaction(self, statements: Iterable[Statement]) -> Rows:
        from psycopg.rows import tuple_row

        rows: Rows = []
        saver = self._saver
        pooled = _is_pool(saver.conn)
        borrowed: AbstractContextManager[Any] = saver.conn.connection() if pooled else nullcontext(saver.conn)
        with nullcontext() if pooled else saver.lock, borrowed as connection:
            with connection.transaction():
                for sql, *parameters in statements:
                    with connection.cursor(row_factory=tuple_row) as cursor:  # one for each statement, for pipelines
                        cursor.execute(sql.replace("?", "%s"), parameters)
                        rows = cursor.fetchall() if sql.startswith("SELECT") else []
            if saver.pipe:
                saver.pipe.sync()
        return rows


class _BesideAsyncPostgres(_BesideAsync):
    """Before a paid call a saver that has a `confirm` says whether it still drives the thread."""

    schema, writes, blobs = _BesidePostgres.schema, _BesidePostgres.writes, _BesidePostgres.blobs

    def get(self, id: str, thread: str) -> Reply | None:
        return asyncio.run_coroutine_threadsafe(self.aget(id, thread), self._saver.loop).result()

    async def aget(self, id: str, thread: str) -> Reply | None:
        if (confirm := getattr(self._saver, "confirm", None)) is not None:
            await confirm(thread)
        return await super().aget(id, thread)

    async def arun(self, *statements: Statement) -> Rows:
        async for attempt in retries(self._saver.conn, is_async=True):
            with attempt:
                rows = await self._transaction(statements)
        return rows

    async def _transaction(self, statements: Iterable[Statement]) -> Rows:
        from psycopg.rows import tuple_row

        rows: Rows = []
        saver = self._saver
        pooled = _is_pool(saver.conn)
        borrowed: Any = saver.conn.connection() if pooled else nullcontext(saver.conn)
        async with nullcontext() if pooled else saver.lock, borrowed as connection:
            async with connection.transaction():
                for sql, *parameters in statements:
                    async with connection.cursor(row_factory=tuple_row) as cursor:
                        await cursor.execute(sql.replace("?", "%s"), parameters)
                        rows = await cursor.fetchall() if sql.startswith("SELECT") else []
            if saver.pipe:
                await saver.pipe.sync()
        return rows


def _is_pool(connection: Any) -> bool:
    """Whether it is a pool: then each user has a connection, and no lock is needed.

    Raises:
        ValueError: it is a connection that never commits.
    """
    if hasattr(connection, "getconn"):
        return True
    if not connection.autocommit:
        raise ValueError("the checkpointer's connection never commits: connect with autocommit=True")
    return False


def retries(connection: Any, is_async: bool) -> Any:
    """Retries statements that a restart has broken, up to ten times; none on a single connection that stays broken.

    Args:
        connection: a pool, a connection, or None for one that is opened anew each time.
        is_async: whether the attempts are awaited.
    """
    import tenacity
    from psycopg import OperationalError

    retrying: Any = tenacity.AsyncRetrying if is_async else tenacity.Retrying
    return retrying(
        retry=tenacity.retry_if_exception_type(OperationalError),
        stop=tenacity.stop_after_attempt(10 if connection is None or _is_pool(connection) else 1),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=10),
        reraise=True,
    )


_BESIDE: Mapping[str, Callable[[Any], TableJournal]] = {
    "langgraph.checkpoint.sqlite.SqliteSaver": _BesideSqlite,
    "langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver": _BesideAsyncSqlite,
    "langgraph.checkpoint.postgres.PostgresSaver": _BesidePostgres,
    "langgraph.checkpoint.postgres.aio.AsyncPostgresSaver": _BesideAsyncPostgres,
}
"""By the name of the saver's class, so that none of them need be installed."""

_journals: weakref.WeakKeyDictionary[Any, TableJournal] = weakref.WeakKeyDictionary()


def beside(saver: Any) -> TableJournal | None:
    """The journal in the database of a checkpointer; None where that is of another kind than these four."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(saver).__mro__)
    make = next((_BESIDE[name] for name in names if name in _BESIDE), None)
    if make is None:
        return None
    if saver not in _journals:
        _journals[saver] = make(weakref.proxy(saver))  # else it would keep the saver alive, and so itself
    return _journals[saver]


def journal_of(saver: Any, store: Any) -> Journal | None:
    """The journal of a graph that is compiled with these; None where neither outlives the process."""
    if store is not None and not isinstance(unwrapped(store), InMemoryStore):
        return StoreJournal(store)
    return beside(unwrapped(saver)) or (None if store is None else StoreJournal(store))


def journal_of_run() -> tuple[Journal | None, str]:
    """The journal and the thread of the run that the caller is a node of; (None, "") outside of one."""
    saver, store, thread = databases_of_run()
    return journal_of(saver, store), thread


def follow_thread() -> None:
    """Give the next checkpoints of the run that the caller is a node of ids that come after all of its thread.

    A new input on a thread is saved before any node runs: by the clock, which may have been set back since.
    """
    saver, _, thread = databases_of_run()
    if (database := beside(unwrapped(saver))) is not None:
        with journal_errors():
            rows = database.run((_LATEST, thread))
        next_ids_after(rows[0][0])


async def afollow_thread() -> None:
    """`follow_thread` under `ainvoke`."""
    saver, _, thread = databases_of_run()
    if (database := beside(unwrapped(saver))) is not None:
        with journal_errors():
            rows = await database.arun((_LATEST, thread))
        next_ids_after(rows[0][0])


_LATEST = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?"
