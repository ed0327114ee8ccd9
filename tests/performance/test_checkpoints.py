"""How much a round adds to what is stored."""

import sqlite3
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from tests.helpers import thread
from tests.performance.lab import record


def _stored(rounds: int) -> dict[str, float]:
    """KB a round by table: 2 KB responses, a 6 KB task, three nodes a round, SQLite, every superstep durable."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    graph = create_icrl(ScriptedModel(lambda: "r" * 2000), lambda: 0.5, rounds=rounds)
    compiled: Any = graph.compile(checkpointer=SqliteSaver(connection))
    compiled.invoke({"task": "t" * 6000}, thread(), durability="sync")
    stored = {}
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        lengths = " + ".join(f"coalesce(sum(length({column})), 0)" for column in columns)
        stored[table] = connection.execute(f"SELECT {lengths} FROM {table}").fetchone()[0] / rounds / 1000
    connection.close()
    return stored


def test_checkpoints_stay_small_however_long_the_run() -> None:
    short, long = _stored(50), _stored(200)
    sizes = {table: size for table, size in long.items() if table != "icrl_replies"}
    kept, growth = sum(sizes.values()), sum(long.values()) / sum(short.values())
    parts = ", ".join(f"{table} {size:.1f}" for table, size in sorted(long.items()))
    record("KB of checkpoints a round at 200 rounds of 2 KB, SQLite", "<= 9", f"{kept:.1f} ({parts})", kept <= 9)
    record("the same over that at 50 rounds", "<= 1.3x", f"{growth:.2f}x", growth <= 1.3)
    assert kept <= 12
    assert growth <= 1.4
