"""Checkpointers of every kind, opened on real databases, and used as such a one is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

SYNC = ("sqlite", "postgres", "postgres pool", "postgres pipeline")
ASYNC = ("async sqlite", "async postgres", "async postgres pool", "async postgres pipeline")
ALL = (*SYNC, *ASYNC)
_POOLED: Any = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


class Database:
    """A checkpointer, and how a graph that is compiled with it is run."""

    def __init__(self, saver: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.saver, self._loop = saver, loop

    def invoke(self, graph: Any, inputs: Any, config: Any, **kwargs: Any) -> Any:
        if self._loop is None:
            return graph.invoke(inputs, config, durability="sync", **kwargs)
        return self.wait(graph.ainvoke(inputs, config, durability="sync", **kwargs))

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def opened(kind: str, path: Path, url: str) -> Iterator[Database]:
    """Open a checkpointer of a kind, on a file or on an address, with its tables made."""
    if "postgres" in kind:
        with PostgresSaver.from_conn_string(url) as plain:  # a pipeline can't make them
            plain.setup()
    if kind in SYNC:
        with _sync(kind, path, url) as saver:
            yield Database(saver, None)
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opening = _async(kind, path, url)

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        saver = wait(opening.__aenter__())
        yield Database(saver, loop)
    finally:
        wait(opening.__aexit__(None, None, None))
        wait(loop.shutdown_asyncgens())  # as `asyncio.run` does: HTTP pools end with their loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _sync(kind: str, path: Path, url: str) -> Iterator[Any]:
    if kind == "sqlite":
        with SqliteSaver.from_conn_string(str(path)) as saver:
            yield saver
    elif kind == "postgres pool":
        with ConnectionPool(url, min_size=1, max_size=4, kwargs=_POOLED, open=True) as pool:
            lent: Any = pool
            yield PostgresSaver(lent)
    else:
        with PostgresSaver.from_conn_string(url, pipeline=kind == "postgres pipeline") as saver:
            yield saver


@asynccontextmanager
async def _async(kind: str, path: Path, url: str) -> Any:
    if kind == "async sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            yield saver
    elif kind == "async postgres pool":
        async with AsyncConnectionPool(url, min_size=1, max_size=4, kwargs=_POOLED, open=False) as pool:
            lent: Any = pool
            yield AsyncPostgresSaver(lent)
    else:
        async with AsyncPostgresSaver.from_conn_string(url, pipeline=kind.endswith("pipeline")) as saver:
            yield saver
