"""The budget of a whole comparison: kept over resumes, passed by no more than the calls in flight, raised to go on."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icrl_graph.benchmarks import compare, runner
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.testing import OpenAIServer
from tests.bench_child import calls_in, outcome, plan_of, player, rows_of
from tests.command_line import icrl

PRICES = {"policy": {"input": 0.0, "output": 1e6}, "judge": {"input": 0.0, "output": 1e6}}
"""A dollar a token, so that each answer costs some."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


ARMS = ("icrl", "best_of_n", "reflexion")
CALLS = 2 * (3 + 3 + 5)
"""Of all runs: two tasks, three rounds, and two reflections."""


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_total_of_calls_is_never_passed_and_raising_it_pays_for_nothing_twice(
    concurrency: int, tmp_path: Path, server: OpenAIServer
) -> None:
    runner.run(plan_of(*ARMS, concurrency=concurrency), tmp_path / "whole")
    before = server.counts["calls"]
    for total in (1, 5, 11, CALLS):
        progress = runner.run(plan_of(*ARMS, concurrency=concurrency, total_calls=total), tmp_path / "x")
        assert server.counts["calls"] - before == total
        if total < CALLS:
            left = progress.left
            assert left is not None
            assert left.total == "total_calls"
            assert progress.done + len(left.not_begun) + len(left.not_ended) == progress.runs == 6
    assert progress.left is None
    assert outcome(tmp_path / "x") == outcome(tmp_path / "whole")


def test_a_total_of_dollars_is_passed_by_no_more_than_the_calls_in_flight(tmp_path: Path, server: OpenAIServer) -> None:
    """Also where many calls wait for their turn, as the 16 of Best-of-N do."""
    for concurrency in (1, 3):
        plan = plan_of("best_of_n", rounds=16, concurrency=concurrency, total_usd=20.0, options={"prices": PRICES})
        at = len(server.reported)
        progress = runner.run(plan, tmp_path / str(concurrency))
        cost = [usage["completion_tokens"] for usage in server.reported[at:]]
        assert sum(cost) >= 20 > sum(sorted(cost)[:-concurrency])
        assert progress.left is not None
        spent = progress.total.spent
        assert (spent["usd"], spent["calls"]) == (sum(cost), len(cost))
        again = runner.run(plan, tmp_path / str(concurrency))
        assert len(server.reported) - at == len(cost)
        assert again.total.spent["usd"] == spent["usd"]


def test_what_is_cut_short_by_the_total_is_no_result(tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl", concurrency=1, total_calls=4), tmp_path / "x")
    assert [row["stopped"] for row in rows_of(tmp_path / "x").values()] == ["rounds"]
    assert calls_in(rows_of(tmp_path / "x")) == 3


@pytest.mark.parametrize("before", [0.0, 100.0])
def test_a_total_of_seconds_is_kept_over_resumes(before: float, tmp_path: Path, server: OpenAIServer) -> None:
    plan = plan_of("icrl", total_seconds=50.0)
    progress = runner.run(plan_of("icrl", limit=1, total_seconds=50.0), tmp_path / "x")
    assert (progress.left, server.counts["calls"]) == (None, 3)
    assert 0 < json.loads((tmp_path / "x" / "clock.json").read_text())["seconds"] < 50
    (tmp_path / "x" / "clock.json").write_text(json.dumps({"seconds": before}))
    left = runner.run(plan, tmp_path / "x").left
    assert server.counts["calls"] == (3 if before else 6)
    assert (left is not None) == bool(before)
    if left is not None:
        assert (left.total, len(left.not_begun), len(left.not_ended)) == ("total_seconds", 1, 0)


def test_the_time_is_up_for_calls_that_wait_for_their_turn(tmp_path: Path, server: OpenAIServer) -> None:
    """At one request an hour the second is never made, and nobody waits for it."""
    plan = plan_of("icrl", concurrency=1, requests_per_minute=1 / 60, total_seconds=3.0)
    progress = runner.run(plan, tmp_path / "x")
    assert server.counts["calls"] == 1
    assert progress.left is not None


def test_a_failed_run_counts_with_what_it_had_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(player, faults=dict.fromkeys(range(2, 99), "401")) as refusing:
        monkeypatch.setenv("OPENAI_BASE_URL", refusing.base_url)
        with pytest.raises(Exception, match="401"):
            runner.run(plan_of("icrl", limit=1), tmp_path / "x")
    with OpenAIServer(player) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        progress = runner.run(plan_of("icrl", limit=1, total_calls=2), tmp_path / "x")
        assert (server.counts["calls"], progress.left is None) == (1, False)


def test_compare_says_what_is_left_and_the_same_call_with_more_does_it(tmp_path: Path, server: OpenAIServer) -> None:
    asked: Any = {"model": "openai:policy", "limit": 2, "rounds": 2, "concurrency": 1, "folder": tmp_path / "x"}
    some = compare("game24", "icrl,best_of_n", total_calls=5, **asked)
    assert some.left is not None
    assert "total_calls is spent, after 5 calls" in repr(some)
    assert "1 runs were not begun, 1 have not ended" in repr(some)
    whole = compare("game24", "icrl,best_of_n", total_calls=8, **asked)
    assert (whole.left, len(whole.rows), server.counts["calls"]) == (None, 4, 8)


GAME = ("bench", "game24", "--model", "openai:policy", "--limit", "2", "--rounds", "2", "--concurrency", "1")


def test_the_command_tells_what_is_left_and_its_hint_does_the_rest(here: Path, server: OpenAIServer) -> None:
    done = icrl(*GAME, "--total-calls", "5", "--out", "my runs/x")
    assert (done.returncode, server.counts["calls"]) == (1, 5)
    assert "At most 5 calls in total, the calls in flight apart." in done.stdout
    assert "error: total_calls is spent, after 5 calls" in done.stderr
    _, hint = done.stderr.strip().split("such as with: ")
    assert hint == "icrl resume 'my runs/x' --total-calls 10"
    rest = icrl(*shlex.split(hint)[1:])
    assert (rest.returncode, server.counts["calls"]) == (0, 8)


def test_judging_again_has_a_preview_and_a_total_of_its_own(here: Path, server: OpenAIServer) -> None:
    assert icrl(*GAME, "--out", "x").returncode == 0
    before = server.counts["calls"]
    judge = ("--judge", "openai:judge", "--rubric", "Good?", "--prices", json.dumps(PRICES), "--out", "again")
    shown = icrl("rejudge", "x", *judge, "--total-usd", "7", "--preview")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("About 8 calls, ")
    assert "At most 7 USD in total" in shown.stdout
    assert (server.counts["calls"], (here / "again").exists()) == (before, False)
    assert json.loads(icrl("rejudge", "x", *judge, "--preview", "--json").stdout)["calls"] == 8
    some = icrl("rejudge", "x", *judge, "--total-calls", "3")
    assert some.returncode == 1, some.stdout
    assert "total_calls is spent" in some.stderr
    assert icrl("resume", "again", "--total-calls", "999").returncode == 0
    assert len(rows_of(here / "again")) == 4
    assert icrl("rejudge", "x", "--select", "last", "--preview", "--out", "y").stdout == "About 0 calls.\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_calls": 0}, "total_calls must be a finite number above 0, got 0"),
        ({"total_usd": -1.0, "options": {"prices": PRICES}}, "total_usd must be"),
        ({"total_seconds": float("nan")}, "total_seconds must be"),
        ({"total_usd": 1.0, "model": "openai:mystery"}, "total_usd needs the price of 'mystery'"),
    ],
)
def test_a_wrong_total_is_an_error_before_anything_is_paid(
    given: Any, message: str, tmp_path: Path, server: OpenAIServer
) -> None:
    plan = Plan(**{"benchmark": "game24", "arms": ["icrl"], "model": "openai:policy", **given})
    with pytest.raises(ValueError, match=message):
        runner.run(plan, tmp_path / "x")
    assert (server.counts["calls"], (tmp_path / "x").exists()) == (0, False)


def test_totals_are_for_comparisons(here: Path) -> None:
    assert icrl("run", "hidden-color:#3b9", "--model", "learner:hidden-color", "--out", "x").returncode == 0
    refused = icrl("resume", "x", "--total-usd", "1")
    assert (refused.returncode, "are for comparisons" in refused.stderr) == (2, True)
