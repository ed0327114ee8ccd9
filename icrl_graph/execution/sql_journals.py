"""Journals in databases, and which journal a run has.

Nobody has to say where the replies of a graph are saved. `journal_of` takes

    the store that the graph, or the graph around it, is compiled with,
    else a table `icrl_replies` beside the checkpoints, in the same SQLite file or PostgreSQL database,
    else nothing that outlives the process.

A store in memory is passed over where the checkpoints outlive it. What is beside the checkpoints goes through the
checkpointer's own connection, under its lock: nothing more to open, to close or to wait for.
"""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import Any

from langgraph.config import get_config
from langgraph.constants import CONFIG_KEY_CHECKPOINTER
from langgraph.runtime import get_runtime
from langgraph.store.memory import InMemoryStore

from icrl_graph.execution.journal import Journal, Reply, StoreJournal

Statement = tuple[Any, ...]
"""SQL with ? for its parameters, and these."""
Rows = list[tuple[Any, ...]]

_TABLE = "CREATE TABLE IF NOT EXISTS icrl_replies (id TEXT PRIMARY KEY, thread TEXT NOT NULL, reply TEXT NOT NULL)"
_INDEX = "CREATE INDEX IF NOT EXISTS icrl_replies_thread ON icrl_replies (thread)"
_GET = "SELECT reply FROM icrl_replies WHERE id = ?"
_PUT = (
    "INSERT INTO icrl_replies (id, thread, reply) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET reply = excluded.reply"
)


class TableJournal(Journal):
    """Keeps every reply in a table of a database, which it makes if it is missing."""

    making: Iterable[Statement] = ((_TABLE,), (_INDEX,))
    writes: str = "writes"
    """The table of LangGraph's writes, where the database holds its checkpoints."""
    blobs: str | None = None
    """The table of what the channels hold, if that is one of its own."""
    _is_made = False

    @abstractmethod
    def run(self, *statements: Statement) -> Rows:
        """Run statements as one transaction, durable when this returns; gives the rows of the last."""

    async def arun(self, *statements: Statement) -> Rows:
        """`run`, without blocking the event loop."""
        return await asyncio.to_thread(self.run, *statements)

    def get(self, id: str, thread: str) -> Reply | None:
        """The reply to a call, or None."""
        return _reply(self._do(_GET, id))

    def put(self, id: str, thread: str, reply: Reply) -> None:
        """Keep a reply."""
        self._do(_PUT, id, thread, json.dumps(reply))

    def delete(self, thread: str) -> None:
        """Forget all replies of a thread."""
        self._do("DELETE FROM icrl_replies WHERE thread = ?", thread)

    async def aget(self, id: str, thread: str) -> Reply | None:
        """`get`, without blocking the event loop."""
        return _reply(await self._ado(_GET, id))

    async def aput(self, id: str, thread: str, reply: Reply) -> None:
        """`put`, without blocking the event loop."""
        await self._ado(_PUT, id, thread, json.dumps(reply))

    def _do(self, *statement: Any) -> Rows:
        rows = self.run(*self._after_making(statement))
        self._is_made = True
        return rows

    async def _ado(self, *statement: Any) -> Rows:
        rows = await self.arun(*self._after_making(statement))
        self._is_made = True
        return rows

    def _after_making(self, statement: Statement) -> list[Statement]:
        return [statement] if self._is_made else [*self.making, statement]


def _reply(rows: Rows) -> Reply | None:
    return Reply(*json.loads(rows[0][0])) if rows else None


class SqliteJournal(TableJournal):
    """A journal in an SQLite file that you choose.

    Args:
        path: the file; created if missing.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        import sqlite3

        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")  # python's synchronous=FULL stays: safe in a power cut, too

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


class _BesideSqlite(TableJournal):
    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        with self._saver.lock:
            return _run_sqlite(self._saver.conn, statements)


class _BesideAsync(TableJournal):
    """Of an asynchronous saver, which lives in one event loop; from another thread it can be used like any other."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        return asyncio.run_coroutine_threadsafe(self.arun(*statements), self._saver.loop).result()


class _BesideAsyncSqlite(_BesideAsync):
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


_ONE_AT_A_TIME: Statement = ("SELECT pg_advisory_xact_lock(?)", 0x1C41)
"""CREATE TABLE IF NOT EXISTS fails in PostgreSQL where two do it at once."""


class _BesidePostgres(TableJournal):
    making = (_ONE_AT_A_TIME, (_TABLE,), (_INDEX,))
    writes, blobs = "checkpoint_writes", "checkpoint_blobs"

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    def run(self, *statements: Statement) -> Rows:
        for attempt in _attempts(self._saver.conn, is_async=False):
            with attempt:
                rows = self._once(statements)
        return rows

    def _once(self, statements: Iterable[Statement]) -> Rows:
        from psycopg.rows import tuple_row

        rows: Rows = []
        saver = self._saver
        pooled = _is_pool(saver.conn)
        lent: AbstractContextManager[Any] = saver.conn.connection() if pooled else nullcontext(saver.conn)
        with nullcontext() if pooled else saver.lock, lent as connection:
            with connection.transaction():
                for sql, *parameters in statements:
                    with connection.cursor(row_factory=tuple_row) as cursor:  # one each: in a pipeline they come later
                        cursor.execute(sql.replace("?", "%s"), parameters)
                        rows = cursor.fetchall() if sql.startswith("SELECT") else []
            if saver.pipe:
                saver.pipe.sync()
        return rows


class _BesideAsyncPostgres(_BesideAsync):
    making, writes, blobs = _BesidePostgres.making, _BesidePostgres.writes, _BesidePostgres.blobs

    async def arun(self, *statements: Statement) -> Rows:
        async for attempt in _attempts(self._saver.conn, is_async=True):
            with attempt:
                rows = await self._once(statements)
        return rows

    async def _once(self, statements: Iterable[Statement]) -> Rows:
        from psycopg.rows import tuple_row

        rows: Rows = []
        saver = self._saver
        pooled = _is_pool(saver.conn)
        lent: Any = saver.conn.connection() if pooled else nullcontext(saver.conn)
        async with nullcontext() if pooled else saver.lock, lent as connection:
            async with connection.transaction():
                for sql, *parameters in statements:
                    async with connection.cursor(row_factory=tuple_row) as cursor:
                        await cursor.execute(sql.replace("?", "%s"), parameters)
                        rows = await cursor.fetchall() if sql.startswith("SELECT") else []
            if saver.pipe:
                await saver.pipe.sync()
        return rows


def _is_pool(connection: Any) -> bool:
    """Whether it lends connections: then each user has its own, and no lock is needed.

    Raises:
        ValueError: it is a connection on which nothing would ever be durable.
    """
    if hasattr(connection, "getconn"):
        return True
    if not connection.autocommit:
        raise ValueError("the checkpointer's connection never commits: connect with autocommit=True")
    return False


def _attempts(connection: Any, is_async: bool) -> Any:
    """To run statements again where a pool lent a connection that a restart has broken; a lone one stays broken."""
    import tenacity
    from psycopg import OperationalError

    make: Any = tenacity.AsyncRetrying if is_async else tenacity.Retrying
    return make(
        retry=tenacity.retry_if_exception_type(OperationalError),
        stop=tenacity.stop_after_attempt(10 if _is_pool(connection) else 1),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=10),
        reraise=True,
    )


_BESIDE: Mapping[str, Callable[[Any], TableJournal]] = {
    "langgraph.checkpoint.sqlite.SqliteSaver": _BesideSqlite,
    "langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver": _BesideAsyncSqlite,
    "langgraph.checkpoint.postgres.PostgresSaver": _BesidePostgres,
    "langgraph.checkpoint.postgres.aio.AsyncPostgresSaver": _BesideAsyncPostgres,
}
"""By the saver's class, as a name: none of them need be installed."""

_made: weakref.WeakKeyDictionary[Any, TableJournal] = weakref.WeakKeyDictionary()


def beside(saver: Any) -> TableJournal | None:
    """The journal in the database of a checkpointer; None where that is of no kind that is known."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(saver).__mro__)
    make = next((_BESIDE[name] for name in names if name in _BESIDE), None)
    if make is None:
        return None
    if saver not in _made:
        _made[saver] = make(weakref.proxy(saver))  # else it would keep the saver, and so itself, for ever
    return _made[saver]


def journal_of(saver: Any, store: Any) -> Journal | None:
    """The journal of whatever is compiled with these; None where replies outlive the process as little as they do."""
    if store is not None and not isinstance(_unwrapped(store), InMemoryStore):
        return StoreJournal(store)
    return beside(_unwrapped(saver)) or (None if store is None else StoreJournal(store))


_WRAPPED = {
    "langgraph_api._checkpointer._adapter._CustomCheckpointerAdapter": "_inner",
    "langgraph_runtime_inmem.store.BatchedStore": "_store",
}


def _unwrapped(part: Any) -> Any:
    """A checkpointer or a store without what `langgraph dev` puts around it."""
    kind = type(part)
    inner = _WRAPPED.get(f"{kind.__module__}.{kind.__qualname__}")
    return part if inner is None else getattr(part, inner)


def journal_of_run() -> tuple[Journal | None, str]:
    """The journal and the thread of the run in one of whose nodes this is called; (None, "") outside of one."""
    try:
        configurable = get_config().get("configurable", {})
    except RuntimeError:
        return None, ""
    saver, store = (
        configurable.get(CONFIG_KEY_CHECKPOINTER),
        getattr(get_runtime(), "store", None),
    )  # None in a mere chain
    return journal_of(saver, store), str(configurable.get("thread_id", ""))
