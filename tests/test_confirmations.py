"""Confirmations: a success takes several passes of a noisy evaluator."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph import improve
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies import create_icrl
from tests.helpers import thread


def judge(*values: Any) -> Any:
    """A paid evaluator that gives these, one after another."""
    waiting = iter(values)

    def give(arguments: Any) -> Any:
        value = next(waiting)
        if isinstance(value, Exception):
            raise value
        return value

    return RunnableLambda(give)


def played(evaluator: Any, **options: Any) -> Any:
    given = {"rounds": 2, "target": 1.0, "confirmations": 3, "max_evaluator_failures": 0, **options}
    return improve("task", evaluator, model=lambda messages: "answer", **given)


def test_a_success_is_one_that_every_pass_confirms() -> None:
    result = played(judge(0.5, 1.0, 1.0, 1.0))
    assert (result.stopped, result.rewards, result.usage["calls"]) == ("success", [0.5, 1.0], 2 + 4)


def test_a_run_goes_on_after_a_pass_that_does_not_confirm_and_keeps_the_lowest() -> None:
    result = played(judge(1.0, 0.2, 0.4), rounds=2)
    assert (result.stopped, result.rewards, result.reward) == ("rounds", [0.2, 0.4], 0.4)


def test_no_pass_follows_one_that_has_failed() -> None:
    assert played(judge(1.0, 0.0, 1.0, 1.0, 0.0)).usage["calls"] == 2 + 5


def test_the_model_reads_the_words_of_the_pass_that_did_not_confirm() -> None:
    model = ScriptedModel(["first", "second"])
    verdicts = [{"value": 1.0, "feedback": "all is well"}, {"value": 0.0, "feedback": "a gap in step 2"}, 0.0]
    improve("task", judge(*verdicts), model=model, rounds=2, target=1.0, confirmations=2)
    assert "a gap in step 2" in str(model.prompts[1])
    assert "all is well" not in str(model.prompts[1])


def test_an_attempt_whose_confirmation_fails_is_unscored_with_the_reason() -> None:
    result = played(judge(1.0, RuntimeError("no judge there"), 0.3))
    assert result.rewards == [None, 0.3]
    assert "pass 2 of 3" in result.episodes[0]["reward"]["error"]
    assert "no judge there" in result.episodes[0]["reward"]["error"]


def test_a_round_begins_only_if_its_confirmations_can_be_paid() -> None:
    result = played(judge(*[0.0] * 9), rounds=9, max_calls=7)
    assert (result.stopped, result.usage["calls"]) == ("calls", 4)  # a third round could take 4 more


def test_a_killed_run_pays_no_pass_twice(tmp_path: Any) -> None:
    asked: list[float] = []

    def give(arguments: Any) -> float:
        asked.append(1.0)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 1.0

    options: Any = {
        "model": lambda messages: "answer",
        "target": 1.0,
        "confirmations": 4,
        "path": tmp_path / "run.sqlite",
    }
    with pytest.raises(KeyboardInterrupt):
        improve("task", RunnableLambda(give), **options)
    result = improve("task", RunnableLambda(give), **options)
    assert (result.stopped, len(asked)) == ("success", 1 + 4)  # the one in flight again


def test_who_asks_for_more_rounds_needs_no_target() -> None:
    graph = create_icrl(lambda messages: "a", judge(*[0.0] * 5), rounds=2, target=1.0, confirmations=2)
    compiled, config = graph.compile(InMemorySaver()), thread()
    compiled.invoke({"task": "task"}, config)
    assert compiled.invoke({"more": 2}, config)["rounds_done"] == 4


def test_confirmations_without_a_target_are_refused() -> None:
    with pytest.raises(ValueError, match="confirmations=2 are of attempts that reach the target"):
        create_icrl(lambda messages: "a", lambda: 0.0, confirmations=2)


def test_an_attempt_keeps_what_each_pass_gave_it_and_no_prompt_is_made_from_that() -> None:
    seen: list[Any] = []

    def memory(past: Any) -> list[int]:
        seen.extend(past)
        return []

    result = played(judge(1.0, 0.2, 0.4), memory=memory)
    assert [episode.get("passes") for episode in result.episodes] == [[1.0, 0.2], None]
    assert "(passes 1, 0.2)" in repr(result)
    assert seen
    assert not any("passes" in episode for episode in seen)
