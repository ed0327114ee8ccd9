"""What the performance tests share: a model server in a process of its own, children that are measured, and a table.

Every figure is a ratio of two that were measured in one run, or a count; so the machine matters little. What
`make perf` measures goes into the table of docs/performance.md. Where a goal is missed, the table says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from tests.performance.table import PAGE, ends, has_fallen_behind

ROOT = Path(__file__).parents[2]
FULL = bool(os.environ.get("ICRL_PERF"))
"""Whether `make perf` runs: everything, at full size. Else what takes seconds."""
full_only = pytest.mark.skipif(not FULL, reason="takes minutes: make perf")


def record(what: str, goal: str, measured: str, met: bool) -> None:
    """Print a line of the table (see `tests.performance.table`).

    A short form fails where its ratio has fallen behind the row of the same name. So a name says the sizes that differ
    between the two forms.
    """
    print(f"\nPERF | {what} | {goal} | {measured}{'' if met else ' (**missed**)'}")
    recorded = {} if FULL else ends(PAGE.read_text(encoding="utf-8"))
    if what in recorded:
        assert not has_fallen_behind(what, goal, measured, *recorded[what]), (
            f"{what}: {measured}, recorded {recorded[what]}"
        )


def slow_model(latency: float) -> RunnableLambda[Any, str]:
    """A model that answers 2000 characters after so many seconds, sync and async."""

    def answer(messages: Any) -> str:
        time.sleep(latency)
        return "r" * 2000

    async def aanswer(messages: Any) -> str:
        await asyncio.sleep(latency)
        return "r" * 2000

    return RunnableLambda(answer, afunc=aanswer)


_SERVE = """
import json, sys
from icrl_graph.testing import OpenAIServer
with OpenAIServer(lambda: sys.argv[2], latency=float(sys.argv[1])) as server:
    print(server.base_url, flush=True)
    for line in sys.stdin:
        print(json.dumps(server.counts), flush=True)
"""


class Server:
    """A model server in another process, so that its work is not counted.

    Args:
        process: that process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.base_url = self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def counts(self) -> dict[str, int]:
        """Calls, connections and answers so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counted: dict[str, int] = json.loads(self._read())
        return counted


@contextmanager
def serving(latency: float = 0.0, says: str = "r" * 500) -> Iterator[Server]:
    """A model server.

    Args:
        latency: seconds before each answer.
        says: what it answers.
    """
    command = [sys.executable, "-c", _SERVE, str(latency), says]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def child(module: str, *args: Any) -> dict[str, Any]:
    """What a module of this folder prints, run in a process of its own."""
    command = [sys.executable, "-m", f"tests.performance.{module}", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
