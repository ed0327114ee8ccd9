"""Rewards, and the functions, tools and Runnables that give them.

A reward is one number, or none: an evaluator that fails, times out, or gives something that is not a finite number in
its declared range leaves the attempt *unscored*. That is a third outcome beside right and wrong. It is never counted
as 0, and the reason is kept.

An evaluator names what it wants to know: a function is called with those of `ASKABLE` that stand in its signature, a
LangChain tool with those of `OFFERED` in its arguments schema. A Runnable gets all of `OFFERED` in one dictionary.

A function or a tool is taken to be free: it is not counted, and done again where its node is. Wrap one that costs money
in a `RunnableLambda`: then it counts as a call, is kept in the journal, and attempts that stand side by side are judged
side by side. An evaluator that needs several paid calls is a generator function: a flow (`execution.driver.Flow`)
that yields each call, is sent its reply, and returns the reward; see `evaluators.judge`. A function or a tool may ask a
person by LangGraph's `interrupt`, and so may a flow that says so by an attribute `asks` (see `evaluators.human`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from icrl_graph.execution.signatures import _offered, accepted_names

OFFERED = ("task", "response", "answer", "steps", "task_data")
"""What an evaluator may ask for: the task as given (text or messages); the response as text; the answer, which is what
`extract` made of it (or the response again); the steps of a multi-turn episode, or None; the task data."""
ASKABLE = (*OFFERED, "history", "bounds")
"""A function may also ask for the attempts of the rounds before, each with its `response`, `reward` and `feedback`, and
for the lowest and highest reward that the graph takes, or None."""

Evaluator = Any
"""A callable (sync or async, or a generator function), a LangChain tool, or a Runnable; returns a number, a `Reward`,
or None for unscored."""


@dataclass(frozen=True)
class BoundEvaluator:
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


def bind_evaluator(evaluator: Evaluator, what: str = "evaluator") -> BoundEvaluator:
    """Adapt an evaluator.

    Raises:
        ValueError: it is none of the three forms, or it asks for something that is not offered.
    """
    tool_arguments = getattr(evaluator, "args", None)
    if hasattr(evaluator, "invoke") and isinstance(tool_arguments, dict):
        required = set(evaluator.get_input_schema().model_json_schema().get("required", ()))
        return BoundEvaluator(evaluator, _offered(tool_arguments, required, what, OFFERED))
    if hasattr(evaluator, "invoke"):
        return BoundEvaluator(evaluator, OFFERED, calls=1)
    if not callable(evaluator):
        raise ValueError(f"the {what} must be a callable, a LangChain tool or a Runnable, got {evaluator!r}")
    flows = any(map(inspect.isgeneratorfunction, (evaluator, getattr(evaluator, "__call__", None))))  # noqa: B004
    names = accepted_names(evaluator, ASKABLE, what)
    if not flows:
        return BoundEvaluator(evaluator, names)
    told = getattr(evaluator, "calls", 1)
    calls, asks = told if isinstance(told, int) else 1, bool(getattr(evaluator, "asks", False))
    return BoundEvaluator(evaluator, names, flow=True, calls=calls, asks=asks)
