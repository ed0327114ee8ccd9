"""Who plays in the tests of comparisons: a player for a server, and a model that logs paid calls and kills its process.

`icrl bench --model tests/bench_child.py:model` is a process that dies of SIGKILL at the call that BENCH_KILL_AT says.
"""

import json
import os
import re
import signal
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row, read_results
from icrl_graph.prompts.templates import CRITIQUE, REFLECT
from tests.helpers import without_cost

METHODS = ["icrl", "reflexion", "self_refine", "best_of_n", "best_of_n+n=1+schedule=cot"]
_calls, _lock = count(1), Lock()


def player(messages: list[dict[str, Any]], rng: Random) -> str:
    """Answers whatever a comparison asks, as its prompt and its seed make it."""
    prompt = "\n\n".join(str(message["content"]) for message in messages)
    rng = Random(f"{prompt}{rng.random()}")
    if prompt.startswith("Judge the answer"):
        return json.dumps({"reasons": "Read it.", "score": rng.randint(1, 10)})
    if REFLECT in messages[-1]["content"] or CRITIQUE in messages[-1]["content"]:
        return f"Be more like {rng.randint(1, 99)}."
    if found := re.search(r"each of the numbers (\d+) (\d+) (\d+) (\d+)", prompt):
        numbers = rng.sample(found.groups(), 4)
        return "Answer: " + "".join(f"{rng.choice('+-*')} {number} " for number in numbers)[2:]
    endings = re.findall(r"^\d\. (.*)$", prompt, re.M)
    return "\n\n".join(f"Words {rng.randint(1, 99)}. {rng.choice([ending, 'And so on.'])}" for ending in endings)


def model(messages: list[dict[str, Any]], rng: Random) -> str:
    """The player; logs that it was paid, and kills its process at the call of BENCH_KILL_AT."""
    with _lock:
        with Path(os.environ["BENCH_LOG"]).open("a") as log:
            log.write("paid\n")
        if next(_calls) == int(os.environ.get("BENCH_KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
    return player(messages, Random(f"{messages}{rng.random()}"))


def rows_of(folder: Path) -> dict[Cell, Row]:
    """What a folder holds."""
    return read_results(folder).rows


def outcome(folder: Path) -> Any:
    """What its runs came to, apart from what they cost."""
    return {
        cell: {**row, "usage": row["usage"].get("calls"), "episodes": without_cost(row.get("episodes", []))}
        for cell, row in rows_of(folder).items()
    }


def calls_in(rows: Any) -> int:
    """What the runs count as paid."""
    return sum(row["usage"].get("calls", 0) for row in rows.values())


def plan_of(*arms: str, **fields: Any) -> Plan:
    """A small comparison on a server whose address stands in the environment."""
    small: Any = {"benchmark": "game24", "model": "openai:policy", "limit": 2, "rounds": 3, "concurrency": 4, **fields}
    return Plan(arms=arms, **small)


def score(response: str) -> float:
    """A reward that any change of a response changes."""
    return int(sha256(response.encode()).hexdigest()[:6], 16) / 16**6
