"""Rewards: a number, or none, and what is known beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

from typing_extensions import TypedDict


class Reward(TypedDict, total=False):
    """What an evaluator gives."""

    value: float | None
    """What the method optimises and, unless an ablation hides it, what the model sees. None: unscored."""
    metric: float | None
    """What is reported. Where absent, the value is. Never shown to a model, never steers a run."""
    feedback: str
    """Words for the model, shown beside the number."""
    steps: list[float | None]
    """One number per step of the response, shown beside the total."""
    spread: float | None
    """Standard deviation, where the value is a mean of several judgements. Never shown to a model."""
    error: str
    """Why it is unscored, or its metric missing, for the developer; never shown to a model."""


def unscored(error: str) -> Reward:
    """The reward of an attempt that could not be judged."""
    return Reward(value=None, error=error)


def as_reward(value: Any, bounds: tuple[float, float] | None = None) -> Reward:
    """Check what an evaluator returned.

    Args:
        value: a number, a `Reward`, or None.
        bounds: the lowest and highest value that make sense; outside is unscored.

    Returns:
        A `Reward` with plain numbers only; unscored, with the reason, if the value is not finite or out of bounds.
    """
    reward = dict(value) if isinstance(value, Mapping) else {"value": value}
    unknown = set(reward) - Reward.__annotations__.keys()
    if unknown or "value" not in reward:
        return unscored(f"a reward has the keys {sorted(Reward.__annotations__)}, got {sorted(reward)}")
    try:
        out = Reward(value=_number(reward["value"], bounds))
        if "metric" in reward:
            out["metric"] = _number(reward["metric"], None)
        if "spread" in reward:
            out["spread"] = _number(reward["spread"], None)
        if reward.get("steps") is not None:
            out["steps"] = [_number(step, None) for step in reward["steps"]]
    except (TypeError, ValueError, OverflowError) as problem:
        return unscored(str(problem))
    for key in ("feedback", "error"):
        if reward.get(key):
            out[key] = str(reward[key])
    return out


def _number(value: Any, bounds: tuple[float, float] | None) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real | Decimal) and not (hasattr(value, "item") and isinstance(value.item(), Real)):
        raise TypeError(f"a reward must be a number, got {value!r:.80}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a reward must be finite, got {number}")
    if bounds and not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"the reward {number:g} is outside the declared range {bounds[0]:g} to {bounds[1]:g}")
    return number
