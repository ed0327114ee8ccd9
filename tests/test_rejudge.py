"""Answers judged or selected anew: nothing is generated, nothing is paid again."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import Again, Plan, read_plan
from icrl_graph.benchmarks.rejudge import rejudge
from icrl_graph.benchmarks.report import runs
from icrl_graph.benchmarks.results import read_results
from icrl_graph.state.episode import value_of
from icrl_graph.testing import OpenAIServer

LENGTH = """
def length(response, task_data):
    return len(response) / 100

def broken(response):
    raise RuntimeError("no verdict today")
"""


def _again(folder: Path, **given: Any) -> Plan:
    plain: Any = {"evaluator": None, "judge": None, "rubric": None, "as_metric": False, "select": None}
    return replace(read_plan(folder), again=cast(Again, {"folder": str(folder), **plain, **given}))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    arms = ["icrl", "best_of_n+select=majority", "icrl+show=zero"]
    runner.run(Plan("hidden-color", arms, "learner:hidden-color", limit=3, rounds=4, solved_at=1.0), folder)
    (folder / "length.py").write_text(LENGTH)
    return folder


def _without_costs(rows: Any) -> Any:
    def plain(row: Any) -> Any:
        kept = {name: value for name, value in row.items() if name != "usage"}
        return {**kept, "episodes": [{k: v for k, v in e.items() if k != "costs"} for e in row["episodes"]]}

    return {cell: plain(row) for cell, row in rows.items()}


def test_the_same_evaluator_gives_the_same_rows(played: Path, tmp_path: Path) -> None:
    evaluator = "icrl_graph.tasks.hidden_color:closeness"
    rejudge(_again(played, evaluator=evaluator), tmp_path / "again")
    again, before = read_results(tmp_path / "again").rows, read_results(played).rows
    assert _without_costs(again) == _without_costs(before)


def test_another_evaluator_gives_other_rewards_for_the_same_answers(played: Path, tmp_path: Path) -> None:
    rejudge(_again(played, evaluator=f"{played}/length.py:length"), tmp_path / "again")
    for cell, row in read_results(tmp_path / "again").rows.items():
        before = read_results(played).rows[cell]
        assert [e["response"] for e in row["episodes"]] == [e["response"] for e in before["episodes"]]
        assert [value_of(e) for e in row["episodes"]] == [len(e["response"]) / 100 for e in row["episodes"]]
        assert [e["shown"] for e in row["episodes"]] == [e["shown"] for e in before["episodes"]]
        assert row["metric"] == before["episodes"][row["chosen"][-1] or 0]["reward"]["metric"]


def test_the_prompts_stay_those_that_led_to_the_answers(played: Path, tmp_path: Path) -> None:
    rejudge(_again(played, evaluator=f"{played}/length.py:length"), tmp_path / "again")
    before = runs.browse(read_plan(played), read_results(played).rows)
    after = runs.browse(read_plan(tmp_path / "again"), read_results(tmp_path / "again").rows)
    assert before["messages"] == after["messages"]


def test_a_held_out_judge_becomes_the_metric_and_the_rewards_stay(played: Path, tmp_path: Path) -> None:
    asked = _again(played, evaluator=f"{played}/length.py:length", as_metric=True)
    rejudge(asked, tmp_path / "again")
    for cell, row in read_results(tmp_path / "again").rows.items():
        before = read_results(played).rows[cell]
        assert [value_of(e) for e in row["episodes"]] == [value_of(e) for e in before["episodes"]]
        assert {e["reward"]["metric"] for e in row["episodes"]} == {0.04}
        assert (row["chosen"], row["rewarded_by"]) == (before["chosen"], before["rewarded_by"])


@pytest.mark.parametrize("select", ["last", "majority", "reward"])
def test_another_selection_costs_nothing(played: Path, tmp_path: Path, select: str) -> None:
    rejudge(_again(played, select=select), tmp_path / "again")
    for cell, row in read_results(tmp_path / "again").rows.items():
        assert row["usage"]["calls"] == read_results(played).rows[cell]["usage"]["calls"]
        if select == "last":
            assert row["chosen"] == [0, 1, 2, 3]
            assert row["answer"] == row["episodes"][-1]["response"]


def test_a_judge_is_paid_for_its_verdicts_alone_and_once(
    played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer(lambda: "Clear enough.\nScore: 7") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        asked = _again(played, judge="openai:judge", rubric="Is it a color?")
        for _ in range(2):  # the second time there is nothing left to do
            rejudge(asked, tmp_path / "again")
        assert server.counts["answered"] == 3 * 3 * 4  # no structured output there, but its words say the score
    for row in read_results(tmp_path / "again").rows.values():
        assert {value_of(e) for e in row["episodes"]} == {7.0}
        assert (row["rewarded_by"], row["usage"]["calls"]) == ("judged", 4 + 4)


def test_an_attempt_without_a_verdict_is_unscored(played: Path, tmp_path: Path) -> None:
    rejudge(_again(played, evaluator=f"{played}/length.py:broken"), tmp_path / "again")
    for row in read_results(tmp_path / "again").rows.values():
        assert (row["reward"], row["episodes"][0]["reward"]["value"]) == (None, None)
        assert "no verdict today" in row["episodes"][0]["reward"]["error"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "name an evaluator or a judge"),
        ({"as_metric": True, "select": "last"}, "which metric"),
        ({"select": "luck"}, "choose one of 'reward', 'majority', 'last_majority', 'last'"),
        ({"evaluator": "a.py:b", "judge": "openai:x"}, "one of the two"),
        ({"judge": "learner:hidden-color"}, "no rubric of its own"),
    ],
)
def test_a_wrong_plan_is_an_error_before_anything_is_written(
    played: Path, tmp_path: Path, given: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rejudge(_again(played, **given), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_was_judged_again_is_not_judged_again(played: Path, tmp_path: Path) -> None:
    rejudge(_again(played, select="last"), tmp_path / "again")
    with pytest.raises(ValueError, match="was judged again itself"):
        rejudge(_again(tmp_path / "again", select="last"), tmp_path / "third")


def test_all_rows_share_one_rate_limit(played: Path, tmp_path: Path) -> None:
    """Nine rows of four answers, and two connections are enough: never more calls are in flight."""
    with OpenAIServer(lambda: "Fine.\nScore: 7", latency=0.01) as server:
        asked = _again(played, judge="openai:judge", rubric="Is it a color?")
        rejudge(replace(asked, concurrency=2, base_url=server.base_url), tmp_path / "again")
        assert server.counts["connections"] <= 2
        assert server.counts["answered"] == 36


def test_a_selection_is_not_overruled_by_what_was_judged_again_before(tmp_path: Path) -> None:
    plan = Plan("hidden-color", ["icrl+retests=2"], "learner:hidden-color", limit=2, rounds=4, solved_at=1.0)
    runner.run(plan, tmp_path / "x")
    rejudge(_again(tmp_path / "x", select="last"), tmp_path / "last")
    for row in read_results(tmp_path / "last").rows.values():
        assert (row["chosen"][-1], row["answer"]) == (3, row["episodes"][-1]["response"])
