"""Human in the loop: a person gives a reward, or reviews one.

    graph = create_icrl(model, human_reward(bounds=(0, 10))).compile(checkpointer=saver)
    graph.invoke({"task": "Write a haiku."}, config)                # stops at the first question
    graph.invoke(Command(resume={"reward": 7, "comment": "More frogs."}), config)

A question is LangGraph's `interrupt`: the run is saved and costs nothing while it waits, for a day as for a second; an
answer that can't be read is asked for again. To stop after each round, compile with `interrupt_after=["evaluate"]`;
then `revise` changes what there is, and `invoke(None, config)` resumes the run. `revise` also goes back to any round of
a thread: it begins a branch there, and the rounds after it stay on the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from langgraph.types import interrupt

from icrl_graph.evaluators.evaluator import ASKABLE, BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import single
from icrl_graph.state.checks import is_number
from icrl_graph.state.reward import Reward, as_reward, unscored

Bounds = tuple[float, float]
VETOED = "vetoed by a person"


def human_reward(bounds: Bounds | None = None, question: str = "How good is this response?") -> BoundEvaluator:
    """An evaluator that asks a person.

    The interrupt's value has the `question`, `task`, `response`, the `steps` of an episode of many turns, the earlier
    attempts as `history` (response, reward, feedback) and the `bounds`. It is resumed with a number, or with
    `{"reward": a number, "comment": words}`, whose words reach the model as feedback; the reward None leaves the
    attempt unscored.

    Args:
        bounds: lowest and highest reward; default those of the graph.
        question: what to ask.
    """
    declared = bounds

    def ask(task: Any, response: str, steps: Any, history: Any, bounds: Any) -> Reward:
        limits = declared or bounds
        asked = {"question": question, "task": task, "response": response, "steps": steps, "history": history}
        return _answered({**asked, "bounds": limits and list(limits)}, lambda reply: _read(reply, limits))

    return replace(bind_evaluator(ask), asks=True, rewarded_by="human")


def reviewed(evaluator: Evaluator, question: str = "Is this reward right?") -> BoundEvaluator:
    """An evaluator whose rewards a person reviews.

    The interrupt's value is as that of `human_reward`, with the proposed `reward`, `metric` and `feedback`. It is
    resumed with True, which accepts the reward; with another one, as for `human_reward`; or with False, a veto, which
    leaves the attempt unscored. The metric stays what the evaluator gave.

    Args:
        evaluator: gives the rewards. One that is paid is not paid again once the person has answered; a function is
            called again then, and so has to give the same again.
        question: what to ask.

    Raises:
        ValueError: it is not an evaluator.
    """
    inner = bind_evaluator(evaluator)

    def review(**offered: Any) -> Generator[Any, Any, Reward]:
        arguments, bounds = inner.arguments(**offered), offered["bounds"]
        if inner.flow:
            reward = as_reward((yield from inner.part(**arguments)))
        else:
            reward = yield from single(Call(inner.part, arguments, as_reward, paid=inner.calls > 0))
        asked = {"question": question, **{name: offered[name] for name in ("task", "response", "steps", "history")}}
        proposed = {"reward": reward["value"], "metric": reward.get("metric"), "feedback": reward.get("feedback")}
        limits = {"bounds": bounds and list(bounds)}
        return _answered({**asked, **proposed, **limits}, lambda reply: _decided(reply, reward, bounds))

    name = f"reviewed({inner.name})"
    return replace(inner, part=review, names=ASKABLE, name=name, flow=True, asks=True, rewarded_by="human")


def _answered(question: Mapping[str, Any], read: Callable[[Any], Reward]) -> Reward:
    """Ask until the answer can be read."""
    error: str | None = None
    while True:
        reply = interrupt({**question, "error": error})
        try:
            return read(reply)
        except ValueError as wrong:
            error = str(wrong)


def _read(reply: Any, bounds: Bounds | None) -> Reward:
    """The reward in a person's answer.

    Raises:
        ValueError: it can't be read; says what would do.
    """
    form = 'answer with a number, or with {"reward": a number or None, "comment": words}'
    if isinstance(reply, Mapping):
        if "reward" not in reply or reply.keys() - {"reward", "comment"}:
            raise ValueError(f"{form}; got {dict(reply)!r:.200}")
        reward = _read(reply["reward"], bounds)
        return {**reward, "feedback": str(reply["comment"])} if reply.get("comment") else reward
    if reply is None:
        return unscored("the person gave no reward")
    if isinstance(reply, str):
        try:
            reply = float(reply)
        except ValueError:
            raise ValueError(f"{form}; got {reply!r:.200}") from None
    if not is_number(reply):
        raise ValueError(f"{form}; got {reply!r:.200}")
    reward = as_reward(reply, bounds)
    if "error" in reward:
        raise ValueError(reward["error"])
    return reward


def _decided(reply: Any, proposed: Reward, bounds: Bounds | None) -> Reward:
    """The reward after a person's review."""
    if reply is True:
        return proposed
    try:
        decided = unscored(VETOED) if reply is False else _read(reply, bounds)
    except ValueError as wrong:
        raise ValueError(f"True keeps the reward, False vetoes it; else {wrong}") from None
    return {**without_value(proposed), **decided}


def without_value(reward: Reward) -> Reward:
    """What a reward holds beside its value: metric, feedback, steps."""
    rest: Any = {name: part for name, part in reward.items() if name not in ("value", "error", "spread")}
    return rest  # type: ignore[no-any-return]
