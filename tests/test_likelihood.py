"""Judges whose reward is read off the probabilities of their one word, at a server that tells them."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph import ModelError, aimprove, chat_model, improve
from icrl_graph.evaluators import likelihood_judge
from icrl_graph.evaluators.likelihood import DIGITS, expected_value
from icrl_graph.testing import OpenAIServer, ScriptedModel

RUBRIC = "Is it short? YES if it is, NO if not."


def judged(odds: Any, **options: Any) -> Any:
    """The result of one round, with a judge that gives its words with these probabilities."""
    with OpenAIServer(lambda messages: odds) as server:
        judge = likelihood_judge(chat_model("openai:judge", base_url=server.base_url), RUBRIC, **options)
        return improve("Say it.", judge, model=lambda: "x", rounds=1, task_data={"target": ["5", "five"]})


def test_the_reward_is_the_probability_of_yes() -> None:
    result = judged({"YES": 0.8, "NO": 0.2})
    assert result.rewards == [pytest.approx(0.8)]
    assert result.rewarded_by == "judged"


def test_the_reward_is_the_expected_score() -> None:
    assert judged({"7": 0.5, "8": 0.3, "2": 0.2}, values=DIGITS).rewards == [pytest.approx(7 * 0.5 + 8 * 0.3 + 2 * 0.2)]


def test_words_that_mean_the_same_count_together_and_others_not_at_all() -> None:
    assert judged({"YES": 0.3, " yes": 0.3, "**Yes": 0.2, "NO": 0.2}).rewards == [pytest.approx(0.8)]
    odds = {"YES": 0.4, "NO": 0.1, "Maybe": 0.0}
    assert judged(odds).rewards == [pytest.approx(0.8)]


def test_under_ainvoke_the_reward_is_the_same() -> None:
    with OpenAIServer(lambda messages: {"YES": 0.8, "NO": 0.2}) as server:
        judge = likelihood_judge(chat_model("openai:judge", base_url=server.base_url), RUBRIC)
        result = asyncio.run(aimprove("Say it.", judge, model=lambda: "x", rounds=1))
    assert result.rewards == [pytest.approx(0.8)]


def test_a_judge_that_says_something_else_gives_no_verdict() -> None:
    result = judged({"Perhaps": 1.0})
    assert result.rewards == [None]
    assert "none of YES, NO" in result.episodes[0]["reward"]["error"]


def test_the_judge_sees_the_right_answers_where_it_is_to() -> None:
    with OpenAIServer(lambda messages: {"YES": 1.0}) as server:
        model = chat_model("openai:judge", base_url=server.base_url)
        for reference in (None, "target"):
            judge = likelihood_judge(model, RUBRIC, reference=reference)
            improve("Say it.", judge, model=lambda: "x", rounds=1, task_data={"target": ["5", "five"]})
        without, with_it = (prompt[-1]["content"] for prompt in server.prompts)
    assert "five" not in without
    assert "A right answer is:\n5\nor\nfive\n" in with_it


def test_a_task_without_the_right_answer_is_unscored_and_nothing_is_asked() -> None:
    result = judged({"YES": 1.0}, reference="solution")
    assert result.rewards == [None]
    assert result.usage["calls"] == 1


def test_a_model_without_log_probabilities_ends_the_run_at_once() -> None:
    model = ScriptedModel(["YES"] * 9)
    with pytest.raises(ModelError, match="gives no log-probabilities of its tokens: take another one"):
        improve("Say it.", likelihood_judge(model, RUBRIC), model=lambda: "x", rounds=4)
    assert len(model.prompts) == 1


@pytest.mark.parametrize(
    "values", [{}, {"YES": 1}, {"YES": 1, "yes": 0}, {"a b": 1, "c": 0}, {"a": 1, "b": "0"}, {"a": math.nan, "b": 1}, 3]
)
def test_values_that_are_no_words_with_numbers_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="values are two or more words"):
        likelihood_judge(lambda: "YES", RUBRIC, values=values)


@given(st.lists(st.floats(-30, 0), min_size=10, max_size=10))
def test_the_expected_score_is_within_the_scale_and_rises_with_the_chance_of_the_best(logprobs: list[float]) -> None:
    def expected(best: float) -> float | None:
        top = [{"token": str(n), "logprob": p} for n, p in enumerate([*logprobs[:9], best])]
        return expected_value([{"token": "3", "logprob": logprobs[3], "top_logprobs": top}], DIGITS)

    low, high = expected(logprobs[9]), expected(logprobs[9] + 1)
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 9


def test_a_server_tells_log_probabilities_only_where_they_are_asked_for() -> None:
    with OpenAIServer(lambda messages: "a long answer") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        plain, asked = model.invoke("x"), model.invoke("x", logprobs=True, top_logprobs=2)
    assert not plain.response_metadata.get("logprobs")
    tokens = asked.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == "a long answer"
    assert {token["logprob"] for token in tokens} == {0}
