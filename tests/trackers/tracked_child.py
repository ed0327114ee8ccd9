"""Eight runs at once under a tracker, in a process of their own: some trackers read where to write only once.

`python -m tests.trackers.tracked_child wandb:mine`
"""

import asyncio
import sys
from contextlib import closing
from typing import Any

from icrl_graph import aimprove
from icrl_graph.integrations.tracking import track


async def play(number: int, tracker: Any) -> None:
    """A run whose attempts all earn a tenth of its number; those of run 3 have no score."""

    def score(response: str) -> float | None:
        return None if number == 3 else number / 10

    options: Any = {"rounds": 3, "max_evaluator_failures": 0, "watch": tracker, "thread_id": f"run {number}"}
    await aimprove(f"task {number}", score, model=lambda: "abc", **options)


async def main() -> None:
    """Play them all."""
    with closing(track(sys.argv[1], {"note": "mine"})) as tracker:
        await asyncio.gather(*(play(number, tracker) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main())
