"""Calls that are handed out to the tasks where they help most."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph.benchmarks import Benchmark, compare
from icrl_graph.benchmarks.allocation import Played, hand_out
from icrl_graph.benchmarks.results import Cell
from icrl_graph.errors import ThreadMismatch

NEEDED = {"easy": 1, "fair": 2, "hard": 7, "hopeless": 100}
"""By task, the attempt that solves it."""


class Player:
    """Solves a task with the attempt that it takes; counts the calls that it was paid for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, messages: Any) -> str:
        name = re.findall(r"Solve (\w+)", messages[0]["content"])[0]
        self.calls.append(name)
        return f"{name} {self.calls.count(name)}"


def score(response: str) -> float:
    name, attempt = response.split()
    return 1.0 if int(attempt) >= NEEDED[name] else 0.5


SUMS = Benchmark(
    about="tasks of several difficulties",
    items=lambda: list(NEEDED),
    read=lambda name: {"task": f"Solve {name}"},
    evaluator=score,
)


def compared(folder: Path, player: Player, arms: str = "icrl", **options: Any) -> Any:
    given: Any = {"allocate": 16, "target": 1.0, "concurrency": 1, "memory": "none", **options}
    return compare(SUMS, arms, model=player, folder=folder, on_progress=lambda progress: None, **given)


def calls_of(result: Any, arm: str) -> dict[str, int]:
    return {cell.item: row["usage"]["calls"] for cell, row in result.rows.items() if cell.arm == arm}


def test_calls_go_to_the_tasks_that_need_them_and_no_more_than_the_total(tmp_path: Path) -> None:
    result = compared(tmp_path, Player(), "icrl+allocate=16", allocate=None)
    calls = calls_of(result, "icrl+allocate=16")
    assert calls == {"easy": 1, "fair": 2, "hard": 7, "hopeless": 6}
    assert sum(calls.values()) == 16


def test_the_even_split_is_played_beside_it_at_the_same_total(tmp_path: Path) -> None:
    player = Player()
    result = compared(tmp_path, player, memory="none")
    even, allocated = result.plan.arms
    assert (even, allocated, result.plan.rounds) == ("icrl+max_calls=4", "icrl+allocate=16", 4)
    assert set(calls_of(result, even).values()) <= {1, 2, 3, 4}


def test_the_table_names_the_totals_and_judges_by_all_calls(tmp_path: Path) -> None:
    result = compared(tmp_path, Player(), "icrl+max_calls=4,icrl+allocate=16", allocate=None, rounds=4)
    shown = str(result)
    assert "within 4 calls each, or 16 allocated" in " ".join(shown.split())
    assert "in total" in shown
    assert result.summary["allocated"] == {"icrl+allocate=16": 16}
    assert result.summary["methods"][1]["equal"]["success"]["mean"] == 0.75


def test_a_comparison_that_was_killed_goes_on_where_it_was_and_pays_nothing_twice(tmp_path: Path) -> None:
    whole, killed = Player(), Player()
    expected = calls_of(compared(tmp_path / "whole", whole, "icrl+allocate=16", allocate=None), "icrl+allocate=16")

    class Killed(Player):
        def __call__(self, messages: Any) -> str:
            if len(killed.calls) == 9 and not self.calls:
                self.calls.append("killed")
                raise KeyboardInterrupt
            return killed(messages)

    player = Killed()
    with pytest.raises(KeyboardInterrupt):
        compared(tmp_path / "killed", player, "icrl+allocate=16", allocate=None)
    result = compared(tmp_path / "killed", player, "icrl+allocate=16", allocate=None)
    assert calls_of(result, "icrl+allocate=16") == expected
    assert len(killed.calls) == len(whole.calls) == 16


def test_a_drained_comparison_makes_no_row_before_all_calls_are_handed_out(tmp_path: Path) -> None:
    control, player = RunControl(), Player()

    class Drained(Player):
        def __call__(self, messages: Any) -> str:
            if len(player.calls) == 5:
                control.request_drain("test")
            return player(messages)

    arguments: Any = {"arms": "icrl+allocate=16", "allocate": None}
    drained = Drained()
    with pytest.raises(GraphDrained):
        compared(tmp_path, drained, control=control, **arguments)
    assert (tmp_path / "results.jsonl").read_bytes() == b""
    compared(tmp_path, drained, **arguments)
    assert len(player.calls) == 16


def by_task(scores: dict[str, list[float | None]]) -> Any:
    """An evaluator that gives each task its scores in turn, the last one again and again."""
    left = {name: list(values) for name, values in scores.items()}

    def evaluator(response: str) -> float | None:
        values = left[response.split()[0]]
        return values.pop(0) if len(values) > 1 else values[0]

    return evaluator


def allocated(folder: Path, scores: dict[str, list[float | None]]) -> dict[str, int]:
    benchmark = replace(SUMS, evaluator=by_task(scores))
    result = compare(
        benchmark, "icrl+allocate=24", model=Player(), folder=folder, target=1.0, concurrency=1, memory="none"
    )
    return calls_of(result, "icrl+allocate=24")


def test_a_run_whose_attempts_are_not_scored_any_more_does_not_take_all_calls(tmp_path: Path) -> None:
    calls = allocated(tmp_path, {"easy": [0.1, None], "fair": [0.5], "hard": [0.5], "hopeless": [0.5]})
    assert max(calls.values()) <= 10
    assert min(calls.values()) >= 4


def test_a_run_that_has_no_score_yet_gets_further_attempts(tmp_path: Path) -> None:
    calls = allocated(tmp_path, {"easy": [None, None, 1.0], "fair": [0.5], "hard": [0.5], "hopeless": [0.5]})
    assert calls["easy"] == 3


def test_calls_of_a_run_that_raises_are_counted(tmp_path: Path) -> None:
    parts, player = tmp_path / "parts.py", Player()
    parts.write_text("def breaks(number, past):\n    return 'plain' if number < 2 else 1 / 0\n")
    arm = f"icrl+schedule={parts}:breaks+allocate=9"
    told: list[Any] = []
    compare(SUMS, arm, model=player, folder=tmp_path / "runs", target=2.0, concurrency=1, on_progress=told.append)
    assert told[-1].failed
    assert len(player.calls) <= 9


def test_what_was_handed_out_once_takes_no_more_tasks(tmp_path: Path) -> None:
    compared(tmp_path, Player(), "icrl+allocate=9", allocate=None, limit=2)
    with pytest.raises(ThreadMismatch, match="limit"):
        compared(tmp_path, Player(), "icrl+allocate=9", allocate=None, limit=3)


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ("icrl", {"allocate": 3}, "a call for each of the 4 runs of an arm at least"),
        ("icrl", {"rounds": 4}, "takes the place of rounds"),
        ("icrl", {"target": None}, "give target or bounds"),
        ("icrl", {"retests": 2}, "judged again"),
        ("best_of_n+allocate=16", {"allocate": None, "memory": None}, "no rounds"),
        ("icrl+allocate=many", {"allocate": None}, "allocate is a number"),
        ("icrl+allocate=3", {"allocate": None}, "4 calls for their first attempts"),
    ],
)
def test_calls_that_cannot_be_allocated_are_refused_before_anything_is_paid(
    tmp_path: Path, arms: str, options: Any, message: str
) -> None:
    player = Player()
    with pytest.raises(ValueError, match=message):
        compared(tmp_path, player, arms, **options)
    assert player.calls == []


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 40), st.integers(1, 3), st.integers(1, 4))
def test_no_total_is_passed_and_none_is_left_that_could_still_help(
    needed: list[int], total: int, calls_each: int, concurrency: int
) -> None:
    cells = {Cell("arm", str(at), 0): least for at, least in enumerate(needed)}

    async def play(cell: Cell, rounds: int) -> Played:
        await asyncio.sleep(0)
        solved = rounds >= cells[cell]
        return Played(rounds, rounds * calls_each, (*[0.5] * (rounds - 1), 1.0 if solved else 0.5), is_over=solved)

    start = dict.fromkeys(cells, Played())
    played = asyncio.run(hand_out(start, total, calls_each, 1.0, play, lambda: True, concurrency))
    spent = sum(each.calls for each in played.values())
    assert spent <= total
    assert spent + calls_each > total or all(each.is_over for each in played.values())
    open_rounds = [each.rounds for each in played.values() if not each.is_over]
    assert not open_rounds or max(open_rounds) - min(open_rounds) <= 1


def test_calls_are_handed_out_to_methods_that_have_rounds_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allocate=16 hands calls out round by round, and best_of_n has one round"):
        compared(tmp_path, Player(), "best_of_n")
