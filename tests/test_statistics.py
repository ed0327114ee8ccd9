"""Means and how sure they are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph.benchmarks.statistics import difference, half_width, interval, share_interval

MARKS = st.lists(st.integers(0, 1), min_size=1, max_size=60)
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


@given(MARKS)
def test_a_share_lies_within_its_interval_and_that_within_0_and_1(marks: list[int]) -> None:
    found = share_interval(marks)
    assert -1e-4 <= found["low"] <= found["mean"] <= found["high"] <= 1 + 1e-4
    assert half_width(found) > 0


@given(PAIRS)
def test_a_difference_is_the_opposite_of_its_opposite_and_never_certain(pairs: Any) -> None:
    ones, others = zip(*pairs, strict=True)
    found, opposite = difference(ones, others), difference(others, ones)
    assert (found["mean"], found["low"], found["high"]) == (-opposite["mean"], -opposite["high"], -opposite["low"])
    assert found["low"] < found["high"]
    assert found["low"] - 1e-4 <= found["mean"] <= found["high"] + 1e-4


def test_what_is_the_same_does_not_differ_and_two_tasks_prove_nothing() -> None:
    assert difference([1] * 100, [1] * 100)["low"] < 0 < difference([1] * 100, [1] * 100)["high"]
    assert difference([1, 1], [0, 0])["low"] < 0
    assert difference([1] * 20, [0] * 20)["low"] > 0.5


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_intervals_hold_the_truth_as_often_as_they_say(share: float) -> None:
    """Of 2000 samples of 40 tasks about 95 %."""
    rng = np.random.default_rng(0)
    ones, others = rng.random((2, 2000, 40)) < share
    held = [found["low"] <= share <= found["high"] for found in map(share_interval, ones)]
    assert 0.93 <= np.mean(held) <= 0.985
    apart = [found["low"] <= 0 <= found["high"] for found in map(difference, ones, others)]
    assert 0.93 <= np.mean(apart) <= 0.99


def test_unscored_tasks_are_left_out_and_nothing_scored_is_an_error() -> None:
    assert interval([1.0, 0.0, np.nan])["mean"] == 0.5
    assert interval([0.5])["high"] == float("inf")
    with pytest.raises(ValueError, match="not one of the tasks is scored"):
        interval([np.nan])
