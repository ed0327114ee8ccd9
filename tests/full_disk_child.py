"""A run on a disk that is full once a file has so many bytes; started by test_storms.py.

Its arguments: the run's folder, that number, and whether the disk is so "already" or from the first call on.
"""

import json
import resource
import sys
from pathlib import Path
from random import Random
from typing import Any

from icrl_graph import improve


def fill(limit: int) -> None:
    """Let no file grow beyond this many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def play(folder: Path, limit: int | None = None) -> Any:
    """Run it, or go on; gives what it came to."""

    def model(rng: Random) -> str:
        if limit is not None:
            fill(limit)
        with open(folder / "paid.log", "a") as log:
            log.write("x")
        return "r" * 2000 + str(rng.random())

    result = improve("t", lambda: 0.5, model=model, rounds=30, seed=0, path=folder / "run.sqlite")
    return [result.usage["calls"], [episode["response"] for episode in result.episodes]]


if __name__ == "__main__":
    limit = int(sys.argv[2])
    if "already" in sys.argv:
        fill(limit)
    print(json.dumps(play(Path(sys.argv[1]), limit)))
