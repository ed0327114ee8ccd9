"""Runs that an earlier version began are resumed by this one, with the answers that the earlier one would have given.

A folder of tests/saved/ is named by the commit that wrote it: its runs were killed half way, and its expected.json
holds what that commit made of copies of them when it resumed them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import icrl
from tests.saved import parts
from tests.saved.improve import run

SAVED = Path(__file__).parent / "saved"
COMMITS = ["7d71c82"]


@pytest.fixture(params=COMMITS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, which may be written to."""
    return Path(shutil.copytree(SAVED / request.param, tmp_path / "saved"))


def _expected(saved: Path) -> Any:
    return json.loads((saved / "expected.json").read_text(encoding="utf-8"))


def _without_costs(result: Any) -> Any:
    """A result or a row without what differs from one resume to the next: seconds."""
    episodes = [{name: value for name, value in each.items() if name != "costs"} for each in result["episodes"]]
    usage = {name: amount for name, amount in result["usage"].items() if name != "seconds"}
    return {**result, "episodes": episodes, "usage": usage}


@pytest.mark.parametrize(("topology", "calls"), [("icrl", 6), ("reflexion", 6), ("self_refine", 7), ("best_of_n", 6)])
def test_a_killed_run_of_improve_is_resumed_and_pays_only_for_what_was_missing(
    saved: Path, topology: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(parts, "_ask", asked.append)
    assert run(topology, str(saved / f"{topology}.sqlite")) == _expected(saved)[topology]
    assert len(asked) == calls


def test_a_killed_icrl_run_is_resumed(saved: Path) -> None:
    done = icrl("resume", str(saved / "run"), "--json")
    assert done.returncode == 0, done.stderr
    assert _without_costs(json.loads(done.stdout)) == _without_costs(_expected(saved)["run"])


def test_a_killed_icrl_bench_is_resumed_and_its_rows_and_tables_are_the_same(saved: Path) -> None:
    done = icrl("resume", str(saved / "bench"), "--json")
    assert done.returncode == 0, done.stderr
    lines = (saved / "bench" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [_without_costs(json.loads(line)) for line in lines]
    assert rows == [_without_costs(row) for row in _expected(saved)["rows"]]
    table, expected = json.loads(done.stdout), _expected(saved)["bench"]
    assert table.keys() >= expected.keys()  # a later version may tell more
    assert table["tasks"] == expected["tasks"]
    for ours, theirs in zip(table["methods"], expected["methods"], strict=True):
        for name in ("arm", "runs", "attempts", "success"):
            assert ours.get(name) == theirs.get(name)
        assert _without_intervals(ours["reward"]) == _without_intervals(theirs["reward"])


def _without_intervals(curve: Any) -> list[Any]:
    """Those of means are computed in another way by now."""
    return [{name: value for name, value in point.items() if name not in ("low", "high")} for point in curve]
