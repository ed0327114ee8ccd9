"""Where `langgraph dev` saves its threads: in SQLite, so that a server that was killed loses nothing.

A langgraph.json names it: `"checkpointer": {"path": "icrl_graph.execution.studio_checkpoints.sqlite"}`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from icrl_graph.execution.langgraph_internals import PlainSerializer

FILE = Path(".langgraph_api/checkpoints.sqlite")


@asynccontextmanager
async def sqlite() -> AsyncIterator[AsyncSqliteSaver]:
    """A saver for as long as the server runs."""
    FILE.parent.mkdir(exist_ok=True)
    async with aiosqlite.connect(str(FILE)) as connection:
        yield AsyncSqliteSaver(connection, serde=PlainSerializer())
