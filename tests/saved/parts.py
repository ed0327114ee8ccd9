"""The models, evaluator and judge of the saved runs, which name them as `tests.saved.parts:NAME`."""

import hashlib
import json
import os
from itertools import count
from random import Random
from typing import Any

KILL_AT = "ICRL_KILL_AT"
"""Environment variable: with "answer:4" the process dies when a model is asked for the fourth time."""
_asked = {"answer": count(1), "judge": count(1)}


def _ask(who: str) -> None:
    at = next(_asked[who])
    if os.environ.get(KILL_AT) == f"{who}:{at}":
        os._exit(9)


def _digest(messages: Any) -> int:
    return int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:6], 16)


def answer(messages: list[dict[str, Any]]) -> str:
    """A number that any change of the prompt changes."""
    _ask("answer")
    return str(_digest(messages) % 100)


def color(messages: list[dict[str, Any]], rng: Random) -> str:
    """A color made of the prompt and the call's seed."""
    _ask("answer")
    return f"#{rng.getrandbits(12) ^ (_digest(messages) & 0xFFF):03x}"


def judge(messages: list[dict[str, Any]]) -> str:
    """A score, or every third time no verdict; so a judgement may take two calls."""
    _ask("judge")
    number = _digest(messages)
    return "Hm." if number % 3 == 0 else f"Score: {number % 10 + 1}"


def nearness(response: str) -> float:
    """1 for 42, less the farther away."""
    return 1 - abs(int(response) - 42) / 100
