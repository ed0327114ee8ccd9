"""Game of 24 as a game of steps: its moves, its split, its text, and the players of known strength."""

from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icrl_graph.errors import UnknownTask
from icrl_graph.prompts.layouts import LAYOUTS, Style, render
from icrl_graph.tasks.game24.game import (
    Tried,
    avoid_tried,
    blind,
    moves,
    no_base,
    player,
    prune,
    read_prompt,
    solvable,
    split,
    without_repeats,
    write,
)
from icrl_graph.tasks.game24.puzzles import task
from icrl_graph.tasks.game24.verifier import can_make, check_steps, grade, verify

P = (4, 5, 6, 10)
FOUR = st.lists(st.integers(1, 13), min_size=4, max_size=4).map(lambda drawn: tuple(sorted(drawn)))


def _prompt(*attempts: tuple[str, Any], layout: str = "turns") -> Any:
    """A prompt that shows responses with what was shown of their rewards."""
    plan: Any = {"shown": [[0, len(attempts)]] if attempts else [], "instruction": "explore", "left_out": 0}
    past: Any = [{"response": answer, "shown": shown, "plan": plan} for answer, shown in attempts]
    return render([], task(P)["task"], past, plan, Style(), LAYOUTS[layout])


def test_the_splits_are_disjoint_and_hold_every_puzzle_that_whole_numbers_solve() -> None:
    parts = [set(split(name)) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [846, 100, 400]
    assert len(set.union(*parts)) == 1346
    assert (3, 3, 8, 8) not in set.union(*parts)


@settings(max_examples=30, deadline=None)
@given(FOUR, st.integers(0, 10**6))
def test_whole_numbers_lose_nothing_after_the_first_step(numbers: Any, seed: int) -> None:
    """The exact judge, which knows fractions and negative numbers, finds the same positions winnable as moves do."""
    left, rng = numbers, Random(seed)
    while len(left) > 1:
        left = rng.choice(list(moves(left)))
        assert can_make(left) == solvable(left)


@settings(max_examples=60, deadline=None)
@given(FOUR, st.integers(0, 10**6))
def test_an_attempt_is_written_so_that_the_verifier_reads_it(numbers: Any, seed: int) -> None:
    path, rng = [numbers], Random(seed)
    while len(path[-1]) > 1:
        path.append(rng.choice(list(moves(path[-1]))))
    text = write(path)
    assert [step.valid for step in check_steps(text, numbers)] == [True] * 3
    assert verify(text, numbers).value == path[-1][0]
    assert grade(text, {"numbers": list(numbers)})["steps"] == [float(can_make(left)) for left in path[1:]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_is_read_with_the_reward_of_each_step(layout: str) -> None:
    answer = write([P, (5, 6, 6), (6, 30), (24,)])
    prompt = _prompt((answer, {"value": 0.4, "steps": [1.0, 0.0, None], "feedback": "so\n\nso"}), layout=layout)
    assert read_prompt(prompt) == (
        P,
        [Tried(0, P, (5, 6, 6), 1.0), Tried(1, (5, 6, 6), (6, 30), 0.0), Tried(2, (6, 30), (24,), None)],
    )


@pytest.mark.parametrize(
    ("shown", "rewards"),
    [
        ({"value": 1.0}, [1.0, 1.0, 1.0]),
        ({"value": 0.4}, [None, None, 0.0]),
        ({"value": None}, [None, None, None]),
        ({}, [None, None, None]),
        ({"value": 3.0, "steps": [3.0, 0.0, 0.0, 0.0]}, [3.0, 0.0, 0.0]),
        ({"value": 0.0, "steps": [0.0]}, [0.0, None, None]),
    ],
    ids=["solved", "not solved", "unscored", "hidden", "a judge's four rewards", "one reward only"],
)
def test_where_steps_have_no_reward_the_attempts_reward_stands_for_the_last(shown: Any, rewards: Any) -> None:
    _, history = read_prompt(_prompt((write([P, (5, 6, 6), (6, 30), (24,)]), shown)))
    assert [step.reward for step in history] == rewards


def test_of_a_wrong_attempt_the_steps_before_the_mistake_are_read_and_fractions_too() -> None:
    wrong = "10 - 4 = 6 (left: 5 6 6)\n5 * 6 = 31 (left: 6 31)\n31 - 6 = 25 (left: 25)\nAnswer: 25"
    fraction = "5 / 4 = 5/4 (left: 6 10 5/4)\nI give up."
    _, history = read_prompt(_prompt((wrong, {"value": 0, "steps": [1, 0, 0]}), (fraction, {"value": 0, "steps": [0]})))
    assert [step.after for step in history] == [(5, 6, 6), (Fraction(5, 4), 6, 10)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Make 24 of 1 2 3 4.",
        task(P)["task"] + " Please.",
        task(P)["task"][1:],
        task(P)["task"].replace("10 ex", "14 ex"),
    ],
)
def test_another_task_is_refused(text: str) -> None:
    with pytest.raises(UnknownTask, match="Game of 24 only.*openai:gpt"):
        read_prompt([{"role": "user", "content": text}])


def _first_steps(rule: Any, prompt: Any, count: int = 60) -> set[str]:
    reply = player(rule, no_base)
    return {reply(prompt, Random(seed), None).splitlines()[0].split("left")[1] for seed in range(count)}


ALIVE, DEAD = (5, 6, 6), (4, 10, 11)


def _history() -> Any:
    return _prompt(
        (write([P, ALIVE, (6, 30), (24,)]), {"value": 0.4, "steps": [1.0, 0.0, 0.0]}),
        (write([P, DEAD, (4, 110), (440,)]), {"value": 0.0, "steps": [0.0, 0.0, 0.0]}),
    )


def test_the_teacher_goes_where_a_step_was_rewarded_and_not_where_one_failed() -> None:
    assert _first_steps(prune, _history()) == {": 5 6 6)"}
    seconds = {player(prune, no_base)(_history(), Random(seed), None).splitlines()[1] for seed in range(60)}
    assert len(seconds) > 3
    assert not any("left: 6 30" in step for step in seconds)


def test_the_teacher_gives_up_a_pair_once_every_way_to_finish_it_has_failed() -> None:
    failed = [(write([P, ALIVE, (6, 30), last]), {"value": 0.4, "steps": [1.0, None, 0.0]}) for last in moves((6, 30))]
    seconds = {player(prune, no_base)(_prompt(*failed), Random(seed), None).splitlines()[1] for seed in range(60)}
    assert not any("left: 6 30" in step for step in seconds)


def test_avoiding_what_was_tried_looks_at_no_reward() -> None:
    steps = _first_steps(avoid_tried, _history())
    assert len(steps) > 10
    assert not {": 5 6 6)", ": 4 10 11)"} & steps


def test_a_blind_player_looks_at_nothing() -> None:
    assert _first_steps(blind, _history()) == _first_steps(blind, _prompt())
    assert len(_first_steps(blind, _prompt(), 400)) == len(moves(P))


def test_without_repeats_no_attempt_is_repeated() -> None:
    reply = without_repeats(lambda messages, rng, temperature: rng.choice(["a", "b", "c"]))
    for seed in range(20):
        assert reply(_prompt(("a", {"value": 0}), ("c", {"value": 0})), Random(seed), None) == "b"
    assert reply(_prompt(*((answer, {}) for answer in "abc")), Random(0), None) in "abc"


def test_at_temperature_0_the_likeliest_move_is_taken() -> None:
    reply = player(blind, lambda options: [float(sum(option)) for option in options])
    assert {reply(_prompt(), Random(seed), 0.0).splitlines()[0] for seed in range(5)} == {"10 * 6 = 60 (left: 4 5 60)"}
