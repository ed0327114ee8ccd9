"""Scorers of Inspect as evaluators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ModelName, messages_from_openai
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, PARTIAL, Score, Target, score, value_to_float
from inspect_ai.solver import TaskState
from inspect_ai.util import registry_create, registry_info

from icrl_graph.integrations.inspect.sample import answer, copied, running

if TYPE_CHECKING:
    from icrl_graph.evaluators.evaluator import BoundEvaluator
    from icrl_graph.execution.driver import Flow


class NoScorer(ValueError):
    """The task has no scorer, so there is no reward."""


def from_scorer(scorer: Any, paid: bool = False, feedback: bool = False) -> BoundEvaluator:
    """A scorer of Inspect as an evaluator, in an eval or outside of any.

    Outside, it compares with the `target` of the task data (a text, or several; "" for a scorer that reads none), and
    the task data is the metadata of its sample. Without one nothing is asked: many scorers find an empty text in every
    answer.

    Args:
        scorer: such as `includes()`.
        paid: whether it asks a model: then a judgement counts as a call. The tokens of that model count anyway.
        feedback: whether the model that is judged reads the scorer's explanation, which may tell the target.

    Raises:
        ValueError: it is no scorer.
    """
    if (info := registry_info(scorer)).type != "scorer":
        raise ValueError(f"{info.name!r} is a {info.type} of Inspect, no scorer")

    async def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Score | None:
        target, run = Target(task_data["target"]), running.get()
        if run is None:
            asked = task if isinstance(task, str) else await messages_from_openai(task)
            messages = await messages_from_openai([{"role": "user", "content": task}]) if asked is task else asked
            state = TaskState(ModelName("none/none"), "1", 1, asked, messages, target, metadata={**task_data})
        else:
            state = copied(run.state)
        return await scorer(await answer(state, response), target)

    return _bound(judge, ("task", "response", "task_data"), info.name, paid, feedback, _check_target)


def _check_target(task_data: Mapping[str, Any]) -> None:
    """Raise `ValueError` for task data from which no scorer can read what it compares with."""
    target = task_data.get("target")
    if not all(isinstance(each, str) for each in (target if isinstance(target, list | tuple) else [target])):
        got = f"it is {target!r:.80}" if "target" in task_data else "there is none"
        raise ValueError(
            f"a scorer of Inspect reads its target, a text or several, from task_data['target'], but {got}"
        )


def evaluator_of(given: Any, paid: bool, feedback: bool) -> BoundEvaluator:
    """What gives the reward: the task's own scorer for None, a scorer or its name, or an evaluator of icrl_graph.

    Raises:
        ValueError: there is no such evaluator.
    """
    from icrl_graph.evaluators.evaluator import bind_evaluator

    if given is None:
        return _bound(_own_scorer, ("response",), "the task's scorer", paid, feedback)
    try:
        return from_scorer(registry_create("scorer", given) if isinstance(given, str) else given, paid, feedback)
    except (LookupError, ValueError):  # it is none of Inspect's
        return bind_evaluator(given)


async def _own_scorer(response: str) -> Score | None:
    """What the first scorer of the task says; it is logged as an intermediate score."""
    run: Any = running.get()
    state = await answer(copied(run.state), response)
    try:
        scores = await score(state)
    except RuntimeError as error:
        if "with a scorer" not in str(error):
            raise
        raise NoScorer("the task has no scorer that gives a reward; name one as evaluator") from error
    return next(iter(scores), None)


def _bound(
    judge: Any, names: tuple[str, ...], name: str, paid: bool, feedback: bool, check: Any = None
) -> BoundEvaluator:
    """A function that gives scores as an evaluator, which also counts what the scorer's model uses."""
    from langchain_core.messages import AIMessage

    from icrl_graph.evaluators.evaluator import BoundEvaluator
    from icrl_graph.execution.calls import Call
    from icrl_graph.execution.driver import single
    from icrl_graph.integrations.inspect.model import metered

    async def measured(**arguments: Any) -> dict[str, Any]:
        with metered() as usage:
            given = await judge(**arguments)
        return {"score": given, "messages": [AIMessage("", usage_metadata=usage)] if usage["total_tokens"] else []}

    def read(told: Mapping[str, Any]) -> dict[str, Any] | None:
        if (given := told["score"]) is None:
            return None
        return {"value": number_of(given.value), "feedback": given.explanation if feedback else None}

    def evaluate(**arguments: Any) -> Flow:
        return (yield from single(Call(measured, arguments, read, paid=paid)))

    return BoundEvaluator(evaluate, names, name, flow=True, calls=int(paid), check=check)


_WORDS = tuple(word for each in ("yes", "no", "true", "false") for word in (each, each.title(), each.upper()))
"""That `value_to_float` knows."""


def number_of(value: Any) -> float:
    """The number that a score stands for.

    `Score.as_float` knows no letters; `value_to_float` does, and takes all that it does not know for 0.

    Raises:
        ValueError: it stands for none.
    """
    if isinstance(value, str) and value not in (CORRECT, INCORRECT, PARTIAL, NOANSWER, *_WORDS):
        value = float(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"a reward is one number, but the scorer gives {value!r:.80}; name another one as evaluator")
    return float(value_to_float()(value))
