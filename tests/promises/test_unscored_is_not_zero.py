"""Unscored is not zero: what could not be judged has no number anywhere, and never beats or loses to one."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.testing import ScriptedModel
from tests.promises.ways import METHODS, WAYS, size


def _raises(response: str) -> float:
    raise RuntimeError("the checker broke")


def _fails_at_times(response: str) -> float:
    if response == "word 1":
        return -3.0
    raise RuntimeError("the checker broke")


async def _no_number(response: str) -> float:
    return math.nan


JUDGEMENTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: _raises,
    "none": lambda: lambda response: None,
    "not a number": lambda: _no_number,
    "a text": lambda: lambda response: "7",
    "unknown keys": lambda: lambda response: {"points": 7},
    "no verdict": lambda: llm_judge(ScriptedModel(lambda: "I like it."), "Good?"),
    "off the scale": lambda: llm_judge(ScriptedModel(lambda: "Score: 70"), "Good?"),
    "cut off": lambda: llm_judge(ScriptedModel(lambda: '{"reasons": "it is\n "score": 1'), "Good?"),
}


def _play(method: str, way: str, score: Any) -> tuple[Any, ScriptedModel]:
    made = 0

    def reply() -> str:
        nonlocal made
        made += 1
        return f"word {made}"

    model = ScriptedModel(reply)
    return WAYS[way]("Say it.", score, model=model, topology=METHODS[method], **size(method, 3)), model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("judgement", JUDGEMENTS)
def test_what_can_not_be_judged_has_no_reward(judgement: str, method: str, way: str) -> None:
    result, model = _play(method, way, JUDGEMENTS[judgement]())
    assert set(result.rewards) == {None}
    assert (result.reward, result.metric, result.regret) == (None, None, None)
    assert judgement == "none" or all(episode["reward"]["error"] for episode in result.episodes)
    assert result.answer is not None  # an answer there is
    assert "Reward: 0" not in json.dumps(model.prompts)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "self_refine"])
def test_a_low_reward_is_better_than_none(method: str, way: str) -> None:
    result, _ = _play(method, way, _fails_at_times)
    assert (result.answer, result.reward) == ("word 1", -3.0)
    assert result.rewards.count(None) == len(result.rewards) - 1
