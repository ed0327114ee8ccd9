"""Registered comparisons: what is claimed is frozen before the first call, and the report says what became of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import compare
from icrl_graph.benchmarks.registered import FILE
from tests.command_line import icrl

TASKS = [{"task": f"Say {number}.", "task_data": {"number": number}, "id": f"t{number}"} for number in range(6)]


def say(messages: list[dict[str, Any]]) -> str:
    return "0"


def score(response: str) -> float:
    return 0.0


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Plays a comparison of six tasks in one folder."""
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    fixed: Any = {"model": say, "evaluator": score, "rounds": 2, "solved_at": 1.0, "folder": tmp_path / "out"}

    def run(arms: str = "icrl,best_of_n", **given: Any) -> Any:
        return compare(tasks, arms, **{**fixed, **given})

    return run


def test_a_comparison_that_was_run_as_it_was_registered_says_so_with_the_hash_and_what_became_of_its_claims(
    play: Any, tmp_path: Path
) -> None:
    result = play(register=True)
    saved = json.loads((tmp_path / "out" / FILE).read_text())
    lines = result.verdict["registered"]
    assert saved["sha256"] in lines[0]
    assert "icrl has more success than best_of_n" in lines[0]
    assert lines[1:] == ["What was run is what was registered.", "Not shown: better than best_of_n."]
    assert play(register=True).verdict["registered"] == lines  # the same again resumes it


def test_what_was_not_registered_has_no_such_lines(play: Any) -> None:
    assert play().verdict["registered"] == []


def test_what_is_added_later_is_told_as_a_departure(play: Any) -> None:
    play(register=True, limit=4)
    lines = play("icrl,best_of_n,icrl+show=zero", limit=6, seeds=2).verdict["registered"]
    assert lines[1].startswith("What was run is not what was registered: icrl+show=zero was added later")
    for part in ("limit is 6, registered was 4", "seeds is 2, registered was 1", "2 further tasks were played"):
        assert part in lines[1]


def test_runs_that_were_registered_and_are_missing_are_counted(play: Any) -> None:
    result = play(register=True, total_calls=10, concurrency=1)
    assert any("of 12 runs have not ended" in line for line in result.verdict["registered"])


def test_a_registration_that_was_edited_is_noticed(play: Any, tmp_path: Path) -> None:
    result = play(register=True)
    path = tmp_path / "out" / FILE
    path.write_text(path.read_text().replace('"success"', '"reward"'))
    again = type(result).read(tmp_path / "out")
    assert "registered.json was edited after it was written" in again.verdict["registered"][1]


def test_a_comparison_that_has_begun_can_not_be_registered_and_one_that_was_not_otherwise(play: Any) -> None:
    play(register=True, folder=None)
    play()
    with pytest.raises(ValueError, match="holds runs already, and what is claimed is registered before the first"):
        play(register=True)


def test_another_registration_of_the_same_folder_is_refused(play: Any) -> None:
    play(register=True)
    with pytest.raises(ValueError, match="was registered on .*, and this differs in claims, plan and code;"):
        play("icrl,best_of_n,icrl+show=zero", register=True)


def test_the_command_prints_the_hash_before_the_first_call(here: Path) -> None:
    done = icrl("bench", "hidden_color", "--limit", "2", "--rounds", "2", "--register", "--out", "x")
    assert done.returncode == 0, done.stderr
    sha256 = json.loads((here / "x" / FILE).read_text())["sha256"]
    assert f"Registered in x/registered.json, sha256 {sha256}" in done.stdout
    assert done.stdout.count(sha256) == 2  # and the verdict says it again
