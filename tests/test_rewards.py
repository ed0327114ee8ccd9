import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from icrl_graph.evaluators.evaluator import OFFERED, bind_evaluator
from icrl_graph.state.reward import Reward, as_reward


@pytest.mark.parametrize("given", [1, 0.5, True, Fraction(1, 2), Decimal("0.5"), np.float32(0.5), np.int64(3)])
def test_any_real_number_is_a_reward(given: Any) -> None:
    assert as_reward(given) == {"value": float(given)}
    assert type(as_reward(given)["value"]) is float


@pytest.mark.parametrize(
    "given", [math.nan, math.inf, -math.inf, "0.5", [1], object(), 10**400, {"points": 1}, {"value": "x"}, 1j]
)
def test_whatever_is_no_finite_number_is_unscored_and_says_why(given: Any) -> None:
    reward = as_reward(given)
    assert reward["value"] is None
    assert reward["error"]


def test_none_is_unscored() -> None:
    assert as_reward(None) == {"value": None}


def test_a_reward_keeps_metric_feedback_and_steps() -> None:
    given = Reward(value=1, metric=0.0, feedback="good", steps=[1, None, 0])
    assert as_reward(given) == {"value": 1.0, "metric": 0.0, "feedback": "good", "steps": [1.0, None, 0.0]}


@pytest.mark.parametrize(("given", "scored"), [(0, True), (10, True), (10.1, False), (-1, False)])
def test_outside_the_declared_range_is_unscored(given: float, scored: bool) -> None:
    assert (as_reward(given, (0, 10))["value"] is not None) == scored


def test_an_evaluator_is_called_with_the_arguments_it_names() -> None:
    def score(response: str, task_data: dict[str, Any], tolerance: float = 0.1) -> float:
        return 0.0

    scorer = bind_evaluator(score)
    assert scorer.arguments(**dict.fromkeys(OFFERED, "x")) == {"response": "x", "task_data": "x"}


def test_an_evaluator_that_asks_for_something_else_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'gold'.*task, response, answer, steps, task_data"):
        bind_evaluator(lambda response, gold: 0.0)


def test_a_tool_that_asks_for_something_else_is_refused() -> None:
    @tool
    def check(gold: str) -> float:
        """Check."""
        return 0.0

    with pytest.raises(ValueError, match="'gold'"):
        bind_evaluator(check)


@pytest.mark.parametrize("wrong", [3, "check", b"tools/check.py:tool", None, len, lambda response, /: 0.0])
def test_what_is_no_evaluator_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="evaluator"):
        bind_evaluator(wrong)


def test_a_runnable_gets_everything_and_counts_as_paid() -> None:
    scorer = bind_evaluator(RunnableLambda(lambda given: 1.0))
    assert scorer.names == OFFERED
    assert scorer.calls == 1


def test_a_generator_function_is_a_flow_that_tells_how_many_calls_it_may_make() -> None:
    def judge(response: str) -> Any:
        yield None

    assert (bind_evaluator(judge).flow, bind_evaluator(judge).calls) == (True, 1)
    assert bind_evaluator(replace(bind_evaluator(judge), calls=4)).calls == 4
    assert bind_evaluator(lambda: 1.0).calls == 0
