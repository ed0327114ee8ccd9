"""Rewards: a number, or none, and what is known beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

from typing_extensions import TypedDict

from icrl_graph.state.checks import is_number
from icrl_graph.state.unicode import cleaned

UNSCORED: Literal["unscored"] = "unscored"
LARGEST = 1e100
"""A reward beyond this, on either side, is none: sums and squares of such numbers are infinite."""
OnError = float | Literal["unscored"]
"""The reward of an attempt on which its evaluator raises."""


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
    """Why it is unscored, is what `on_error` says, or lacks its metric; for the developer, never shown to a model."""


def unscored(error: str) -> Reward:
    """The reward of an attempt that could not be judged."""
    return Reward(value=None, error=cleaned(error))


def data_in(text: str, data: Any, known: str, shortest: int = 1) -> str | None:
    """The first text or number of task data that stands in a text as a word of its own, and is not known already.

    Args:
        text: what a model may see.
        data: the task data, JSON values.
        known: what it has seen, or said itself.
        shortest: characters of what is looked for, at least.
    """
    told = (value for value in _texts(data) if len(value) >= shortest and value in text and value not in known)
    return next((value for value in told if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text)), None)


def _texts(data: Any) -> Iterator[str]:
    """The texts and numbers in JSON values, as text."""
    if isinstance(data, Mapping | list):
        for held in data.values() if isinstance(data, Mapping) else data:
            yield from _texts(held)
    elif data is not None and not isinstance(data, bool) and (text := str(data).strip()):
        yield text


def check_on_error(on_error: Any, bounds: tuple[float, float] | None = None) -> None:
    """Check what is to be the reward of an attempt on which its evaluator raises.

    Args:
        on_error: a number, "unscored", or None for the default.
        bounds: the lowest and the highest reward.

    Raises:
        ValueError: it is neither, not finite, or out of bounds.
    """
    if on_error is None or (isinstance(on_error, str) and on_error == UNSCORED):
        return
    if not (is_number(on_error) and abs(on_error) <= LARGEST):
        raise ValueError(f"on_error is a finite number such as 0, or {UNSCORED!r}, got {on_error!r:.80}")
    if bounds and not bounds[0] <= on_error <= bounds[1]:
        raise ValueError(f"on_error={on_error:g} is outside the declared range {bounds[0]:g} to {bounds[1]:g}")


def check_target(target: float | None, bounds: tuple[float, float] | None) -> None:
    """Raise ValueError if no reward can reach the target of a run."""
    if target is not None and bounds and target > bounds[1]:
        raise ValueError(f"target={target:g} is above the highest reward that counts, bounds={tuple(bounds)}")


_NAMES = {"score": "value", "comment": "feedback"}
"""Of the results of evaluators of LangSmith and openevals, our names."""
_LANGSMITH_ONLY = {
    *("key", "value", "metadata", "correction", "extra"),  # its value is a category, beside the score
    *("evaluator_info", "feedback_config", "source_run_id", "target_run_id"),
}
"""What else such a result may hold."""


def as_reward(value: Any, bounds: tuple[float, float] | None = None) -> Reward:
    """Check what an evaluator returned.

    Args:
        value: a number, a `Reward`, a result of an evaluator of LangSmith or openevals (`{"score": 0.5, "comment":
            "..."}`, or a list of one), or None.
        bounds: the lowest and highest value that make sense; outside is unscored.

    Returns:
        A `Reward` with plain numbers only; unscored, with the reason, if the value is not finite or out of bounds.
    """
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], Real):
        (value,) = value
    if hasattr(value, "model_dump") and hasattr(value, "score"):
        value = {name: held for name, held in value.model_dump().items() if held is not None or name == "score"}
    reward = dict(value) if isinstance(value, Mapping) else {"value": value}
    if "score" in reward:
        reward = {_NAMES.get(key, key): held for key, held in reward.items() if key not in _LANGSMITH_ONLY}
    unknown = set(reward) - Reward.__annotations__.keys()
    if unknown or "value" not in reward:
        names = f"{sorted(Reward.__annotations__)}, or 'score' and 'comment'"
        return unscored(f"a reward has the keys {names}, got {sorted(map(str, reward))}")
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
            out[key] = cleaned(str(reward[key]))
    return out


def _number(value: Any, bounds: tuple[float, float] | None) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real | Decimal) and not (hasattr(value, "item") and isinstance(value.item(), Real)):
        raise TypeError(f"a reward must be a number, got {value!r:.80}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a reward must be finite, got {number}")
    if abs(number) > LARGEST:
        raise ValueError(f"a reward must be from {-LARGEST:g} to {LARGEST:g}, got {number:g}")
    if bounds and not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"the reward {number:g} is outside the declared range {bounds[0]:g} to {bounds[1]:g}")
    return number
