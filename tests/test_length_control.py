"""Win rates at equal length: what they remove, how sure they are, and an independent computation of both."""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from icrl_graph.benchmarks.length_control import WEIGHT, length_controlled
from icrl_graph.benchmarks.statistics import Z, estimate
from icrl_graph.errors import MissingExtra


def judged(rate: float, tasks: int, seed: int, *, weight: float = 1.5) -> tuple[Any, Any]:
    """Wins and lengths, (tasks, 1), of answers that are mostly longer, by a judge that prefers longer ones."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(300, 300, (tasks, 1))
    chance = 1 / (1 + np.exp(-np.log(rate / (1 - rate)) - weight * np.tanh(longer / 300)))
    return (rng.random((tasks, 1)) < chance).astype(float), longer


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_the_part_that_is_owed_to_length_is_removed(rate: float) -> None:
    samples = [judged(rate, 100, seed) for seed in range(30)]
    found = [length_controlled(*sample) for sample in samples]
    assert np.mean([wins.mean() for wins, _ in samples]) > rate + 0.05
    assert np.mean([one["mean"] for one in found]) == pytest.approx(rate, abs=0.05)
    assert sum(one["low"] <= rate <= one["high"] for one in found) >= 26  # type: ignore[operator]


def test_a_judge_without_a_bias_is_left_as_it_is() -> None:
    wins, longer = judged(0.7, 400, 0, weight=0.0)
    plain, controlled = estimate(wins, share=True), length_controlled(wins, longer)
    assert controlled["mean"] == pytest.approx(plain["mean"], abs=0.06)
    assert controlled["low"] < 0.7 < controlled["high"]  # type: ignore[operator]


SHARES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=20)


@settings(max_examples=30, deadline=None)
@given(SHARES)
def test_of_answers_that_are_equally_long_it_is_the_plain_rate_with_wilsons_interval(shares: list[float]) -> None:
    wins = np.array(shares)[:, None]
    found: Any = length_controlled(wins, np.zeros_like(wins))
    plain = estimate(wins, share=True)
    assert found == {name: pytest.approx(value, abs=1e-5) for name, value in plain.items()}


@pytest.mark.parametrize("seed", range(3))
def test_the_rate_of_the_one_is_one_less_that_of_the_other(seed: int) -> None:
    wins, longer = judged(0.7, 25, seed)
    one: Any = length_controlled(wins, longer)
    other = length_controlled(1 - wins, -longer)
    ends = [1 - one[name] for name in ("mean", "high", "low")]
    assert [other["mean"], other["low"], other["high"]] == pytest.approx(ends, abs=1e-5)


def test_it_maximises_the_likelihood_that_it_states() -> None:
    wins, longer = judged(0.7, 60, 1)
    x = np.tanh(longer / longer.std(ddof=1))

    def loss(at: Any) -> float:
        odds = at[0] + at[1] * x
        return float((np.logaddexp(0, odds) - wins * odds).sum() + (at[1] / WEIGHT) ** 2 / 2)

    theta = minimize(loss, [0.0, 0.0]).x[0]
    assert length_controlled(wins, longer)["mean"] == pytest.approx(1 / (1 + np.exp(-theta)), abs=1e-4)


def test_the_score_tests_of_statsmodels_reject_what_lies_beyond_its_interval() -> None:
    api = pytest.importorskip("statsmodels.api", reason="needs statsmodels: pip install 'icrl-graph[test]'")
    wins, longer = judged(0.6, 80, 2)
    x = np.tanh(longer / longer.std(ddof=1))
    found = length_controlled(wins, longer)
    for end in (found["low"], found["high"]):
        theta = np.log(end / (1 - end))  # type: ignore[operator]
        null = api.GLM(wins, x, family=api.families.Binomial(), offset=np.full(len(x), theta)).fit()
        (statistic,) = np.ravel(null.score_test(exog_extra=np.ones_like(x))[0])
        assert statistic == pytest.approx(Z**2, rel=0.05)  # it has no prior of the weight of length


def test_tasks_are_the_clusters() -> None:
    wins, longer = judged(0.7, 30, 0)
    once, thrice = length_controlled(wins, longer), length_controlled(np.repeat(wins, 3, 1), np.repeat(longer, 3, 1))
    assert (thrice["low"], thrice["high"]) == pytest.approx((once["low"], once["high"]), abs=0.01)


def test_seeds_that_disagree_make_a_rate_surer() -> None:
    wins = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]] * 10)
    longer = np.random.default_rng(0).normal(0, 100, wins.shape)
    found = length_controlled(wins, longer)
    marks = length_controlled(wins[:, :1], longer[:, :1])
    assert found["high"] - found["low"] < 0.7 * (marks["high"] - marks["low"])  # type: ignore[operator]


def test_where_nothing_tells_length_from_quality_there_is_no_rate() -> None:
    wins, _ = judged(0.7, 20, 0)
    found = length_controlled(wins, np.full_like(wins, 50.0))
    assert found == {"mean": None, "low": None, "high": None, "tasks": 20, "unscored": 0}


def test_where_every_longer_answer_wins_it_says_how_little_it_knows() -> None:
    longer = np.linspace(-50, 150, 24)[:, None]
    found = length_controlled((longer > 0).astype(float), longer)
    assert found["high"] - found["low"] > 0.5  # type: ignore[operator]


def test_a_method_that_always_wins_is_not_certain_to() -> None:
    _, longer = judged(0.7, 20, 0)
    found = length_controlled(np.ones_like(longer), longer)
    assert (found["mean"], found["high"]) == (1.0, 1.0)
    assert found["low"] < 0.84  # type: ignore[operator]


def test_what_is_unscored_is_left_out_and_counted() -> None:
    wins, longer = judged(0.7, 20, 0)
    some = wins.copy()
    some[::4] = np.nan
    kept = ~np.isnan(some[:, 0])
    assert length_controlled(some, longer) == {**length_controlled(wins[kept], longer[kept]), "unscored": 5}
    nothing = length_controlled(np.full((2, 1), np.nan), np.zeros((2, 1)))
    assert nothing == {"mean": None, "low": None, "high": None, "tasks": 0, "unscored": 2}


@pytest.mark.parametrize(
    ("wins", "lengths", "message"),
    [
        ([1.0], [0.0], "need \\(tasks, seeds\\)"),
        ([[1.5]], [[0.0]], "shares lie in"),
        ([[1.0]], [[0.0], [1.0]], "finite length for each win"),
        ([[1.0]], [[float("nan")]], "finite length for each win"),
    ],
)
def test_what_makes_no_sense_is_refused(wins: Any, lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length_controlled(wins, lengths)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"scipy is not installed.*\[report\]"):
        length_controlled(*judged(0.7, 20, 0))
