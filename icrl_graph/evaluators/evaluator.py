"""Evaluators: the functions, tools and Runnables that give rewards, and the one form that they are bound to.

A reward is one number, or none: an evaluator that fails, times out, or gives something that is not a finite number in
its declared range leaves the attempt *unscored*. That is a third outcome beside right and wrong. It is never counted
as 0, and the reason is saved. An evaluator that raises because an answer is wrong says so by `on_error=0`.

An evaluator names what it wants to know: a function is called with those of `ASKABLE` that stand in its signature, a
LangChain tool with those of `OFFERED` in its arguments schema. A Runnable gets all of `OFFERED` in one dictionary.

A function or a tool is taken to be free: it is not counted, and is called again when its node is repeated. Wrap one
that costs money in a `RunnableLambda`: then it counts as a call, is saved in the journal, and the attempts of a round
are judged side by side. An evaluator that needs several paid calls is a generator function: a flow
(`execution.driver.Flow`) that yields each call, is sent its reply, and returns the reward; see `evaluators.judge`. A
function or a tool may ask a person by LangGraph's `interrupt`, and so may a flow with `asks=True`; see
`evaluators.human`.

What is known of an evaluator beside its code is in its `BoundEvaluator`: how many calls it makes, which models judge,
what it is called. Custom ones are declared, and wrapped, by `dataclasses.replace`:

    judge = replace(bind_evaluator(my_flow), calls=4, models=(model,))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from icrl_graph.execution.signatures import accepted_names, offered_names
from icrl_graph.state.choices import find, name_of_part
from icrl_graph.state.reward import OnError, check_on_error

OFFERED = ("task", "response", "answer", "steps", "task_data")
"""What an evaluator may ask for: the task as passed (text or messages); the response as text; the answer, which is what
`extract` made of it (or the response again); the steps of a multi-turn episode, or None; the task data."""
ASKABLE = (*OFFERED, "history", "siblings", "bounds")
"""A function may also ask for the attempts of the rounds before, each with its `response`, `reward` and `feedback`, for
the other attempts of its round, each with its `response`, and for the lowest and highest reward that the graph takes,
or None."""

Evaluator = Any
"""A callable (sync or async, or a generator function), a LangChain tool, a Runnable, a `BoundEvaluator`, or the name of
one of these, such as "sql" or "path.py:name"; returns a number, a `Reward`, or None for unscored."""


@dataclass(frozen=True, eq=False)
class BoundEvaluator:
    """An evaluator, ready to be called, with what is known of it.

    Attributes:
        part: the callable, tool or Runnable.
        names: which of `ASKABLE` it is called with.
        name: its name in saved runs, which are resumed with an evaluator of the same name only.
        flow: whether it is a generator function, which yields the calls that it wants made.
        calls: paid calls that one judgement takes, retries apart; each is counted and journaled. 0 for a function or a
            tool, 1 for a Runnable, which may hold a model, and for a flow that does not declare it.
        models: the models that judge. If the policy's is among them, a run says "self-judged".
        frame: what each call asks beside the task and the response; for the estimate of a preview.
        asks: whether it asks a person, and so judges attempts one after another.
        rewarded_by: the source of its rewards: "oracle", "judged", "self-judged" or "human"; None for what follows
            from `calls` and `models`.
        check: raises ValueError if no answer can be judged by some task data; called before anything is paid.
        on_error: the reward of an attempt on which it raises, or "unscored"; the model reads what was raised. None for
            what the graph's option says. The failure of a judge's model or its provider is always unscored.

    Raises:
        ValueError: `on_error` is neither a finite number nor "unscored".
    """

    part: Any
    names: tuple[str, ...]
    name: str
    flow: bool = False
    calls: int = 0
    models: tuple[Any, ...] = ()
    frame: str = ""
    asks: bool = False
    rewarded_by: str | None = None
    on_error: OnError | None = None
    check: Callable[[Mapping[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        """Check what was declared."""
        check_on_error(self.on_error)

    def check_task(self, task_data: Mapping[str, Any]) -> None:
        """Raise if no answer to a task can be judged.

        Raises:
            ValueError: names the evaluator, and says what of the task data is wrong.
        """
        if self.check is not None:
            try:
                self.check(task_data)
            except ValueError as wrong:
                raise ValueError(f"the evaluator {self.name!r} can't judge answers to this task: {wrong}") from None

    def arguments(self, **offered: Any) -> dict[str, Any]:
        """Those of the offered values that the evaluator asks for."""
        return {name: offered[name] for name in self.names}

    def __call__(self, **arguments: Any) -> Any:
        """Call it by itself, outside of a run: a reward, something to await, or the generator of a flow."""
        return self.part.invoke(arguments) if hasattr(self.part, "invoke") else self.part(**arguments)


SHIPPED: Mapping[str, str] = {
    "mathematics": "mathematics:exact",
    "majority": "mathematics:majority",
    "regex_golf": "regex_golf:regex_golf",
    "sql": "sql:sql",
    "json_schema": "json_schema:json_schema",
    "code_tests": "code_tests:code_tests",
}
"""By name, the module and the evaluator or what makes it; imported when it is asked for."""


def find_evaluator(name: str) -> Evaluator:
    """An evaluator by name.

    Args:
        name: one of `SHIPPED`, "path.py:name", "module:name" or an entry point.

    Raises:
        ValueError: there is none of that name, or it may not be used unasked; says how.
        MissingExtra: a package that it needs is not installed.
    """
    found = find("evaluator", name, SHIPPED)
    if name in SHIPPED:
        module, _, attribute = SHIPPED[name].partition(":")
        shipped = getattr(import_module(f"icrl_graph.evaluators.{module}"), attribute)
        return shipped if isinstance(shipped, BoundEvaluator) else shipped()
    return found


def bind_evaluator(evaluator: Evaluator, what: str = "evaluator") -> BoundEvaluator:
    """Bind an evaluator; one that is bound is returned as it is.

    Args:
        evaluator: a callable, a LangChain tool, a Runnable, or a `BoundEvaluator`; or the name of one, as
            `find_evaluator` takes it.
        what: its role, for errors.

    Raises:
        ValueError: it is none of these, or it asks for something that is not offered.
    """
    if isinstance(evaluator, str):
        evaluator = find_evaluator(evaluator)
    if isinstance(evaluator, BoundEvaluator):
        return evaluator
    name, tool_arguments = name_of_part(evaluator), getattr(evaluator, "args", None)
    if hasattr(evaluator, "invoke") and isinstance(tool_arguments, dict):
        required = set(evaluator.get_input_schema().model_json_schema().get("required", ()))
        return BoundEvaluator(evaluator, offered_names(tool_arguments, required, OFFERED, what), name)
    if hasattr(evaluator, "invoke"):
        return BoundEvaluator(evaluator, OFFERED, name, calls=1)
    if not callable(evaluator):
        raise ValueError(f"the {what} must be a callable, a LangChain tool or a Runnable, got {evaluator!r:.80}")
    flow = any(map(inspect.isgeneratorfunction, (evaluator, getattr(evaluator, "__call__", None))))  # noqa: B004
    return BoundEvaluator(evaluator, accepted_names(evaluator, ASKABLE, what), name, flow=flow, calls=int(flow))
