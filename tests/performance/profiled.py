"""Where the CPU of a round goes: its shares by library, in a set-up of `tests.performance.loops`; prints them as JSON.

    python -m tests.performance.profiled SET_UP TASKS ROUNDS BASE_URL

The stack is looked at every millisecond of CPU time, and counts for the innermost library that is known: what Python's
own modules do is done for their caller. A profiler that follows each call would charge small functions too much.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from icrl_graph.benchmarks.scheduler import seldom_collecting
from tests.performance.loops import SET_UPS

LIBRARIES = {
    "icrl_graph": "icrl_graph",
    "langgraph": "LangGraph",
    "langchain_core": "LangChain",
    "langchain_openai": "LangChain",
    "openai": "the openai SDK",
    "httpx2": "HTTP",
    "httpcore2": "HTTP",
    "aiohttp": "HTTP",
    "yarl": "HTTP",
    "asyncio": "the event loop",
    "selectors": "the event loop",
}
"""By the folder or module that a file lies in: what its time counts as."""
EVERY = 0.001
"""Seconds of CPU time from one look to the next."""


def library(file: str) -> str | None:
    """What a file's time counts as; None of one that works for its caller."""
    parts = file.rpartition("/site-packages/")[2].removesuffix(".py").split("/")
    return next((LIBRARIES[part] for part in reversed(parts) if part in LIBRARIES), None)


@contextmanager
def looking(seen: Counter[str]) -> Iterator[None]:
    """Count within the block, by library, how often it is at work."""

    def look(number: int, frame: FrameType | None) -> None:
        while frame is not None and library(frame.f_code.co_filename) is None:
            frame = frame.f_back
        seen[(frame and library(frame.f_code.co_filename)) or "other"] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(set_up: str, tasks: int, rounds: int, base_url: str) -> None:
    """Play, and print the share of each library."""
    seen = Counter[str]()

    async def measured(folder: Path) -> None:
        play = SET_UPS[set_up](base_url, rounds, folder)
        await play(-1)  # connections and imports are not what is measured
        with looking(seen):
            await asyncio.gather(*map(play, range(tasks)))

    with tempfile.TemporaryDirectory() as folder, seldom_collecting():
        asyncio.run(measured(Path(folder)))
    print(json.dumps({name: count / seen.total() for name, count in seen.most_common()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
