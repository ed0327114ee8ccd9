"""Ablations, and the law they stand for: nothing of the truth reaches a prompt."""

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icrl_graph.prompts.ablations import ablation, flipped, hidden, random, show, shuffled, zero
from icrl_graph.state.reward import Reward
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from tests.helpers import play

TRUTH = Reward(value=0.75, metric=1.0, feedback="warm", steps=[1.0, 0.5], error="secret was 42")


def test_the_whole_truth_is_shown_but_for_the_metric_and_the_error() -> None:
    assert show(TRUTH, lambda reward, rng: reward, Random(0)) == {
        "value": 0.75,
        "feedback": "warm",
        "steps": [1.0, 0.5],
    }


def test_zero_keeps_the_form_and_takes_the_content() -> None:
    assert show(TRUTH, zero, Random(0)) == {"value": 0.0, "steps": [0.0, 0.0]}
    assert show(Reward(value=None), zero, Random(0)) == {"value": 0.0}


def test_hidden_shows_nothing() -> None:
    assert show(TRUTH, hidden, Random(0)) == {}


def test_shuffled_draws_from_its_pool_the_same_for_the_same_seed() -> None:
    draw = shuffled([0.1, Reward(value=0.2, steps=[0.3])])
    drawn = [show(TRUTH, draw, Random(seed)) for seed in range(20)]
    assert {repr(reward) for reward in drawn} == {repr({"value": 0.1}), repr({"value": 0.2, "steps": [0.3]})}
    assert drawn == [show(TRUTH, draw, Random(seed)) for seed in range(20)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("true", {"value": 0.75, "feedback": "warm", "steps": [1.0, 0.5]}),
        ("outcome", {"value": 0.75}),
        ("no_feedback", {"value": 0.75, "steps": [1.0, 0.5]}),
        ("constant:-2.5", {"value": -2.5, "steps": [-2.5, -2.5]}),
        ("flip:1", {"value": 0.25, "steps": [0.0, 0.5]}),
        ("flip:0", {"value": 0.75, "steps": [1.0, 0.5]}),
    ],
)
def test_an_ablation_by_name_shows(name: str, shown: Any) -> None:
    assert show(TRUTH, ablation(name), Random(0)) == shown


def test_random_rewards_are_drawn_anew_from_their_range() -> None:
    drawn: Any = [show(TRUTH, random(5, 6), Random(seed)) for seed in range(200)]
    numbers = {number for reward in drawn for number in (reward["value"], *reward["steps"])}
    assert len(numbers) == 600
    assert 5 <= min(numbers) < 5.1
    assert 5.9 < max(numbers) <= 6


def test_flipped_turns_over_as_many_as_it_says_and_an_unscored_one_stays_so() -> None:
    flips = [show(TRUTH, flipped(0.2, 0, 10), Random(seed))["value"] for seed in range(1000)]
    assert set(flips) == {0.75, 9.25}
    assert 150 < flips.count(9.25) < 250
    assert show(Reward(value=None, steps=[None]), flipped(1.0), Random(0)) == {"value": None, "steps": [None]}


@pytest.mark.parametrize(
    "name", ["", "zeros", "flip", "flip:2", "flip:-1", "flip:x", "constant", "constant:x", "zero:1"]
)
def test_an_unknown_ablation_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match="unknown ablation.*true, zero, hidden.*constant:X, flip:P"):
        ablation(name)


@pytest.mark.parametrize("pool", [[], [None], [0.1, float("nan")], ["x"]])
def test_a_pool_without_finite_numbers_is_refused(pool: Any) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        shuffled(pool)


# What an evaluator knows and an ablated prompt must not: numbers that nothing else writes, and words.
def _numbers(prompts: Any) -> set[int]:
    """The whole numbers in prompts; the decimals of another number are none."""
    return set(map(int, re.findall(r"(?<![\d.])\d+(?![\d]|\.\d)", repr(prompts))))


truths = st.lists(st.integers(1000, 9999), min_size=5, max_size=5, unique=True)


@settings(max_examples=25, deadline=None)
@given(
    truths,
    st.sampled_from(["all", "none", "last:2", "best:2", "tokens:60"]),
    st.sampled_from(["turns", "transcript"]),
    st.sampled_from(["zero", "hidden", "shuffled", "random", "constant:0.5"]),
)
def test_no_true_reward_no_feedback_and_no_ranking_by_it_reaches_any_prompt(
    truth: list[int], memory: str, layout: str, ablation: str
) -> None:
    def prompts(rewards: list[int]) -> list[Any]:
        waiting = iter(rewards)

        def score() -> Reward:
            value = next(waiting)
            return Reward(value=value, metric=value, feedback=f"told {value}", steps=[value])

        model = ScriptedModel(lambda messages: f"try {sum(m['role'] == 'assistant' for m in messages)}")
        show = shuffled([0.5]) if ablation == "shuffled" else ablation
        play(create_icrl(model, score, rounds=5, memory=memory, layout=layout, show=show, seed=0))
        return model.prompts

    seen = prompts(truth)
    assert not set(truth) & _numbers(seen)
    assert "told" not in repr(seen)
    assert seen == prompts(sorted(truth, reverse=True))  # other rewards, same prompts: nothing depends on them


@settings(max_examples=25, deadline=None)
@given(
    truths,
    st.sampled_from(["all", "none", "last:2", "best:2", "tokens:60"]),
    st.sampled_from(["turns", "transcript"]),
    st.sampled_from(["true", "zero", "hidden"]),
)
def test_neither_metric_nor_task_data_reaches_any_prompt(
    truth: list[int], memory: str, layout: str, ablation: str
) -> None:
    waiting = iter(truth)
    model = ScriptedModel(lambda messages: f"try {sum(m['role'] == 'assistant' for m in messages)}")
    graph = create_icrl(
        model, lambda: 0.5, metric=lambda: next(waiting), rounds=5, memory=memory, layout=layout, show=ablation
    )
    play(graph, {"task": "Find it.", "task_data": {"secret": "MARKER"}})
    assert not set(truth) & _numbers(model.prompts)
    assert "MARKER" not in repr(model.prompts)
