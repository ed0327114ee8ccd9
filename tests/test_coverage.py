"""95 % intervals hold the truth in 93 to 97 % of samples: of how methods learn, what a solved task costs, and judges.

`make soak` draws more samples, and is held to just that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from icrl_graph.benchmarks import statistics
from icrl_graph.benchmarks.labels import prediction_powered
from icrl_graph.benchmarks.statistics import curve, difference, ratio

ROUNDS, TASKS = 8, 25


def attempts(rng: Any, tasks: int, first: float, last: float) -> Any:
    """Rewards of 0 and 1, (tasks, rounds), their chance from the first round to the last; a task's are alike."""
    chance = np.linspace(first, last, ROUNDS)[None, :]
    tilt = rng.normal(scale=0.8, size=(tasks, 1))
    return (rng.random((tasks, ROUNDS)) < 1 / (1 + (1 - chance) / chance * np.exp(-tilt))).astype(float)


def learning(rng: Any, tasks: int) -> Any:
    return attempts(rng, tasks, 0.2, 0.6)


def noise(rng: Any, tasks: int) -> Any:
    return attempts(rng, tasks, 0.1, 0.1)


def rise(rewards: Any) -> Any:
    return rewards[:, ROUNDS // 2 :].mean(axis=1, keepdims=True) - rewards[:, : ROUNDS // 2].mean(axis=1, keepdims=True)


def mean(rewards: Any) -> Any:
    return rewards.mean(axis=1, keepdims=True)


def spent(rewards: Any) -> tuple[Any, Any]:
    """Of runs that stop at their first reward: what they cost, and whether they have solved their task."""
    solved = rewards.any(axis=1, keepdims=True)
    return np.where(solved, rewards.argmax(axis=1)[:, None] + 1.0, float(ROUNDS)), solved.astype(float)


def judged(rng: Any, tasks: int, bias: float) -> tuple[Any, Any]:
    """What people would say, and a judge that says it in 3 of 4 cases, else guesses, and is lenient, up to 1."""
    right = (rng.random((tasks, 1)) < 0.4).astype(float)
    said = np.where(rng.random((tasks, 1)) < 0.75, right, rng.random((tasks, 1)))
    return right, np.minimum(1.0, said + bias)


def with_50_labels(rng: Any, bias: float) -> Any:
    right, said = judged(rng, 200, bias)
    return prediction_powered(np.where(np.arange(200)[:, None] < 50, right, np.nan), said)


class Case(NamedTuple):
    """A statistic: its truth, by very many tasks, and its figure by a sample of them."""

    truth: Callable[[Any], float]
    sample: Callable[[Any], Any]


MANY = 400_000
CASES = {
    "a rise": Case(
        lambda rng: rise(learning(rng, MANY)).mean(),
        lambda rng: difference(rise(learning(rng, TASKS)), np.zeros((TASKS, 1))),
    ),
    "a difference of rises": Case(
        lambda rng: rise(learning(rng, MANY)).mean(),
        lambda rng: difference(rise(learning(rng, TASKS)), rise(noise(rng, TASKS))),
    ),
    "a difference of all rounds": Case(
        lambda rng: learning(rng, MANY).mean() - noise(rng, MANY).mean(),
        lambda rng: difference(mean(learning(rng, TASKS)), mean(noise(rng, TASKS))),
    ),
    "a share of repeated answers": Case(
        lambda rng: learning(rng, MANY).mean(),
        lambda rng: curve(mean(learning(rng, TASKS))[..., None], share=True)[0],
    ),
    "what a solved task costs": Case(
        lambda rng: float(np.divide(*(each.mean() for each in spent(noise(rng, MANY))))),
        lambda rng: ratio(*spent(noise(rng, TASKS))),
    ),
    "a fair judge": Case(lambda rng: 0.4, lambda rng: with_50_labels(rng, 0.0)),
    "a lenient judge": Case(lambda rng: 0.4, lambda rng: with_50_labels(rng, 0.3)),
}


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth_in_about_95_per_cent_of_samples(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_flipped", lambda apart: 1.0)  # takes most of the time; no interval needs it
    is_long, rng = request.config.getoption("--soak"), np.random.default_rng(1)
    truth = CASES[name].truth(np.random.default_rng(2))
    found = [CASES[name].sample(rng) for _ in range(10_000 if is_long else 500)]
    held = np.mean([(one["low"] or 0) <= truth and (one["high"] is None or truth <= one["high"]) for one in found])
    assert 0.93 <= held <= 0.97 if is_long else 0.925 <= held <= 0.975
