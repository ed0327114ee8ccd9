"""Where `langgraph dev` saves its threads: in SQLite, so that a server that was killed loses nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

FILE = Path(".langgraph_api/checkpoints.sqlite")


@asynccontextmanager
async def sqlite() -> AsyncIterator[AsyncSqliteSaver]:
    """A saver for as long as the server runs."""
    FILE.parent.mkdir(exist_ok=True)
    async with AsyncSqliteSaver.from_conn_string(str(FILE)) as saver:
        yield saver
