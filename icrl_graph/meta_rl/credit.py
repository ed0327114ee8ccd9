"""Credit for the episodes of a trial: from the returns of all episodes to the advantage of each.

A trial is several episodes of one hidden instance. What an episode is worth is not what it earned alone: one that found
out where the prize is has earned what later episodes get. A credit says how the returns r of a trial's episodes count
for episode e; the advantage is what that is above the mean of the group, the trials of the same instance:

    A[i, e] = (c[i, e] - mean over i of c[i, e]) / scale

All of it is numpy, on arrays of (rollouts, episodes) in which NaN stands for an episode that was not played.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from icrl_graph.state.choices import SHARE, Number, Numbered, choices, find, pick

Array = NDArray[np.float64]
Credit = Callable[[Array], Array]
"""The returns of a group, (rollouts, episodes) -> what each episode is credited with; one column where all those
of a trial are credited alike."""

EPSILON = 1e-6
"""Added to the standard deviation that advantages are divided by; a group whose credits differ by less has none."""


def total(returns: Array) -> Array:
    """All that the trial earned, for each of its episodes: c[e] = sum of r. ORBIT (arXiv 2602.04089)."""
    return np.asarray(np.nansum(returns, axis=1, keepdims=True))


def discounted(gamma: float) -> Credit:
    """What the episode and those after it earned: c[e] = sum over k >= e of gamma^(k-e) r[k]. LaMer (arXiv 2512.16848).

    LaMer takes gamma from .6 to .9 and subtracts the mean alone (`scale="mean"`).
    """

    def credit(returns: Array) -> Array:
        episodes = np.arange(returns.shape[1])
        later = episodes[:, None] - episodes
        return np.nan_to_num(returns) @ np.where(later >= 0, gamma ** np.maximum(later, 0), 0.0)

    return credit


def leave_one_out(returns: Array) -> Array:
    """What the episode and those after it earned above the other rollouts. MR-Search (arXiv 2603.11327).

    c[i, e] = sum over k >= e of (r[i, k] - mean over j != i of r[j, k]). Its mean over the group is 0 already.
    """
    others = np.maximum((~np.isnan(returns)).sum(axis=0) - 1, 1)
    return discounted(1.0)(returns - (np.nansum(returns, axis=0) - returns) / others)


def difference(gamma: float = 0.6) -> Credit:
    """What the trial improved from the episode on, discounted. MAGE (arXiv 2603.03680), whose gamma is .6.

    c[e] = sum over k >= e of gamma^(k-e) (r[k] - r[k-1]), with r[-1] = 0; at gamma = 1 that is the last return less the
    one before the episode.
    """
    return lambda returns: discounted(gamma)(np.diff(returns, axis=1, prepend=0.0))


def final(returns: Array) -> Array:
    """What the last episode earned, for each episode: c[e] = r[last]. The objective of MAGE (arXiv 2603.03680)."""
    last = returns.shape[1] - 1 - np.argmax(~np.isnan(returns)[:, ::-1], axis=1)
    return np.take_along_axis(returns, last[:, None], axis=1)


def own(returns: Array) -> Array:
    """What the episode itself earned: c[e] = r[e]. The control: no credit across episodes."""
    return returns


_GAMMA = Number("GAMMA", SHARE.pattern, float, "GAMMA from 0 to 1")
_NAMED: Mapping[str, Credit] = {
    "sum": total,
    "leave_one_out": leave_one_out,
    "difference": difference(),
    "final": final,
    "own": own,
}
_NUMBERED: Numbered[Credit] = {"discounted": (discounted, _GAMMA), "difference": (difference, _GAMMA)}
CREDITS = choices(_NAMED, _NUMBERED)


def find_credit(spec: str | Credit) -> Credit:
    """The credit of a name, such as "sum" or "discounted:0.9"; or a custom one.

    Raises:
        ValueError: there is none of that name, or its number is out of range; names the choices.
    """
    return find("credit", spec, _NAMED, _NUMBERED)


class Advantages(NamedTuple):
    """What each episode of each trial is to be reinforced by."""

    values: Array
    """(rollouts, episodes); NaN for an episode that was not played, 0 throughout a group that was dropped."""
    kept: NDArray[np.bool_]
    """(rollouts,): whether the rollout's group has variance, so that there is something to learn from it."""
    dropped: int
    """Groups without variance."""


def advantages(
    returns: Sequence[Sequence[float]] | Array,
    instances: Sequence[Hashable],
    credit: str | Credit = "sum",
    scale: str = "std",
    *,
    group_size: int | None = None,
) -> Advantages:
    """The advantages of trials, each within its group.

    Args:
        returns: of the episodes of each trial; shorter ones had fewer episodes, as had those with NaN at the end.
        instances: what each trial was played on, such as (family, split, seed, parameters).
        credit: how returns count for an episode (`CREDITS`).
        scale: "std" divides by the standard deviation of the group (GRPO, arXiv 2402.03300); "mean" only subtracts its
            mean (as in Dr. GRPO, arXiv 2503.20783).
        group_size: that many trials after another are a group. By default all trials of an instance are one.

    Raises:
        ValueError: an unknown name, a return that is not a number, a group of several instances, or not one instance
            for each trial.
    """
    count, by_std = find_credit(credit), pick("scale", scale, {"std": True, "mean": False})
    table = _table(returns)
    values, kept, dropped = np.zeros_like(table), np.zeros(len(table), dtype=bool), 0
    for rows in _groups(instances, len(table), group_size):
        values[rows], has_variance = _of_group(table[rows], count, by_std)
        kept[rows] = has_variance
        dropped += not has_variance
    return Advantages(values, kept, dropped)


def _table(returns: Sequence[Sequence[float]] | Array) -> Array:
    """The returns as an array, shorter trials filled up with NaN."""
    table = np.full((len(returns), max(map(len, returns), default=0)), np.nan)
    for row, trial in zip(table, returns, strict=True):
        row[: len(trial)] = trial
    if np.isinf(table).any():
        raise ValueError(
            "the return of an episode is a number, or NaN for one that was not played, got an infinite one"
        )
    return table


def _groups(instances: Sequence[Hashable], count: int, size: int | None) -> list[list[int]]:
    """The rows of each group."""
    if len(instances) != count:
        raise ValueError(f"each of the {count} trials needs its instance, got {len(instances)}")
    if size is None:
        groups: dict[Hashable, list[int]] = {}
        for row, instance in enumerate(instances):
            groups.setdefault(instance, []).append(row)
        return [*groups.values()]
    if size < 2 or count % size:
        raise ValueError(f"group_size must be 2 or more and divide the number of trials, {count}, got {size!r}")
    blocks = [[*range(first, first + size)] for first in range(0, count, size)]
    for block in blocks:
        if len(mixed := dict.fromkeys(instances[row] for row in block)) > 1:
            raise ValueError(f"trials {block[0]} to {block[-1]} are a group of several instances: {[*mixed]!r:.200}")
    return blocks


def _of_group(returns: Array, credit: Credit, by_std: bool) -> tuple[Array, bool]:
    """The advantages of a group, and whether it has variance."""
    played = ~np.isnan(returns)
    if not played.any():
        return returns, False
    credits = np.asarray(credit(returns), dtype=float)
    if credits.shape not in ((len(returns), 1), returns.shape):
        raise ValueError(f"a credit of {returns.shape} returns is of that shape or one column, got {credits.shape}")
    counted = played if credits.shape == returns.shape else played.any(axis=1, keepdims=True)
    size = np.maximum(counted.sum(axis=0), 1)
    centred = np.where(counted, credits, 0.0)
    centred = np.where(counted, credits - centred.sum(axis=0) / size, 0.0)
    if not np.abs(centred).max(initial=0.0) > EPSILON:
        return np.where(played, 0.0, np.nan), False
    scaled = centred / (np.sqrt((centred**2).sum(axis=0) / size) + EPSILON) if by_std else centred
    return np.where(played, scaled, np.nan), True
