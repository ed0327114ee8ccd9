"""Benchmarks: tasks with their prompt, their evaluator and their metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from icrl_graph.benchmarks import game24
from icrl_graph.games import hidden_color
from icrl_graph.rewards import Evaluator
from icrl_graph.verifiers.game24 import grade


@dataclass(frozen=True)
class Item:
    """One task of a benchmark."""

    inputs: Mapping[str, Any]
    """What goes into a graph: task and task_data."""
    evaluator: Evaluator
    """The benchmark's own."""


def _game24(text: str) -> Item:
    return Item(game24.task(game24.read_puzzle(text)), grade)


def _hidden_color(text: str) -> Item:
    secret = hidden_color.read_color(text)
    if secret is None:
        raise ValueError(f"a color is written like '#3b9', got {text!r}")
    return Item(hidden_color.task(secret), hidden_color.closeness)


BENCHMARKS: Mapping[str, Callable[[str], Item]] = {"game24": _game24, "hidden-color": _hidden_color}
"""Reads an item: `BENCHMARKS["game24"]("4,5,6,10")`."""


def find_item(text: str) -> Item | None:
    """The item that a text such as "game24:4,5,6,10" names; None if it names no benchmark.

    Raises:
        ValueError: the benchmark has no such item.
    """
    name, colon, rest = text.partition(":")
    return BENCHMARKS[name](rest) if colon and name in BENCHMARKS else None
