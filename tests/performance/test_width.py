"""How long wide rounds take: wall time over that of one attempt a round, at equal calls."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl_graph import aimprove, improve
from tests.performance.lab import FULL, record, slow_model

LATENCY, CALLS, GOAL = 0.2, 16 if FULL else 8, 0.55


def test_two_attempts_a_round_take_half_the_time(tmp_path: Path) -> None:
    common: Any = {"model": slow_model(LATENCY), "score": lambda: 0.5}
    ways: dict[str, Callable[..., Any]] = {
        "improve": improve,
        "aimprove": lambda *task, **options: asyncio.run(aimprove(*task, **options)),
    }
    for way, play in ways.items():
        took = {}
        for width in (1, 2):
            start = time.perf_counter()
            path = tmp_path / f"{way} {width}.sqlite"
            play("t" * 2000, **common, width=width, rounds=CALLS // width, path=path)
            took[width] = time.perf_counter() - start
        ratio = took[2] / took[1]
        what = f"wall time at 200 ms of two attempts a round over one, {CALLS} calls each, SQLite and journal, {way}"
        record(what, f"<= {GOAL}x", f"{ratio:.3f}x", ratio <= GOAL)
        assert ratio < 1
