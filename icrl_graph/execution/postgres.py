"""Runs saved in PostgreSQL: a few connections for all runs of a process, and one that holds their threads.

Who drives a thread holds an advisory lock on it, on the one connection of a session that does nothing else; it ends
with the process, however that ends. Before each paid call that connection is asked whether it is still there. Where it
was lost, the locks are taken again; a run whose thread somebody else has by then pays for nothing more.

Imported only where a run is saved so: it needs the extra `postgres`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, Connection, Error, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from icrl_graph.errors import JournalError, ThreadBusy
from icrl_graph.execution.event_loop import uncancelled
from icrl_graph.execution.langgraph_internals import PlainSerializer
from icrl_graph.execution.sql_journals import retries
from icrl_graph.execution.thread_lock import named

CONNECTIONS = 4
"""Of a session, beside the one that holds its threads."""
DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,  # milliseconds, the others are seconds: no keepalives are sent while data is unanswered
}
"""Of a connection whose address does not say otherwise: one that is gone is noticed within a minute."""
_DEAD_CLIENTS = "SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
"""So that the server gives up the locks of a machine that is gone within a minute, not in hours."""


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[DrivingSaver]:
    """A session with a database, its tables made.

    Args:
        address: postgresql://user:password@host:port/name.

    Raises:
        ValueError: the address can't be read.
        JournalError: the database can't be reached.
    """
    conninfo = conninfo_of(address)
    locks = _Locks(conninfo)
    try:
        with database_errors():
            await locks.open()
        kwargs: Any = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(conninfo, min_size=1, max_size=CONNECTIONS, kwargs=kwargs, open=False) as pool:
            saver = DrivingSaver(pool, locks)
            await saver.prepare()
            yield saver
    finally:
        await uncancelled(locks.close())


def conninfo_of(address: str) -> str:
    """What to connect by.

    Raises:
        ValueError: the address can't be read; libpq's own errors might tell a part of its password.
    """
    try:
        given = conninfo_to_dict(address)
    except ProgrammingError:  # its message has the address
        given = {"port": "?"}
    ports = str(given.get("port") or "").replace(",", "")
    if (ports and not ports.isdigit()) or "@" in str(given.get("host") or ""):
        raise ValueError(
            "the address of the database can't be read; it is postgresql://user:password@host:port/name, with "
            "/ ? # @ in the password written as %2F %3F %23 %40"
        )
    return make_conninfo("", **{**DEFAULTS, **given})


def reach(address: str) -> None:
    """Connect to a database once.

    Raises:
        ValueError: the address can't be read.
        JournalError: the database can't be reached.
    """
    with database_errors():
        Connection.connect(conninfo_of(address)).close()


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the failure of a database into the error that ends a run which can be resumed."""
    try:
        yield
    except Error as error:
        raise JournalError(f"the database can't be used: {str(error).strip()}") from error


def _patiently(method: Callable[..., Awaitable[Any]]) -> Any:
    """A method of a saver that is tried again where the database was restarted: each of them may be done twice."""

    @wraps(method)
    async def again(self: Any, *args: Any, **kwargs: Any) -> Any:
        with database_errors():
            async for attempt in retries(self.conn, is_async=True):
                with attempt:
                    return await method(self, *args, **kwargs)

    return again


class DrivingSaver(AsyncPostgresSaver):
    """A checkpointer for the threads that its session drives; it waits out a restart of the database.

    Args:
        pool: its connections.
        locks: says which threads the session drives.
    """

    def __init__(self, pool: Any, locks: _Locks) -> None:
        super().__init__(pool, serde=PlainSerializer())
        self.lock: Any = nullcontext()  # each call has a connection of its own: nothing waits for another run's
        self._locks = locks

    aget_tuple = _patiently(AsyncPostgresSaver.aget_tuple)
    aget_delta_channel_history = _patiently(AsyncPostgresSaver.aget_delta_channel_history)
    aput = _patiently(AsyncPostgresSaver.aput)
    aput_writes = _patiently(AsyncPostgresSaver.aput_writes)
    adelete_thread = _patiently(AsyncPostgresSaver.adelete_thread)

    @asynccontextmanager
    async def driving(self, thread_id: str) -> AsyncIterator[None]:
        """Be the only one who drives a thread.

        Raises:
            ThreadBusy: another session drives it, or this one does already.
        """
        with database_errors():
            await uncancelled(self._locks.take(thread_id))
        try:
            yield
        finally:
            await uncancelled(self._locks.give(thread_id))

    async def confirm(self, thread_id: str) -> None:
        """Return once it is certain that the session still drives a thread.

        Raises:
            ThreadBusy: it was lost, and somebody else has it.
            OperationalError: the database can't be reached.
        """
        await uncancelled(self._locks.confirm(thread_id))

    async def prepare(self) -> None:
        """Make the tables; two processes at once would break each other."""
        while True:
            try:
                async with self.driving(_TABLES):
                    with database_errors():
                        return await self.setup()
            except ThreadBusy:  # not by waiting in the database, for which its indexes would wait
                await asyncio.sleep(0.1)


_TABLES = "icrl_graph: its tables"
_KEY = "hashtextextended(%s, 0)"
_WHO = f"""
SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid), {_KEY} AS key
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = ((key >> 32) & 4294967295)::oid AND objid = (key & 4294967295)::oid
"""
_REFUSED = "SELECT thread FROM unnest(%s::text[]) AS thread WHERE NOT pg_try_advisory_lock(hashtextextended(thread, 0))"
_NAME = re.compile(r"icrl_graph (\d+) (\S+)")


class _Locks:
    """The threads that a session drives, each held by an advisory lock on one connection.

    Args:
        conninfo: of the database.
    """

    def __init__(self, conninfo: str) -> None:
        name = f"icrl_graph {os.getpid()} {socket.gethostname()[:40]}"
        self._conninfo = make_conninfo(conninfo, application_name=name)
        self._connection: AsyncConnection[Any] | None = None
        self._held: set[str] = set()
        self._turn = asyncio.Lock()

    async def open(self) -> AsyncConnection[Any]:
        """The connection; where it was lost, a new one, with the threads that nobody else has taken."""
        if self._connection is None or self._connection.closed:
            connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
            try:
                await connection.execute(_DEAD_CLIENTS)
                refused = await (await connection.execute(_REFUSED, [list(self._held)])).fetchall()
            except BaseException:
                await connection.close()
                raise
            self._held -= {thread for (thread,) in refused}
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        """Give up all threads."""
        if self._connection is not None:
            await self._connection.close()

    async def take(self, thread: str) -> None:
        """Hold a thread.

        Raises:
            ThreadBusy: somebody has it.
        """
        async with self._turn:
            if thread in self._held:
                raise _busy(thread, "this process already")
            refused = await self._asked(_REFUSED, [thread])
            if refused:
                raise _busy(thread, await self._holder(thread))
            self._held.add(thread)

    async def give(self, thread: str) -> None:
        """Hold a thread no longer."""
        async with self._turn:
            self._held.discard(thread)
            if self._connection is not None:
                with suppress(Error):  # then it is lost with the connection
                    await self._connection.execute(f"SELECT pg_advisory_unlock({_KEY})", [thread])

    async def confirm(self, thread: str) -> None:
        """Return once it is certain that a thread is held.

        Raises:
            ThreadBusy: it was lost.
        """
        async with self._turn:
            await self._asked("SELECT 1")
            if thread not in self._held:
                raise _busy(thread, await self._holder(thread))

    async def _asked(self, sql: str, *parameters: Any) -> list[Any]:
        rows: list[Any] = []
        async for attempt in retries(None, is_async=True):
            with attempt:
                connection = await self.open()
                rows = await (await connection.execute(sql, list(parameters))).fetchall()
        return rows

    async def _holder(self, thread: str) -> str:
        for name, since in await self._asked(_WHO, thread):
            if found := _NAME.fullmatch(name or ""):
                about = {"pid": int(found[1]), "host": found[2], "since": since.isoformat(timespec="seconds")}
                return named(json.dumps(about))
        return "another process"


def _busy(thread: str, who: str) -> ThreadBusy:
    return ThreadBusy(f"thread {thread!r} is driven by {who}; wait for it, or give another thread_id")
