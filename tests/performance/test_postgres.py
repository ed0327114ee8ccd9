"""What a run takes of a PostgreSQL database until its row is written, and of the process that plays it."""

import asyncio
import time
from collections.abc import Callable

import psycopg

from icrl_graph.api import aplay, check_inputs
from icrl_graph.execution.run_file import postgres_saver
from icrl_graph.topologies.methods import build
from tests.performance.lab import FULL, record, slow_model

RUNS, ROUNDS = (200 if FULL else 20), 8


def _score(response: str) -> float:
    return len(response) % 7 / 7


def test_what_a_run_takes_of_postgresql(databases: Callable[[], str]) -> None:
    address = databases()
    graph = build("icrl", slow_model(0.2), _score, rounds=ROUNDS)

    async def play_all() -> float:
        async with postgres_saver(address) as saver:

            async def run(name: str) -> None:
                async with saver.driving(name):
                    await aplay(graph, check_inputs(f"Task {name}", None), saver, name)

            await run("warm")
            began = time.process_time()
            await asyncio.gather(*(run(f"run-{number}") for number in range(RUNS)))
            return time.process_time() - began

    cpu = asyncio.run(play_all())
    with psycopg.connect(address) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        rows = sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)  # type: ignore[index]
        size = sum(connection.execute("SELECT pg_total_relation_size(%s)", [n]).fetchone()[0] for n in tables)  # type: ignore[index]
    figures = f"{rows / (RUNS + 1):.0f} rows, {size / (RUNS + 1) / 1000:.0f} KB"
    record(f"of PostgreSQL by a run of {ROUNDS} rounds of 2 KB, until its row is written", "stated", figures, True)
    rate = RUNS * ROUNDS / cpu
    record(
        "rounds a second and core, PostgreSQL and journal, the database's own CPU apart", "stated", f"{rate:.0f}", True
    )
    assert rows / (RUNS + 1) <= 120
