"""The stop rule: when another attempt is not worth its price."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from icrl_graph import improve
from icrl_graph.state.stop_rules import expected_gain, stop_rule
from icrl_graph.topologies import create_icrl

REWARDS = st.lists(st.floats(-1, 1), min_size=1, max_size=20)


def rewards_of(*values: float) -> Any:
    waiting = iter(values)
    return lambda: next(waiting)


def played(evaluator: Any, **options: Any) -> Any:
    return improve("task", evaluator, model=lambda messages: "answer", **{"rounds": 50, **options})


@given(REWARDS, st.floats(-1, 1))
def test_an_attempt_that_is_no_better_lowers_what_the_next_is_expected_to_gain(
    rewards: list[float], low: float
) -> None:
    no_better = min(low, max(rewards))
    assert 0 <= expected_gain([*rewards, no_better], 1.0) <= expected_gain(rewards, 1.0)


@given(REWARDS, st.randoms(use_true_random=False))
def test_the_expected_gain_does_not_depend_on_the_order_of_the_rewards(rewards: list[float], random: Any) -> None:
    mixed = random.sample(rewards, len(rewards))
    assert expected_gain(mixed, 1.0) == expected_gain(rewards, 1.0)


@given(REWARDS, st.floats(-10, 10), st.floats(0.5, 4))
def test_a_price_in_other_units_of_reward_stops_at_the_same_attempt(
    rewards: list[float], shift: float, scale: float
) -> None:
    moved = [shift + scale * reward for reward in rewards]
    assert expected_gain(moved, shift + scale) == pytest.approx(scale * expected_gain(rewards, 1.0), abs=1e-9)


def test_the_higher_the_price_the_earlier_a_run_stops() -> None:
    rounds = [len(played(lambda: 0.2, target=1.0, stop=f"gain:{price}").episodes) for price in ("0.1", "0.05", "0.01")]
    assert rounds == [3, 7, 39]


def test_the_calls_of_a_judge_are_part_of_the_price_of_an_attempt() -> None:
    judge: Any = RunnableLambda(lambda given: 0.2)
    by_function, by_judge = (played(part, target=1.0, stop="gain:0.05") for part in (lambda: 0.2, judge))
    assert (len(by_function.episodes), len(by_judge.episodes)) == (7, 3)


def test_nothing_is_stopped_before_a_reward_is_there() -> None:
    result = played(lambda: None, rounds=4, target=1.0, stop="gain:100", max_evaluator_failures=0)
    assert (result.stopped, len(result.episodes)) == ("rounds", 4)


def test_an_attempt_without_a_score_has_gained_nothing() -> None:
    scores = iter([0.2, *[None] * 20])
    result = played(lambda: next(scores), rounds=20, target=1.0, stop="gain:0.05")
    assert (result.stopped, len(result.episodes)) == ("gain", 7)  # as many as with 0.2 each time


def test_a_function_can_be_the_stop_rule() -> None:
    def third(rewards: list[float | None], highest: float | None, calls: int) -> bool:
        assert (highest, calls) == (None, 1)
        return len(rewards) == 3

    result = played(rewards_of(0.1, 0.3, 0.2), stop=third)
    assert (result.stopped, result.reward) == ("gain", 0.3)


def test_who_asks_for_more_rounds_gets_them_whatever_the_stop_rule_says() -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    graph = create_icrl(lambda messages: "a", lambda: 0.2, rounds=9, target=1.0, stop="gain:0.1").compile(
        InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke({"task": "task"}, config)
    assert graph.invoke({"more": 2}, config)["rounds_done"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "gain:0.1"}, "stop='gain:0.1' needs the highest reward that counts"),
        ({"stop": "gain", "target": 1.0}, "unknown stop 'gain'; choose one of gain:PRICE"),
        ({"stop": "gain:0.1", "bounds": (0, float("inf"))}, "needs the highest reward that counts"),
        ({"stop": "gain:-1", "target": 1.0}, "PRICE a reward from 0"),
        ({"stop": "gain:1e999", "target": 1.0}, "PRICE a reward from 0"),
        ({"stop": lambda rewards: True}, "stop"),
    ],
)
def test_a_stop_rule_that_cannot_work_is_refused_when_the_graph_is_built(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_icrl(lambda messages: "a", lambda: 0.2, **options)


def test_a_stop_rule_of_a_single_run_is_checked_too() -> None:
    graph = create_icrl(lambda messages: "a", lambda: 0.2).compile()
    with pytest.raises(ValueError, match="needs the highest reward"):
        graph.invoke({"task": "task"}, context={"stop": "gain:0.1"})


def test_every_price_that_can_be_written_is_read() -> None:
    assert all(
        stop_rule(f"gain:{price}")([0.0], 1.0, 1) is (float(price) >= 0.25) for price in ("0", ".5", "1e-3", "2")
    )
