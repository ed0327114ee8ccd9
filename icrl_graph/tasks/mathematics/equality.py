"""Whether two formulas are equal, by Math-Verify and SymPy. Only a worker process imports this module.

A formula may be one that no machine can work out, such as a tower of powers: the worker has limits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from math_verify import parse, verify

from icrl_graph.state.reward import Reward

DIGITS = 12
"""Decimals in which numbers must agree that are not known exactly; by default Math-Verify compares 6."""
logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no time limit of its own


def equal(answer: str, task_data: Mapping[str, Any]) -> Reward:
    """Whether an answer equals task_data["target"]: the value is 1 or 0.

    Raises:
        ValueError: the target can't be read as a formula.
    """
    target = _formula(task_data["target"])
    if target is None:
        raise ValueError(f"the formula {task_data['target']!r:.200} can't be read")
    found = _formula(answer)
    if found is None:
        return Reward(value=0.0, feedback="The answer can't be read as a formula.")
    return Reward(value=float(verify(target, found, float_rounding=DIGITS, timeout_seconds=None)))


def _formula(text: str) -> Any:
    """A formula, also as it is written; None if it can't be read."""
    read = parse(f"${text}$", parsing_timeout=None)
    return read if any(not isinstance(each, str) for each in read) else None


verify(parse("$x^2$", parsing_timeout=None), parse("$x$", parsing_timeout=None), timeout_seconds=None)  # loads the rest
