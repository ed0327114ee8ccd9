"""Rewards, and the functions, tools and Runnables that give them.

A reward is one number, or none: an evaluator that fails, times out, or gives something that is not a finite number in
its declared range leaves the attempt *unscored*. That is a third outcome beside right and wrong. It is never counted
as 0, and the reason is kept.

An evaluator names what it wants to know: a function is called with those of `ASKABLE` that stand in its signature, a
LangChain tool with those of `OFFERED` in its arguments schema. A Runnable gets all of `OFFERED` in one dictionary.

A function or a tool is taken to be free: it is not counted, and done again where its node is. Wrap one that costs money
in a `RunnableLambda`: then it counts as a call, is kept in the journal, and attempts that stand side by side are judged
side by side. An evaluator that needs several paid calls is a generator function: a flow (`icrl_graph.driver.Flow`)
that yields each call, is sent its reply, and returns the reward; see `icrl_graph.judge`. A function or a tool may ask a
person by LangGraph's `interrupt`, and so may a flow that says so by an attribute `asks` (see `icrl_graph.people`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

from typing_extensions import TypedDict

OFFERED = ("task", "response", "answer", "steps", "task_data")
"""What an evaluator may ask for: the task as given (text or messages); the response as text; the answer, which is what
`extract` made of it (or the response again); the steps of a multi-turn episode, or None; the task data."""
ASKABLE = (*OFFERED, "history", "bounds")
"""A function may also ask for the attempts of the rounds before, each with its `response`, `reward` and `feedback`, and
for the lowest and highest reward that the graph takes, or None."""

Evaluator = Any
"""A callable (sync or async, or a generator function), a LangChain tool, or a Runnable; returns a number, a `Reward`,
or None for unscored."""


class Reward(TypedDict, total=False):
    """What an evaluator found."""

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


def as_reward(given: Any, bounds: tuple[float, float] | None = None) -> Reward:
    """Check what an evaluator returned.

    Args:
        given: a number, a `Reward`, or None.
        bounds: the lowest and highest value that make sense; outside is unscored.

    Returns:
        A `Reward` with plain numbers only; unscored, with the reason, if the value is no finite number within bounds.
    """
    reward = dict(given) if isinstance(given, Mapping) else {"value": given}
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


def _number(given: Any, bounds: tuple[float, float] | None) -> float | None:
    if given is None:
        return None
    if not isinstance(given, Real | Decimal) and not (hasattr(given, "item") and isinstance(given.item(), Real)):
        raise TypeError(f"a reward must be a number, got {given!r:.80}")
    number = float(given)
    if not math.isfinite(number):
        raise ValueError(f"a reward must be finite, got {number}")
    if bounds and not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"the reward {number:g} is outside the declared range {bounds[0]:g} to {bounds[1]:g}")
    return number


@dataclass(frozen=True)
class Scorer:
    """An evaluator, ready to be called.

    Attributes:
        part: the callable, tool or Runnable.
        names: which of `OFFERED` it is called with.
        flow: whether it is a generator function, which yields the calls that it wants made.
        asks: whether it asks a person beside its paid calls, and so judges attempts one after another.
        calls: paid calls that one judgement takes, retries apart; each is counted and journaled. 0 for a function or a
            tool, 1 for a Runnable, which may hold a model; a flow tells it by an attribute `calls`, else it is 1.
    """

    part: Any
    names: tuple[str, ...]
    flow: bool = False
    calls: int = 0
    asks: bool = False

    def arguments(self, **offered: Any) -> dict[str, Any]:
        """Those of the offered values that the evaluator asked for."""
        return {name: offered[name] for name in self.names}


def as_scorer(evaluator: Evaluator, what: str = "evaluator") -> Scorer:
    """Adapt an evaluator.

    Raises:
        ValueError: it is none of the three forms, or it asks for something that is not offered.
    """
    tool_arguments = getattr(evaluator, "args", None)
    if hasattr(evaluator, "invoke") and isinstance(tool_arguments, dict):
        required = set(evaluator.get_input_schema().model_json_schema().get("required", ()))
        return Scorer(evaluator, _offered(tool_arguments, required, what))
    if hasattr(evaluator, "invoke"):
        return Scorer(evaluator, OFFERED, calls=1)
    if not callable(evaluator):
        raise ValueError(f"the {what} must be a callable, a LangChain tool or a Runnable, got {evaluator!r}")
    flows = any(map(inspect.isgeneratorfunction, (evaluator, getattr(evaluator, "__call__", None))))  # noqa: B004
    names = accepted_names(evaluator, ASKABLE, what)
    if not flows:
        return Scorer(evaluator, names)
    told = getattr(evaluator, "calls", 1)
    calls, asks = told if isinstance(told, int) else 1, bool(getattr(evaluator, "asks", False))
    return Scorer(evaluator, names, flow=True, calls=calls, asks=asks)


def accepted_names(function: Callable[..., Any], offered: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Which of the offered keyword arguments a function takes.

    Raises:
        ValueError: it needs an argument that is not offered, or takes one by position only.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ValueError(f"the signature of the {what} {function!r} can't be read; wrap it in a function") from None
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    required = {name for name, p in named.items() if p.default is p.empty}
    taken = {name for name, p in named.items() if p.kind is not p.POSITIONAL_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken |= set(offered)
    return _offered(taken, required, what, offered)


def _offered(names: Any, required: set[str], what: str, offered: tuple[str, ...] = OFFERED) -> tuple[str, ...]:
    unknown = (required - set(offered)) | (required - set(names))
    if unknown:
        raise ValueError(
            f"the {what} asks for {', '.join(map(repr, sorted(unknown)))}; it is called with the arguments that it "
            f"names among {', '.join(offered)}"
        )
    return tuple(name for name in offered if name in names)
