"""Credit across episodes: what each credit makes of returns, by hand; and what it teaches where exploring costs."""

from typing import Any

import numpy as np
import pytest

from icrl_graph.meta_rl.credit import CREDITS, advantages, find_credit
from icrl_graph.meta_rl.tabular import Recipe, success, train

RETURNS = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
"""Two trials of three episodes."""


def _means_alone(returns: Any, credit: Any, **kwargs: Any) -> Any:
    values = advantages(returns, ["one"] * len(returns), credit, "mean", **kwargs).values
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in values]


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("sum", [2, 2, 2]),
        ("discounted:1", [2, 2, 1]),
        ("discounted:0.5", [0.75, 1.5, 1]),
        ("discounted:0", [0, 1, 1]),
        ("own", [0, 1, 1]),
        ("final", [1, 1, 1]),
        ("difference:1", [1, 1, 0]),
        ("difference", [0.6, 1, 0]),
    ],
)
def test_an_episode_is_credited_with_its_share_of_the_trial(credit: str, expected: list[float]) -> None:
    first = np.asarray(find_credit(credit)(np.array(RETURNS)))[0]
    assert np.broadcast_to(first, 3).tolist() == pytest.approx(expected)


def test_leave_one_out_compares_each_episode_with_the_same_one_of_the_other_trials() -> None:
    assert _means_alone([*RETURNS, [1.0, 1.0, 0.0]], "leave_one_out") == [
        [0.5, 1.5, 1.0],
        [-1.0, -1.5, -0.5],
        [0.5, 0.0, -0.5],
    ]


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("sum", [[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]]),
        ("discounted:1", [[0.5, 1.0, 0.5], [-0.5, -1.0, -0.5]]),
        ("own", [[-0.5, 0.5, 0.5], [0.5, -0.5, -0.5]]),
        ("final", [[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]]),
    ],
)
def test_an_advantage_is_what_is_above_the_mean_of_the_group(credit: str, expected: Any) -> None:
    assert _means_alone(RETURNS, credit) == expected


def test_by_std_each_episode_has_the_spread_one_in_its_group() -> None:
    returns = [[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]
    values = advantages(returns, "aaa", "own").values
    assert values[:, 0] == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5], rel=1e-4)
    assert values[:, 1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("sum", [[0.0, None, None], [0.0, 0.0, None], [0.0, 0.0, 0.0]]),
        ("own", [[0.666667, None, None], [-0.333333, 0.5, None], [-0.333333, -0.5, 0.0]]),
        ("final", [[0.0, None, None], [0.0, 0.0, None], [0.0, 0.0, 0.0]]),
        ("discounted:0.5", [[0.416667, None, None], [-0.083333, 0.25, None], [-0.333333, -0.25, 0.0]]),
    ],
)
def test_an_episode_that_was_not_played_has_no_advantage_and_no_part_in_those_of_others(
    credit: str, expected: Any
) -> None:
    stopped_at_success = [[1.0], [0.0, 1.0], [0.0, 0.0, 1.0]]
    assert _means_alone(stopped_at_success, credit) == expected
    filled = [[1.0, np.nan, np.nan], [0.0, 1.0, np.nan], [0.0, 0.0, 1.0]]
    assert _means_alone(filled, credit) == expected


def test_trials_are_compared_with_those_of_the_same_instance_alone() -> None:
    mixed = advantages([[0.0], [10.0], [1.0], [12.0]], ["a", "b", "a", "b"], "sum", "mean")
    assert mixed.values.tolist() == [[-0.5], [-1.0], [0.5], [1.0]]
    assert mixed.dropped == 0


def test_groups_without_variance_are_dropped_and_counted() -> None:
    returns = [[1.0, 0.0], [0.0, 1.0], [0.1, 0.2], [0.1, 0.2], [1.0, 1.0]]
    got = advantages(returns, ["a", "a", "b", "b", "alone"], "sum")
    assert got.dropped == 3
    assert not got.kept.any()
    assert not got.values.any()
    own = advantages(returns, ["a", "a", "b", "b", "alone"], "own")
    assert (own.dropped, own.kept.tolist()) == (2, [True, True, False, False, False])


def test_sums_that_differ_by_rounding_are_no_variance() -> None:
    got = advantages([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], "aa", "sum")
    assert got.dropped == 1


def test_a_group_of_several_instances_is_refused() -> None:
    returns = [[1.0], [0.0], [1.0], [0.0]]
    assert advantages(returns, "aabb", group_size=2).dropped == 0
    assert advantages(returns, "aaaa", group_size=2).values.tolist() == advantages(returns, "aabb").values.tolist()
    with pytest.raises(ValueError, match="trials 0 to 1 are a group of several instances: \\['a', 'b'\\]"):
        advantages(returns, "abab", group_size=2)
    with pytest.raises(ValueError, match="group_size must be 2 or more and divide the number of trials, 4, got 3"):
        advantages(returns, "aaaa", group_size=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"credit": "summ"}, "unknown credit 'summ'; choose one of sum, leave_one_out, difference, final, own"),
        ({"credit": "discounted:1.5"}, "discounted:GAMMA.*GAMMA from 0 to 1"),
        ({"credit": "discounted"}, "unknown credit 'discounted'"),
        ({"scale": "max"}, "unknown scale 'max'; choose one of 'std', 'mean'"),
        ({"credit": lambda returns: returns[:1]}, r"a credit of \(2, 1\) returns is of that shape or one column"),
        ({"instances": ["a"]}, "each of the 2 trials needs its instance, got 1"),
        ({"returns": [[float("inf")], [0.0]]}, "got an infinite one"),
    ],
)
def test_bad_input_is_refused_with_what_there_is(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advantages(**{"returns": [[0.0], [1.0]], "instances": ["a", "a"], **arguments})


def test_a_credit_can_be_a_function() -> None:
    best = advantages(RETURNS, "aa", lambda returns: np.nanmax(returns, axis=1, keepdims=True) * [[1], [2]], "mean")
    assert best.values.tolist() == [[-0.5] * 3, [0.5] * 3]


@pytest.mark.parametrize("name", CREDITS)
def test_every_credit_takes_a_trial_alone_no_episodes_and_no_trials(name: str) -> None:
    name = name.replace("GAMMA", "0.9")
    assert advantages([[1.0, 0.0]], ["a"], name).dropped == 1
    assert advantages([[], []], ["a", "a"], name).values.shape == (2, 0)
    assert advantages([], [], name).dropped == 0
    unplayed = advantages([[np.nan, np.nan], [1.0, 0.0], [0.0, 1.0]], "aaa", name).values
    assert np.isnan(unplayed).tolist() == [[True, True], [False, False], [False, False]]


# ------------------------------------------------------------------------------------------------------- the safe arm

SAFE = Recipe(safe=0.4, entropy=0.1, learning_rate=4.0, iterations=300, instances=8)
LONGER = Recipe(arms=3, episodes=5, safe=0.4, iterations=300, instances=8)


@pytest.mark.parametrize("credit", ["sum", "discounted:1"])
def test_with_credit_across_episodes_a_learner_explores_past_a_safe_arm(credit: str) -> None:
    curve = success(train(credit, SAFE), SAFE)
    assert curve == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.05)


def test_without_credit_across_episodes_it_takes_the_safe_arm() -> None:
    curve = success(train("own", SAFE), SAFE)
    assert sum(curve) < 1.9
    longer = {credit: sum(success(train(credit, LONGER), LONGER)) for credit in ("sum", "own")}
    assert longer["sum"] > 3.8
    assert longer["own"] < 2.3


def test_where_exploring_is_free_credit_for_oneself_learns_as_much_and_needs_to_see_its_rewards() -> None:
    recipe = Recipe(iterations=250, learning_rate=3.0, instances=8)
    policy = train("own", recipe)
    assert success(policy, recipe)[-1] > 0.9
    for feedback in ("zero", "shuffled"):
        assert success(policy, recipe, feedback)[-1] < 0.35
    with pytest.raises(ValueError, match="unknown feedback 'none'; choose one of 'true', 'zero', 'shuffled'"):
        success(policy, recipe, "none")
