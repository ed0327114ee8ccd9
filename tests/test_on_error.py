"""Evaluators that raise: what their attempts earn, what the model reads of it, and what is never made a number."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from icrl_graph import create_best_of_n, create_icrl, create_reflexion, create_self_refine, improve, llm_judge
from icrl_graph.benchmarks.registry import BENCHMARKS
from icrl_graph.evaluators import bind_evaluator, isolated
from icrl_graph.state.reward import as_reward
from icrl_graph.testing import ScriptedModel
from tests.helpers import play
from tests.verdicts import runs

BROKEN, RIGHT = "f = 1 +", "f = 2"
SYNTAX = "SyntaxError: invalid syntax"


async def runs_later(response: str) -> float:
    return runs(response)


@tool
def runs_as_tool(response: str) -> float:
    """Run it."""
    return runs(response)


def runs_as_flow(response: str) -> Any:
    yield []
    return runs(response)


FORMS = {
    "function": runs,
    "coroutine function": runs_later,
    "tool": runs_as_tool,
    "Runnable": RunnableLambda(lambda given: runs(given["response"])),
    "flow": runs_as_flow,
}


def _attempts(create: Any, **options: Any) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel([BROKEN, RIGHT] * 4)
    return create(model, runs, **options), model


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_evaluator_that_raises_gives_what_on_error_says(form: str, is_async: bool) -> None:
    compiled = create_icrl(ScriptedModel([BROKEN, RIGHT]), FORMS[form], rounds=2, on_error=0).compile()
    events = []

    async def watch() -> None:
        events.extend([event async for event in compiled.astream({"task": "x"}, stream_mode="custom")])

    if is_async:
        asyncio.run(watch())
    else:
        events.extend(compiled.stream({"task": "x"}, stream_mode="custom"))
    assert [event["reward"] for event in events if event["type"] == "episode"] == [0.0, 1.0]


@pytest.mark.parametrize("create", [create_icrl, create_reflexion, create_self_refine, create_best_of_n])
def test_every_topology_counts_a_raise_as_on_error_says(create: Any) -> None:
    graph, _ = _attempts(create, **{"n" if create is create_best_of_n else "rounds": 2}, on_error=-1)
    _, episodes = play(graph, {"task": "x"})
    values = {episode["response"]: episode["reward"]["value"] for episode in episodes}
    assert values[BROKEN] == -1.0
    assert values.get(RIGHT, 1.0) == 1.0


@pytest.mark.parametrize(("on_error", "shown"), [(0, "Reward: 0"), ("unscored", "Reward: unscored")])
def test_the_model_reads_what_the_evaluator_raised(on_error: Any, shown: str) -> None:
    graph, model = _attempts(create_icrl, rounds=2, on_error=on_error)
    play(graph, {"task": "x"})
    assert f"{shown}\n<feedback>\n{SYNTAX}" in model.prompts[1][-1]["content"]


def test_by_default_a_raise_is_unscored_and_the_model_reads_nothing_of_it() -> None:
    graph, model = _attempts(create_icrl, rounds=2)
    _, episodes = play(graph, {"task": "x"})
    assert episodes[0]["reward"]["value"] is None
    assert "SyntaxError" not in json.dumps(model.prompts)


def test_an_evaluator_s_own_on_error_takes_precedence_over_the_graph_s() -> None:
    lenient = replace(bind_evaluator(runs), on_error=0.25)
    result = improve("x", lenient, model=ScriptedModel([BROKEN]), rounds=1, on_error=0)
    assert result.rewards == [0.25]
    result = improve(
        "x", isolated(runs, workers=1, on_error="unscored"), model=ScriptedModel([BROKEN]), rounds=1, on_error=0
    )
    assert result.rewards == [None]


@pytest.mark.parametrize("bad", ["f = 1 +", "import os; os._exit(3)", "while True: pass", "raise SystemExit(2)"])
def test_an_isolated_evaluator_that_raises_dies_or_hangs_gives_what_on_error_says(bad: str) -> None:
    judge = isolated(runs, timeout=1, workers=1, on_error=0)
    result = improve("x", judge, model=ScriptedModel([bad, RIGHT]), rounds=2)
    assert result.rewards == [0.0, 1.0]


def test_a_metric_and_a_selector_that_raise_give_it_too() -> None:
    model = ScriptedModel([BROKEN, RIGHT])
    graph = create_best_of_n(model, lambda: 0.5, metric=runs, select=runs, n=2, on_error=0)
    output, episodes = play(graph, {"task": "x"})
    assert output["answer"] == RIGHT
    assert {episode["reward"]["metric"] for episode in episodes} == {0.0, 1.0}


class Overloaded(Exception):
    status_code = 529


def _refusing(*_: Any, **__: Any) -> Any:
    raise Overloaded("busy")


def _disconnected(response: str) -> float:
    raise ConnectionResetError("gone")


def _parsed(given: Any) -> float:
    return float(JsonOutputParser().parse("no JSON")["score"])


def _asks(task: Any, response: str) -> Any:
    reward = yield from llm_judge(lambda: "Score: 8", "Is it good?")(task=task, response=response)
    raise ValueError(f"what the judge said can't be used: {reward}")


NOT_THE_ANSWER = {
    "a judge whose provider fails": llm_judge(_refusing, "Is it good?"),
    "a judge that gives no verdict": llm_judge(lambda: "Hm.", "Is it good?"),
    "a Runnable whose provider fails": RunnableLambda(_refusing),
    "a Runnable whose judge can't be read": RunnableLambda(_parsed),
    "a flow after it has asked a judge": replace(bind_evaluator(_asks), calls=1),
    "a function whose connection breaks": _disconnected,
    "None": lambda: None,
    "no number": lambda: "good",
}


@pytest.mark.parametrize("evaluator", NOT_THE_ANSWER)
def test_what_is_not_the_answer_s_fault_is_unscored_whatever_on_error_says(evaluator: str) -> None:
    from icrl_graph.execution.rate_limit import RateLimit

    once = RateLimit(max_attempts=1)
    score = NOT_THE_ANSWER[evaluator]
    result = improve("x", score, model=ScriptedModel(["a"]), rounds=1, on_error=0, rate_limit=once)
    assert result.rewards == [None]


def test_a_judgement_that_its_budget_does_not_reach_is_unscored_whatever_on_error_says() -> None:
    judge = replace(llm_judge(lambda: "Score: 8", "Is it good?", samples=2), calls=0)  # declared as too cheap
    result = improve("x", judge, model=ScriptedModel(["a"]), rounds=1, on_error=0, max_calls=1)
    assert result.rewards == [None]


def test_no_message_shows_the_task_data() -> None:
    def leaks(response: str, task_data: dict[str, Any]) -> float:
        raise AssertionError(f"expected {task_data['cases'][0]}, got {response}")

    model = ScriptedModel(["a", "b"])
    data = {"cases": ["the secret answer"]}
    improve("x", leaks, model=model, task_data=data, rounds=2, on_error=0)
    assert "<feedback>\nAssertionError\n</feedback>" in model.prompts[1][-1]["content"]
    assert "secret" not in json.dumps(model.prompts)


def test_a_long_message_is_shortened() -> None:
    def fails(response: str) -> float:
        raise ValueError("no " * 100_000)

    model = ScriptedModel(["a", "b"])
    improve("x", fails, model=model, rounds=2, on_error=0)
    assert len(model.prompts[1][-1]["content"]) < 2000


@pytest.mark.parametrize("wrong", ["zero", True, float("nan"), [0]])
def test_a_wrong_on_error_is_an_error_before_anything_is_paid(wrong: Any) -> None:
    with pytest.raises(ValueError, match="on_error"):
        isolated(runs, on_error=wrong)
    if wrong is not True:
        with pytest.raises(ValueError, match="on_error"):
            create_icrl(ScriptedModel(["a"]), runs, on_error=wrong)


def test_an_on_error_out_of_bounds_is_an_error_before_anything_is_paid() -> None:
    with pytest.raises(ValueError, match=r"on_error=0 is outside the declared range 1 to 10"):
        create_icrl(ScriptedModel(["a"]), runs, bounds=(1, 10), on_error=0)
    graph = create_icrl(model := ScriptedModel(["a"]), runs, bounds=(1, 10)).compile()
    with pytest.raises(ValueError, match="on_error=0"):
        graph.invoke({"task": "x"}, context={"on_error": 0})
    assert model.prompts == []


@pytest.mark.parametrize("on_error", [None, 0])
def test_a_run_with_unscored_answers_says_so_once(on_error: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "icrl_graph.topologies"):
        improve("x", runs, model=ScriptedModel([BROKEN, RIGHT, BROKEN, BROKEN]), rounds=4, on_error=on_error)
    said = [each.getMessage() for each in caplog.records if each.name.startswith("icrl_graph.topologies")]
    assert len(said) == (on_error is None)
    assert all("3 of 4 attempts are unscored" in each and "on_error=0" in each for each in said)


def test_the_shipped_verifiers_never_make_a_number_of_wrong_task_data() -> None:
    score = BENCHMARKS["game24"].evaluator
    result = improve("x", score, model=ScriptedModel(["a"]), rounds=1, on_error=0, task_data={"numbers": "none"})
    assert result.rewards == [None]


@pytest.mark.parametrize(
    ("returned", "reward"),
    [
        ({"score": 0.5}, {"value": 0.5}),
        ({"key": "exact", "score": True, "comment": "right", "metadata": None}, {"value": 1.0, "feedback": "right"}),
        ([{"key": "exact", "score": 1, "comment": None}], {"value": 1.0}),
        ({"score": 0.2, "value": "poor"}, {"value": 0.2}),
        ({"key": "exact", "score": None}, {"value": None}),
    ],
)
def test_results_of_evaluators_of_langsmith_and_openevals_are_taken(returned: Any, reward: Any) -> None:
    assert as_reward(returned) == reward


def test_an_evaluation_result_of_langsmith_is_taken() -> None:
    from langsmith.evaluation import EvaluationResult

    assert as_reward(EvaluationResult(key="k", score=0.5, comment="fair")) == {"value": 0.5, "feedback": "fair"}


def test_a_misspelt_key_beside_a_score_is_unscored() -> None:
    assert as_reward({"score": 0.5, "coment": "x"})["value"] is None
