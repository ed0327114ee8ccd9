"""The game, and its reference policies."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph.tasks.hidden_color import (
    closeness,
    colors,
    level,
    posterior,
    read_color,
    task,
    tasks,
    uniform,
    write_color,
)
from icrl_graph.topologies.methods import create_icrl
from tests.helpers import play

digits = st.integers(0, 15)
any_color = st.tuples(digits, digits, digits)


@given(any_color)
def test_a_color_reads_as_it_is_written(color: Any) -> None:
    assert read_color(write_color(color)) == color


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#3B9", (3, 11, 9)),
        ("first #000, then #fff.", (15, 15, 15)),
        ("**#3b9**", (3, 11, 9)),
        (r"\boxed{\#3b9}", (3, 11, 9)),
        ("＃３ｂ９", (3, 11, 9)),
        ("#3\u200bb9", (3, 11, 9)),
        ("&#35;3b9", (3, 11, 9)),
        ("#33bb99", (3, 11, 9)),
        ("#33bb98", None),
        ("#٣b9", None),
        ("#12", None),
        ("#1234", None),
        ("#12g", None),
        ("", None),
    ],
)
def test_the_last_color_of_a_text_counts(text: str, color: Any) -> None:
    assert read_color(text) == color


@given(any_color, any_color)
def test_closeness_is_symmetric_and_whole_for_the_secret_only(a: Any, b: Any) -> None:
    assert level(a, b) == level(b, a)
    assert (level(a, b) == 20) == (a == b)
    reward = closeness(write_color(a), {"secret": write_color(b)})
    assert reward["value"] == level(a, b) / 20
    assert reward["metric"] == float(a == b)


def test_a_response_without_a_color_earns_nothing_and_the_feedback_says_why() -> None:
    reward = closeness("blue", {"secret": "#00f"})
    assert (reward["value"], reward["metric"]) == (0.0, 0.0)
    assert "no color" in reward["feedback"]


def test_a_game_without_a_secret_is_an_error() -> None:
    with pytest.raises(ValueError, match="secret"):
        closeness("#000", {})


def test_the_splits_are_disjoint_and_together_whole() -> None:
    train, test = set(colors("train")), set(colors("test"))
    assert (len(train), len(test), len(train | test)) == (3096, 1000, 4096)


def test_tasks_are_seeded_and_different() -> None:
    games = tasks(50, seed=1)
    assert games == tasks(50, seed=1) != tasks(50, seed=2)
    assert len({game["task_data"]["secret"] for game in games}) == 50
    assert all(read_color(game["task_data"]["secret"]) in colors("test") for game in games)


@pytest.mark.parametrize("count", [0, 1001, -1])
def test_more_games_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 1000.*got {count}"):
        tasks(count)


def test_uniform_guesses_all_over() -> None:
    rng = Random(0)
    guesses = Counter(uniform([], rng)[1] for _ in range(1600))
    assert len(guesses) == 16
    assert max(guesses.values()) < 160


def test_posterior_sampling_solves_the_game() -> None:
    for seed, secret in enumerate(colors("test")[:4]):
        output, _ = play(create_icrl(posterior, closeness, rounds=14, target=1.0, seed=seed), task(secret))
        assert output["answer"] == write_color(secret)


def test_posterior_sampling_keeps_to_what_the_rewards_allow() -> None:
    _, episodes = play(create_icrl(posterior, closeness, rounds=6, seed=0), task((3, 11, 9)))
    seen: list[Any] = []
    for episode in episodes:
        guess = read_color(episode["response"])
        assert guess is not None
        assert all(level(earlier, guess) == shown for earlier, shown in seen)
        seen.append((guess, level(guess, (3, 11, 9))))
