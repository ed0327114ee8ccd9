"""Means over tasks, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from typing_extensions import TypedDict

Z = 1.96
"""Standard errors on either side of a 95 % interval."""


class Interval(TypedDict):
    """A mean over tasks with its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: Any) -> Interval:
    """Mean of what is scored among the values, with 1.96 standard errors on either side (normal approximation).

    Args:
        values: one per task; NaN where a task is unscored.

    Raises:
        ValueError: none is scored.
    """
    scored = _scored(values)
    half = Z * float(scored.std(ddof=1)) / math.sqrt(len(scored)) if len(scored) > 1 else math.inf
    return _rounded(float(scored.mean()), float(scored.mean()), half)


def share_interval(marks: Any) -> Interval:
    """Share of tasks that are marked, with Wilson's score interval (E. B. Wilson, JASA 22, 1927).

    It lies in [0, 1] and stays honest where none or all are marked.

    Args:
        marks: 0 or 1 per task; NaN where a task is unscored.

    Raises:
        ValueError: none is scored.
    """
    scored = _scored(marks)
    count, share = len(scored), float(scored.mean())
    spread = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return _rounded(share, (share + Z**2 / (2 * count)) / (1 + Z**2 / count), spread / (1 + Z**2 / count))


def difference(ones: Any, others: Any) -> Interval:
    """Difference of two shares over the same tasks, with the paired interval of Agresti and Min.

    Half a task is added to each of the four outcomes (Statistics in Medicine 24, 2005), so that a few tasks that all
    agree don't pass for certainty.

    Args:
        ones: 0 or 1 per task.
        others: the same tasks, done otherwise.

    Raises:
        ValueError: there is no task.
    """
    apart = _scored(np.asarray(ones, dtype=float) - np.asarray(others, dtype=float))
    count, gained, lost = len(apart) + 2, float((apart > 0).sum()) + 0.5, float((apart < 0).sum()) + 0.5
    middle = (gained - lost) / count
    half = Z * math.sqrt((gained + lost) / count - middle**2) / math.sqrt(count)
    return _rounded(float(apart.mean()), middle, half)


def half_width(found: Interval) -> float:
    """Half of an interval, to be written behind a ±."""
    return (found["high"] - found["low"]) / 2


def _scored(values: Any) -> Any:
    given = np.asarray(values, dtype=float)
    scored = given[~np.isnan(given)]
    if not len(scored):
        raise ValueError("there is no mean: not one of the tasks is scored")
    return scored


def _rounded(mean: float, middle: float, half: float) -> Interval:
    return Interval(mean=round(mean, 4), low=round(middle - half, 4), high=round(middle + half, 4))
