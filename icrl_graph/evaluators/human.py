"""People in the loop: who gives a reward, looks over one, or steps in between two rounds.

    graph = create_icrl(model, human_reward(bounds=(0, 10))).compile(checkpointer=saver)
    graph.invoke({"task": "Write a haiku."}, config)                # stops at the first question
    graph.invoke(Command(resume={"reward": 7, "comment": "More frogs."}), config)

A question is LangGraph's `interrupt`: the run is kept and costs nothing while it waits, for a day as for a second; an
answer that can't be read is asked for again. To stop after each round, compile with `interrupt_after=["evaluate"]`;
then `revise` changes what there is, and `invoke(None, config)` goes on. `revise` also goes back to any round of a
thread: it begins a branch there, and what was played behind it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from numbers import Real
from typing import Any

from langgraph.types import interrupt

from icrl_graph.evaluators.evaluator import Evaluator, bind_evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import single
from icrl_graph.state.reward import Reward, as_reward, unscored

Bounds = tuple[float, float]
VETOED = "vetoed by a person"


def human_reward(bounds: Bounds | None = None, question: str = "How good is this response?") -> Evaluator:
    """An evaluator that asks a person.

    The interrupt's value has the `question`, `task`, `response`, the `steps` of an episode of many turns, the earlier
    attempts as `history` (response, reward, feedback) and the `bounds`. It is resumed with a number, or with
    `{"reward": a number, "comment": words}`, whose words reach the model as feedback; the reward None leaves the
    attempt unscored.

    Args:
        bounds: lowest and highest reward; default those of the graph.
        question: what to ask.
    """
    own = bounds

    def ask(task: Any, response: str, steps: Any, history: Any, bounds: Any) -> Reward:
        asked = {"question": question, "task": task, "response": response, "steps": steps, "history": history}
        within = own or bounds
        return _answered({**asked, "bounds": within and list(within)}, lambda said: _read(said, within))

    ask.rewarded_by = "human"  # type: ignore[attr-defined]
    return ask


def reviewed(evaluator: Evaluator, question: str = "Is this reward right?") -> Evaluator:
    """An evaluator whose rewards a person looks over.

    The interrupt's value is as that of `human_reward`, with the proposed `reward`, `metric` and `feedback`. It is
    resumed with True, which keeps the reward; with another one, as for `human_reward`; or with False, a veto, which
    leaves the attempt unscored. The metric stays what the evaluator said.

    Args:
        evaluator: gives the rewards. One that is paid is not paid again once the person has answered; a function is
            called again then, and so has to say the same again.
        question: what to ask.

    Raises:
        ValueError: it is no evaluator.
    """
    scorer = bind_evaluator(evaluator)

    def review(
        task: Any, response: str, answer: Any, steps: Any, task_data: Any, history: Any, bounds: Any
    ) -> Generator[Any, Any, Reward]:
        offered = {"task": task, "response": response, "answer": answer, "steps": steps, "task_data": task_data}
        given = scorer.arguments(**offered, history=history, bounds=bounds)
        if scorer.flow:
            found = as_reward((yield from scorer.part(**given)))
        else:
            found = yield from single(Call(scorer.part, given, as_reward, paid=scorer.calls > 0))
        asked = {"question": question, "task": task, "response": response, "steps": steps, "history": history}
        proposed = {"reward": found["value"], "metric": found.get("metric"), "feedback": found.get("feedback")}
        within = {"bounds": bounds and list(bounds)}
        return _answered({**asked, **proposed, **within}, lambda said: _decided(said, found, bounds))

    review.calls, review.asks, review.rewarded_by = scorer.calls, True, "human"  # type: ignore[attr-defined]
    if judges := getattr(scorer.part, "judges", ()):
        review.judges = judges  # type: ignore[attr-defined]
    return review


def _answered(question: Mapping[str, Any], read: Callable[[Any], Reward]) -> Reward:
    """Ask until the answer can be read."""
    error: str | None = None
    while True:
        said = interrupt({**question, "error": error})
        try:
            return read(said)
        except ValueError as wrong:
            error = str(wrong)


def _read(said: Any, bounds: Bounds | None) -> Reward:
    """The reward that a person has given.

    Raises:
        ValueError: it can't be read; says what would do.
    """
    form = 'answer with a number, or with {"reward": a number or None, "comment": words}'
    if isinstance(said, Mapping):
        if "reward" not in said or said.keys() - {"reward", "comment"}:
            raise ValueError(f"{form}; got {dict(said)!r:.200}")
        reward = _read(said["reward"], bounds)
        return {**reward, "feedback": str(said["comment"])} if said.get("comment") else reward
    if said is None:
        return unscored("the person gave no reward")
    if isinstance(said, str):
        try:
            said = float(said)
        except ValueError:
            raise ValueError(f"{form}; got {said!r:.200}") from None
    if isinstance(said, bool) or not isinstance(said, Real):
        raise ValueError(f"{form}; got {said!r:.200}")
    found = as_reward(said, bounds)
    if "error" in found:
        raise ValueError(found["error"])
    return found


def _decided(said: Any, found: Reward, bounds: Bounds | None) -> Reward:
    """What a person has made of a reward."""
    if said is True:
        return found
    return {**_apart(found), **(unscored(VETOED) if said is False else _read(said, bounds))}


def _apart(reward: Reward) -> Reward:
    """A reward apart from its value."""
    kept: Any = {name: told for name, told in reward.items() if name not in ("value", "error", "spread")}
    return kept  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------ between rounds
