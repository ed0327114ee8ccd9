"""Means over tasks, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from typing_extensions import TypedDict


class Interval(TypedDict):
    """A mean over tasks with its 95 % interval (normal approximation, 1.96 standard errors)."""

    mean: float
    low: float
    high: float


def interval(values: Any, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Mean and 95 % interval of what is scored among the values.

    Args:
        values: one per task; NaN where a task is unscored.
        bounds: what a value can lie between; the interval ends there.

    Raises:
        ValueError: none is scored.
    """
    scored = np.asarray(values, dtype=float)
    scored = scored[~np.isnan(scored)]
    if not len(scored):
        raise ValueError("there is no mean: not one of the tasks is scored")
    mean = float(scored.mean())
    half = 1.96 * float(scored.std(ddof=1)) / math.sqrt(len(scored)) if len(scored) > 1 else math.inf
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Interval(mean=round(mean, 4), low=round(low, 4), high=round(high, 4))


def half_width(found: Interval) -> float:
    """Half of an interval, to be written behind a ±."""
    return (found["high"] - found["low"]) / 2
