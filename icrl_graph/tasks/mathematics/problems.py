"""Problems of this package's own, to try out; those of competitions are read from their publishers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icrl_graph.prompts.templates import MATHEMATICS_TASK, fill

PROBLEMS: Mapping[str, tuple[str, str]] = {
    "divisible": ("How many integers from 1 to 1000 are divisible by 7, but not by 5?", "114"),
    "power": ("What is the remainder when 7^{2026} is divided by 1000?", "649"),
    "letters": ("How many sequences of eight letters, each A or B, have no two letters B next to each other?", "55"),
    "dice": (
        "A fair die is thrown three times. The probability that each number is larger than the one before is m/n in "
        "lowest terms. What is m + n?",
        "59",
    ),
    "squares": ("How many positive divisors of 10! are squares of integers?", "30"),
    "remainders": (
        "What is the smallest positive integer that leaves the remainder 2 when it is divided by 5, 3 when it is "
        "divided by 7, and 4 when it is divided by 9?",
        "157",
    ),
    "digits": ("What is the sum of the decimal digits of 2^{100}?", "115"),
    "powers": ("The number x satisfies x + 1/x = 3. What is x^5 + 1/x^5?", "123"),
    "rooks": (
        "In how many ways can four rooks be placed on a board of 4 x 4 squares so that no two attack each other and "
        "none stands on the main diagonal?",
        "9",
    ),
    "triangle": (
        "A triangle has sides of the lengths 13, 14 and 15. What is the product of the radii of its inscribed and its "
        "circumscribed circle?",
        r"\frac{65}{2}",
    ),
    "box": ("How long is the diagonal of a box with edges of the lengths 2, 4 and 6?", r"2\sqrt{14}"),
    "root": ("What is the positive solution of x^2 = 6x + 2?", r"3+\sqrt{11}"),
}
"""By name, the text and the right answer."""


def task(problem: str, target: Any) -> dict[str, Any]:
    """The input of a graph for a problem.

    Args:
        problem: its text.
        target: the right answer, or a list of several.
    """
    return {"task": fill(MATHEMATICS_TASK, problem=problem), "task_data": {"target": target}}


def read_item(text: str) -> dict[str, Any]:
    """The input of a graph for a problem of this package.

    Raises:
        ValueError: there is none of that name.
    """
    if text not in PROBLEMS:
        raise ValueError(f"there is no problem {text!r}; choose one of {', '.join(PROBLEMS)}")
    return task(*PROBLEMS[text])
