"""Ratios, each measured within one run, so that a slow machine does not matter. `make perf` prints them."""

import sqlite3
import subprocess
import sys
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies import create_icrl
from tests.helpers import thread


def _seconds(statement: str) -> float:
    code = f"import time\nstart = time.process_time()\n{statement}\nprint(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _import_ratio(statement: str) -> float:
    """CPU of an import over that of LangGraph's graphs; the fastest of three each."""
    ours, theirs = (min(_seconds(s) for _ in range(3)) for s in (statement, "from langgraph.graph import StateGraph"))
    print(f"\n{statement} over import StateGraph: {ours / theirs:.3f}")
    return ours / theirs


def test_importing_the_package_costs_at_most_as_much_as_importing_langgraph() -> None:
    assert _import_ratio("import icrl_graph") <= 1.1


def test_loading_the_graphs_costs_little_more_than_langgraph_itself() -> None:
    assert _import_ratio("from icrl_graph import create_icrl") <= 1.5


def _stored_kilobytes_a_round(rounds: int) -> float:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    graph = create_icrl(ScriptedModel(lambda: "r" * 2000), lambda: 0.5, rounds=rounds)
    compiled: Any = graph.compile(checkpointer=SqliteSaver(connection))
    compiled.invoke({"task": "t" * 6000}, thread(), durability="sync")
    total = 0
    for table in ("checkpoints", "writes"):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        lengths = " + ".join(f"coalesce(sum(length({column})), 0)" for column in columns)
        total += connection.execute(f"SELECT {lengths} FROM {table}").fetchone()[0]
    connection.close()
    return total / rounds / 1000


def test_checkpoints_stay_small_however_long_the_run() -> None:
    """2 KB responses, a 6 KB task, three nodes a round, SQLite, every superstep durable."""
    short, long = _stored_kilobytes_a_round(50), _stored_kilobytes_a_round(200)
    print(
        f"\ncheckpoint KB a round: {short:.1f} at 50 rounds, {long:.1f} at 200 (goal <= 12), ratio {long / short:.2f}"
    )
    assert long <= 12
    assert long <= 1.4 * short
