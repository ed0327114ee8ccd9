"""How long one task takes beside waiting for its model: wall time over that of the bare waiting."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl_graph import aimprove, create_icrl, improve
from tests.performance.lab import FULL, record, slow_model

LATENCY, ROUNDS = 0.2, 20 if FULL else 5


def _score() -> float:
    return 0.5


async def _ascore() -> float:
    return 0.5


def test_a_task_takes_hardly_longer_than_its_model(tmp_path: Path) -> None:
    model = slow_model(LATENCY)
    graph: Any = create_icrl(model, _ascore, rounds=ROUNDS).compile()
    blocking: Any = create_icrl(model, _score, rounds=ROUNDS).compile()
    task: Any = {"task": "t" * 2000}

    def kept(name: str) -> dict[str, Any]:
        return {"model": model, "rounds": ROUNDS, "path": tmp_path / f"{name}.sqlite"}

    ways: dict[str, tuple[float, Callable[[str], Any]]] = {
        "no saver, invoke": (1.03, lambda name: blocking.invoke(task)),
        "no saver, ainvoke": (1.03, lambda name: asyncio.run(graph.ainvoke(task))),
        "SQLite and journal, improve": (1.03, lambda name: improve("t" * 2000, _score, **kept(name))),
        "SQLite and journal, aimprove": (1.03, lambda name: asyncio.run(aimprove("t" * 2000, _ascore, **kept(name)))),
    }
    for way, (goal, play) in ways.items():
        took = []
        for attempt in range(3 if FULL else 1):
            start = time.perf_counter()
            play(f"{way} {attempt}")
            took.append(time.perf_counter() - start)
        ratio = min(took) / (ROUNDS * LATENCY)
        what = f"wall time of a task of {ROUNDS} rounds at 200 ms over the ideal, {way}"
        record(what, f"<= {goal}x", f"{ratio:.3f}x", ratio <= goal)
        assert ratio <= 1.5
