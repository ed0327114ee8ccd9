"""The shipped learner: that it learns in its context, from its rewards, and from nothing else."""

import time
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import numpy as np
import pytest

import icrl_graph.models.learners
from icrl_graph.errors import UnknownTask
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.learners.hidden_color import reply
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.templates import HIDDEN_COLOR_TASK
from icrl_graph.state.events import is_episode
from icrl_graph.tasks.hidden_color import closeness, tasks, uniform
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from icrl_graph.topologies.settings import Settings

GAMES: list[Any] = tasks(40, seed=5)
LEARNER = chat_model("learner:hidden-color")
WEIGHTS = Path(icrl_graph.models.learners.__file__).parent / "hidden_color.npz"


def _rewards(graph: Any, games: Any = GAMES) -> Any:
    """Rewards, shape (games, attempts)."""
    compiled = graph.compile()
    streams = (compiled.stream(g, context=Settings(seed=i), stream_mode="custom") for i, g in enumerate(games))
    return np.array([[event["reward"] for event in filter(is_episode, stream)] for stream in streams])


@pytest.fixture(scope="module")
def icrl() -> Any:
    return _rewards(create_icrl(LEARNER, closeness))


def _half(values: Any) -> float:
    return float(1.96 * values.std(ddof=1) / len(values) ** 0.5)


# The bars leave room for what so few games may lie off by chance.


def test_with_frozen_weights_its_reward_rises_over_the_rounds_on_held_out_games(icrl: Any) -> None:
    by_round = icrl.mean(axis=0)
    assert by_round[-1] - by_round[0] >= 0.6 - 2 * _half(icrl[:, -1] - icrl[:, 0])
    assert by_round[-1] >= 0.86
    assert all(later > earlier for earlier, later in pairwise(by_round[1::2]))


def test_its_best_is_far_above_the_best_of_as_many_samples(icrl: Any) -> None:
    best = icrl.max(axis=1)
    for control in (
        create_best_of_n(LEARNER, closeness, n=8),
        create_best_of_n(FunctionModel(reply=uniform), closeness, n=8),
    ):
        gap = best - _rewards(control).max(axis=1)
        assert gap.mean() - _half(gap) >= 0.2


def test_its_first_guess_varies_so_best_of_n_is_a_fair_control() -> None:
    prompt = [{"role": "user", "content": HIDDEN_COLOR_TASK}]
    assert len({reply(prompt, Random(seed)) for seed in range(40)}) > 30


@pytest.mark.parametrize("ablation", ["zero", "hidden", "shuffled"])
def test_without_true_rewards_nothing_is_gained(ablation: str, icrl: Any) -> None:
    show = shuffled(icrl.ravel().tolist()) if ablation == "shuffled" else ablation
    rewards = _rewards(create_icrl(LEARNER, closeness, show=show))
    assert rewards[:, -1].mean() - rewards[:, 0].mean() <= 0.05 + _half(rewards[:, -1] - rewards[:, 0])


def _started_by_another(messages: Any, rng: Random) -> str:
    return uniform(messages, rng) if len(parse(messages).attempts) < 4 else reply(messages, rng)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"memory": "last:5"}, 0.85),
        ({"memory": "last:3"}, 0.75),
        ({"memory": "best:3"}, 0.75),
        ({"memory": "tokens:100"}, 0.8),
        ({"rounds": 20}, 0.95),
        ({"model": FunctionModel(reply=_started_by_another)}, 0.75),
    ],
    ids=lambda value: " ".join(map(str, value.items())) if isinstance(value, dict) and "model" not in value else None,
)
def test_other_memories_longer_runs_and_foreign_histories_do_not_break_it(options: Any, least: float) -> None:
    rewards = _rewards(create_icrl(**{"model": LEARNER, "evaluator": closeness, **options}), GAMES[:20])
    assert rewards[:, -1].mean() >= least


@pytest.mark.parametrize("options", [{"layout": "transcript"}, {"reward_label": "Achieved score"}], ids=str)
def test_another_layout_or_label_gives_it_the_same_history(options: Any, icrl: Any) -> None:
    assert (_rewards(create_icrl(LEARNER, closeness, **options), GAMES[:10]) == icrl[:10]).all()


@pytest.mark.parametrize("task", ["Find the hidden colour.", "", HIDDEN_COLOR_TASK + " Please."])
def test_it_refuses_another_task(task: str) -> None:
    with pytest.raises(UnknownTask, match="one game only.*openai:gpt"):
        LEARNER.invoke([{"role": "user", "content": task}])


def test_a_run_on_another_task_ends_at_once() -> None:
    with pytest.raises(UnknownTask):
        create_icrl(LEARNER, lambda: 1.0).compile().invoke({"task": "What is love?"})


def test_strange_attempts_in_its_history_do_not_stop_it() -> None:
    for answer, reward in (("no color", "unscored"), ("#abc", "hidden"), ("#abc", "-7"), ("#abc", "1e+06")):
        history = [
            {"role": "user", "content": HIDDEN_COLOR_TASK},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"Reward: {reward}"},
        ]
        assert closeness(reply(history, Random(0)), {"secret": "#000"})["value"] is not None


def test_its_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 400_000
    with np.load(WEIGHTS) as arrays:
        assert 140_000 <= sum(arrays[name].size for name in arrays.files if name != "shape") <= 170_000


def test_a_response_takes_at_most_10_ms_of_cpu() -> None:
    """The issue's bound; the fastest of several, so that a busy machine does not matter."""
    history: list[Any] = [{"role": "user", "content": HIDDEN_COLOR_TASK}]
    for i in range(7):
        history += [{"role": "assistant", "content": f"#{i}a{i}"}, {"role": "user", "content": "Reward: 0.4"}]
    reply(history, Random(0))

    def cost() -> float:
        start = time.process_time()
        for seed in range(10):
            reply(history, Random(seed))
        return (time.process_time() - start) / 10

    assert min(cost() for _ in range(5)) <= 0.010


def test_at_temperature_0_it_says_the_same_whatever_the_seed() -> None:
    prompt = [{"role": "user", "content": HIDDEN_COLOR_TASK}]
    assert len({reply(prompt, Random(seed), 0.0) for seed in range(5)}) == 1
    assert mean(len(reply(prompt, Random(seed), 1.5)) for seed in range(5)) == 4
