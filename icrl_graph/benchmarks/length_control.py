"""Win rates without the part that is owed to length (Y. Dubois et al., arXiv 2404.04475).

Judges prefer longer answers. The chance that an answer wins is modelled as logistic in a constant and in how much
longer the answer is:

    logit P(win) = theta + phi tanh(d / sd(d))

where d is its length less that of the other answer, in characters, as in AlpacaEval 2. The length-controlled win rate
is 1 / (1 + exp(-theta)): that of answers as long as the others. This is the minimal form: there is no term for the
difficulty of each instruction, which the paper takes from many models on its own 805 instructions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from icrl_graph.benchmarks.statistics import Array, Estimate, Z, checked, of_scipy, rounded, task_means

WEIGHT = 5.0
"""Standard deviation of the normal prior of phi: weak, so that phi stays finite where every longer answer wins."""
FARTHEST = 20.0
"""The largest theta, on either side, that is looked at: a win rate of 2e-9 less than 1."""


def length_controlled(wins: Any, lengths: Any) -> Estimate:
    """The win rate of answers as long as those that they are compared with, with its 95 % interval.

    The interval holds each theta that a score test does not reject, phi being fitted to each: Wilson's interval where
    all lengths are alike, and as there on the effective number of tasks, where ties or seeds make wins surer than
    marks. Tasks are the clusters; the seeds of a task are averaged. It is wide where lengths and wins can hardly be
    told apart.

    Args:
        wins: shape (tasks, seeds), in [0, 1]: 1 where the answer is better, 0 where the other is; NaN is unscored.
        lengths: the same shape: how much longer the answer is than the other.

    Returns:
        No mean and no interval where all answers are longer by the same number of characters: nothing then tells
        length from quality.

    Raises:
        ValueError: the shapes are not (tasks, seeds) and the same, a win is outside [0, 1], or a length is not finite.
        MissingExtra: SciPy is not installed.
    """
    won, longer = checked(wins, 2, True), checked(lengths, 2, False)
    if won.shape != longer.shape or np.isnan(longer).any():
        raise ValueError(f"there must be a finite length for each win, got the shapes {won.shape} and {longer.shape}")
    scored = ~np.isnan(won)
    tasks, unscored = int(scored.any(axis=1).sum()), int((~scored).sum())
    apart = longer[scored]
    spread = float(apart.std(ddof=1)) if len(apart) > 1 else 0.0
    if not len(apart) or (spread == 0 and apart[0] != 0):
        return Estimate(mean=None, low=None, high=None, tasks=tasks, unscored=unscored)
    means = [task_means(np.where(scored, each, np.nan)) for each in (won, np.tanh(longer / (spread or 1.0)))]
    keep = ~np.isnan(means[0])
    mean, low, high = _solve(means[0][keep], means[1][keep])
    return Estimate(mean=rounded(mean), low=rounded(low), high=rounded(high), tasks=tasks, unscored=unscored)


def _solve(won: Array, longer: Array) -> tuple[float, float | None, float | None]:
    """The rate and the ends of its interval; won and longer have one number for each task."""
    theta = _root(lambda at: _score(at, won, longer)[0])
    if len(won) < 2:
        return _logistic(theta), None, None
    surer = _surer(theta, won, longer)

    def test(at: float) -> float:
        score, information = _score(at, won, longer)
        return float(score * math.sqrt(surer / information))

    low, high = (_root(lambda at, end=end: test(at) - end) for end in (Z, -Z))  # type: ignore[misc]
    return _logistic(theta), _logistic(low), _logistic(high)


def _score(theta: float, won: Array, longer: Array) -> tuple[float, float]:
    """The score of theta, with phi fitted to it, and its information that is left after that."""
    chance = _chances(theta, won, longer)
    weights = chance * (1 - chance)
    crossed, own = float(weights @ longer), float(weights @ longer**2) + WEIGHT**-2
    return float((won - chance).sum()), max(float(weights.sum()) - crossed**2 / own, 1e-300)


def _chances(theta: float, won: Array, longer: Array) -> Array:
    """Of each answer to win, with theta given and phi fitted to it."""

    def slope(phi: float) -> float:
        return float((won - _logistic(theta + phi * longer)) @ longer) - phi / WEIGHT**2

    most = float(np.abs(longer).sum()) * WEIGHT**2
    phi = of_scipy("optimize").brentq(slope, -most, most) if most else 0.0
    return np.asarray(_logistic(theta + phi * longer))


def _surer(theta: float, won: Array, longer: Array) -> float:
    """How many times more a task tells than a mark would, from 1: as for Wilson's interval in `estimate`."""
    chance, count = _chances(theta, won, longer), len(won)
    of_marks = float((chance * (1 - chance)).sum())
    free = count - (2 if longer.any() else 1)
    if of_marks < 1e-6 or free < 1:
        return 1.0
    share = (1 - float((won * (1 - won)).sum()) / of_marks) * count / free
    shrink = (Z / float(of_scipy("stats").t.isf(0.025, free))) ** 2
    return max(1.0, shrink / share) if share > 1e-9 else 1.0


def _root(falling: Callable[[float], float]) -> float:
    """Where a function that falls is 0, as far as it is looked at."""
    if falling(-FARTHEST) <= 0:
        return -FARTHEST
    if falling(FARTHEST) >= 0:
        return FARTHEST
    return float(of_scipy("optimize").brentq(falling, -FARTHEST, FARTHEST))


def _logistic(value: Any) -> Any:
    return np.exp(-np.logaddexp(0, -value))
