"""An evaluator that fails again and again, before anything is scored, ends the run and says why."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from icrl_graph import aimprove, compare, create_icrl, improve, llm_judge
from icrl_graph.api import Result
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.command_line import icrl
from tests.helpers import play

LOOPS = [name for name in TOPOLOGIES if name != "best_of_n"]
WAYS = [improve, aimprove]


def broken(response: str) -> float:
    raise FileNotFoundError("no module of tests")


def _result(way: Any, score: Any = broken, **options: Any) -> Result:
    rounds = {} if "n" in options else {"rounds": 40}
    given = {"model": ScriptedModel(lambda: "42"), **rounds, **options}
    played = way("Say 42.", score, **given)
    result: Result = asyncio.run(played) if asyncio.iscoroutine(played) else played
    return result


def _fails_at(*attempts: int) -> Any:
    """An evaluator that fails at these attempts, counted from 1."""
    number = 0

    def score(response: str) -> float:
        nonlocal number
        number += 1
        return broken(response) if number in attempts else 0.5

    return score


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", LOOPS)
def test_three_failures_in_a_row_stop_a_run_that_has_no_score_yet(topology: str, way: Any) -> None:
    result = _result(way, topology=topology)
    assert (result.stopped, len(result.episodes), result.reward) == ("evaluator", 3, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_round_of_best_of_n_is_judged_at_once_whatever_fails(way: Any) -> None:
    result = _result(way, topology="best_of_n", n=5)
    assert (result.stopped, len(result.episodes)) == ("rounds", 5)


FAILING: dict[str, Any] = {
    "raises": broken,
    "is a Runnable": RunnableLambda(broken),
    "is no number": lambda: "good",
    "is not finite": lambda: float("nan"),
    "is out of bounds": lambda: 7.0,
    "gives no verdict": llm_judge(lambda: "I can't say.", "Is it right?"),
}


@pytest.mark.parametrize("how", FAILING)
def test_whatever_leaves_an_attempt_unscored_with_a_reason_is_a_failure(how: str) -> None:
    assert _result(improve, FAILING[how], bounds=(0, 1)).stopped == "evaluator"


@pytest.mark.parametrize("option", [0, None])
@pytest.mark.parametrize("way", WAYS)
def test_an_option_turns_it_off(way: Any, option: int | None) -> None:
    result = _result(way, rounds=5, max_evaluator_failures=option)
    assert (result.stopped, len(result.episodes)) == ("rounds", 5)


def test_an_option_sets_how_many() -> None:
    assert len(_result(improve, max_evaluator_failures=1).episodes) == 1
    out, _ = play(create_icrl(lambda: "42", broken, rounds=9), {"task": "x"}, context={"max_evaluator_failures": 5})
    assert (out["stopped"], out["rounds_done"]) == ("evaluator", 5)


@pytest.mark.parametrize(
    ("failing", "stopped"),
    [((2, 3, 4, 5), "rounds"), ((1, 2), "rounds"), ((1, 2, 4, 5, 6), "rounds"), ((1, 2, 3), "evaluator")],
)
def test_one_score_shows_that_the_evaluator_works(failing: tuple[int, ...], stopped: str) -> None:
    assert _result(improve, _fails_at(*failing), rounds=6).stopped == stopped


def test_an_evaluator_that_gives_none_has_not_failed() -> None:
    assert _result(improve, lambda: None, rounds=5).stopped == "rounds"


@pytest.mark.parametrize("on_error", [0, "unscored"])
def test_what_on_error_takes_for_a_wrong_answer_is_no_failure(on_error: Any) -> None:
    assert _result(improve, rounds=5, on_error=on_error).stopped == "rounds"


def test_attempts_without_an_answer_are_no_failures_of_the_evaluator() -> None:
    model = ScriptedModel(["42", "", "42", "", "", "42", *["42"] * 34])
    result = _result(improve, model=model)
    assert (result.stopped, len(result.episodes)) == ("evaluator", 6)


@pytest.mark.parametrize("cap", [{"max_calls": 3}, {"rounds": 3}])
def test_a_run_that_is_over_anyway_says_so(cap: Any) -> None:
    assert _result(improve, **cap).stopped in ("calls", "rounds")


def test_a_printed_result_tells_why_nothing_is_scored() -> None:
    result = _result(improve)
    assert "stopped: evaluator" in str(result)
    assert str(result).count("42  ! FileNotFoundError: no module of tests") == 3
    assert result._repr_html_().count("FileNotFoundError: no module of tests") == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", LOOPS)
def test_the_same_call_goes_on_once_the_evaluator_works(topology: str, way: Any, tmp_path: Path) -> None:
    kept: Any = {"topology": topology, "path": tmp_path / "run.sqlite", "rounds": 8}
    score = _fails_at(1, 2, 3, 4, 5, 6)
    seen = [_result(way, score, **kept) for _ in range(4)]
    assert [each.stopped for each in seen] == ["evaluator", "evaluator", "rounds", "rounds"]
    assert [len(each.episodes) for each in seen] == [3, 6, 8, 8]


def test_a_comparison_says_why_its_runs_have_no_score(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"task": "Say 42."}\n')
    options: Any = {"model": lambda: "42", "evaluator": broken, "rounds": 8, "folder": tmp_path / "out"}
    result = compare(tmp_path / "tasks.jsonl", "icrl,best_of_n", **options, max_evaluator_failures=4)
    found = {row["arm"]: (row["stopped"], len(row["episodes"])) for row in result.unscored}
    assert found == {"icrl": ("evaluator", 4), "best_of_n": ("rounds", 8)}


def test_the_command_says_why_and_how_to_go_on(here: Path) -> None:
    (here / "mine.py").write_text("def model():\n    return '42'\n\ndef score():\n    raise KeyError('a key')\n")
    parts = ("--model", "mine.py:model", "--evaluator", "mine.py:score")
    done = icrl("run", "Say 42.", *parts, "--rounds", "9", "--out", "my run")
    assert done.returncode == 1
    assert "the evaluator failed too often in a row: KeyError: 'a key'\n" in done.stderr
    assert "resume with: icrl resume 'my run'\n" in done.stderr
    assert json.loads(icrl("resume", "my run", "--json").stdout)["usage"]["calls"] == 6
    off = icrl("run", "Say 42.", *parts, "--rounds", "5", "--set", "max_evaluator_failures=0", "--out", "off")
    assert "stopped by rounds after 5 calls" in off.stdout
