"""The folder of a comparison: what is kept of it, whatever happened to it, and what may be added to it."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.api import Comparison
from icrl_graph.benchmarks.plan import Plan, open_folder, read_plan
from icrl_graph.benchmarks.results import Cell, append, appending, checked_results, failure, has_ended, read_results
from icrl_graph.benchmarks.storage import SqliteStorage
from icrl_graph.errors import ThreadMismatch
from icrl_graph.testing import OpenAIServer
from tests.bench_child import calls_in, outcome, plan_of, player, rows_of


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


# --------------------------------------------------------------------------------------------------------------- lines

ROWS = st.lists(
    st.builds(
        lambda item, said: {"arm": "icrl", "item": item, "seed": 0, "answer": said},
        st.sampled_from(["1", "2", "3", "ü/\u2028"]),
        st.text(st.sampled_from('aü\u2028\x85\ud800\0\n\r"\\😀'), max_size=9),
    ),
    min_size=1,
    max_size=5,
)


def latest(rows: list[Any]) -> dict[Cell, Any]:
    return {Cell(row["arm"], row["item"], row["seed"]): row for row in rows}


@given(ROWS, ROWS, st.data())
def test_wherever_the_last_write_was_cut_off_no_other_row_is_lost(before: Any, after: Any, data: Any) -> None:
    """Whatever a row holds: line separators and lone surrogates, too."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "results.jsonl"
        with appending(folder) as file:
            for row in before[:-1]:
                append(file, row)
            safe = file.tell()
            append(file, before[-1])
            end = file.tell()
        cut = data.draw(st.integers(safe, end))
        path.write_bytes(path.read_bytes()[:cut])
        kept = before if cut >= end - 1 else before[:-1]
        assert read_results(folder) == (latest(kept), [len(before)] if safe < cut < end - 1 else [])
        with appending(folder) as file:
            for row in after:
                append(file, row)
        assert read_results(folder).rows == latest([*kept, *after])


@pytest.mark.parametrize(
    "garbage", [b"{", b"\0" * 50, b"\xff\xfe", b"[]", b"3", b'{"arm": "icrl"}', b'{"arm": "a", "item": [], "seed": 0}']
)
def test_a_damaged_line_is_reported_by_its_number_and_costs_no_other(garbage: bytes, tmp_path: Path) -> None:
    one, two = failure(Cell("icrl", "1", 0), "x"), failure(Cell("icrl", "2", 0), "x")
    lines = [json.dumps(one).encode(), garbage, json.dumps(two).encode(), b""]
    (tmp_path / "results.jsonl").write_bytes(b"\n".join(lines))
    rows, damaged = read_results(tmp_path)
    assert (list(rows.values()), damaged) == ([one, two], [2])


ROW = {"arm": "icrl", "item": "4,5,6,10", "seed": 0}


def _edited(server: OpenAIServer, folder: Path) -> Path:
    runner.run(plan_of("icrl"), folder)
    return folder / "results.jsonl"


EDITS: dict[str, tuple[Any, int]] = {
    "pretty-printed": (lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows), 2),
    "an array": (lambda rows: json.dumps(rows, indent=1), 1),
    "a comma that is missing": (lambda rows: _text(rows).replace('"item": ', '"item" ', 1), 1),
    "a comment": (lambda rows: _text(rows[:1]) + "# this one is odd\n" + _text(rows[1:]), 2),
    "a text for a number": (lambda rows: _text([rows[0], {**rows[1], "reward": "high"}]), 2),
    "a truth value for a number": (lambda rows: _text([{**rows[0], "metric": True}, rows[1]]), 1),
    "a key that is missing": (lambda rows: _text([rows[0], {n: v for n, v in rows[1].items() if n != "episodes"}]), 2),
    "an attempt that is not whole": (lambda rows: _text([rows[0], {**rows[1], "episodes": [{"round": 0}]}]), 2),
    "usage of texts": (lambda rows: _text([rows[0], {**rows[1], "usage": {"calls": "3"}}]), 2),
    "no name": (lambda rows: _text([rows[0], {n: v for n, v in rows[1].items() if n != "seed"}]), 2),
}


def _text(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_was_edited_is_refused_with_its_line_and_nothing_is_paid(
    edit: str, tmp_path: Path, server: OpenAIServer
) -> None:
    path, (change, line) = _edited(server, tmp_path / "x"), EDITS[edit]
    path.write_text(change([json.loads(row) for row in path.read_text().splitlines()]))
    kept, paid = path.read_bytes(), server.counts["calls"]
    looks: list[Any] = [lambda: runner.run(plan_of("icrl"), tmp_path / "x"), lambda: Comparison.read(tmp_path / "x")]
    for look in looks:
        with pytest.raises(ValueError, match=rf"x/results\.jsonl, line {line}: "):
            look()
    assert (server.counts["calls"], path.read_bytes()) == (paid, kept)


@pytest.mark.parametrize("end", ["\r\n", "\n\n", " \n"])
def test_a_file_whose_rows_are_whole_is_read_however_an_editor_ended_its_lines(
    end: str, tmp_path: Path, server: OpenAIServer
) -> None:
    path = _edited(server, tmp_path / "x")
    path.write_bytes(path.read_text().replace("\n", end).encode())
    assert runner.run(plan_of("icrl"), tmp_path / "x").done == 2
    assert server.counts["calls"] == 6


def test_a_row_that_was_cut_off_anywhere_is_no_edit(tmp_path: Path) -> None:
    row = {**ROW, "error": 'ü\u2028"\\ \ud83d', "usage": {"usd": -1.5e-7, "calls": 3}, "more": [None, True, {"a": []}]}
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for cut in range(1, len(line)):
        for lost in (b"", b"\0" * 9):
            (tmp_path / "results.jsonl").write_bytes(line[:cut] + lost + b"\n" + line + b"\n")
            assert checked_results(tmp_path).damaged == [1], line[:cut]


def test_of_a_repeated_run_the_latest_row_counts(tmp_path: Path) -> None:
    cell = Cell("icrl", "1", 0)
    done: Any = {**cell._asdict(), "answer": "24"}
    with appending(tmp_path) as file:
        append(file, failure(cell, "the key is wrong"))
    assert not has_ended(rows_of(tmp_path), cell)
    with appending(tmp_path) as file:
        append(file, done)
    assert rows_of(tmp_path) == {cell: done}
    assert has_ended(rows_of(tmp_path), cell)
    assert not has_ended(rows_of(tmp_path), Cell("icrl", "2", 0))


# ------------------------------------------------------------------------------------------------- a file that was cut


def test_runs_whose_rows_are_cut_off_are_repeated_and_no_others(tmp_path: Path, server: OpenAIServer) -> None:
    plan = plan_of("icrl", "best_of_n", rounds=2)
    runner.run(plan, tmp_path / "x")
    whole, path = outcome(tmp_path / "x"), tmp_path / "x" / "results.jsonl"
    for seed in range(2):
        written = path.read_bytes()
        path.write_bytes(written[: Random(seed).randrange(len(written))])
        missing = len(whole) - len(rows_of(tmp_path / "x"))
        before = server.counts["calls"]
        progress = runner.run(plan, tmp_path / "x")
        assert server.counts["calls"] - before == 2 * missing
        assert (progress.done, progress.failed) == (4, {})
        assert outcome(tmp_path / "x") == whole


def test_a_row_cut_off_by_a_crash_is_made_again_from_its_journal(
    tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was paid for it is forgotten only once its row is safe."""
    plan = plan_of("icrl", "reflexion", "best_of_n", concurrency=1)
    with monkeypatch.context() as ended_before:
        ended_before.setattr(SqliteStorage, "release", _nothing)
        runner.run(plan, tmp_path / "x")
    whole, paid = outcome(tmp_path / "x"), server.counts["calls"]
    path = tmp_path / "x" / "results.jsonl"
    *others, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*others, last[: len(last) // 2]]))
    assert len(rows_of(tmp_path / "x")) == len(whole) - 1
    runner.run(plan, tmp_path / "x")
    assert outcome(tmp_path / "x") == whole
    assert server.counts["calls"] == paid


async def _nothing(*given: Any) -> None:
    pass


def test_the_thread_of_a_run_whose_row_is_saved_is_released(
    tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ended between the two."""
    with monkeypatch.context() as ended_before:
        ended_before.setattr(SqliteStorage, "release", _nothing)
        runner.run(plan_of("icrl"), tmp_path / "x")
    runner.run(plan_of("icrl"), tmp_path / "x")
    assert not list((tmp_path / "x" / "unfinished").iterdir())


# ------------------------------------------------------------------------------------------------------------ the plan

PLAN = Plan("game24", ["icrl", "best_of_n"], "openai:a", options={"target": 1.0, "prices": {"a": {"input": 1}}})
OTHER: dict[str, Any] = {
    "benchmark": "writing",
    "model": "openai:b",
    "judge": "openai:b",
    "rubric": "Good?",
    "evaluator": "a.py:b",
    "metric": "a.py:b",
    "items": ["4,5,6,10"],
    "rounds": 9,
    "solved_at": 0.5,
    "temperature": 0.5,
    "options": {"target": 0.5, "prices": {"a": {"input": 1}}},
    "again": {"folder": "/elsewhere", "judge": "openai:b"},
    "send_seed": False,
}
FASTER: dict[str, Any] = {
    "concurrency": 99,
    "requests_per_minute": 60.0,
    "tokens_per_minute": 9.0,
    "attempts": 1,
    "call_timeout": 9.0,
    "base_url": "http://127.0.0.1:1/v1",
    "judge_base_url": "http://127.0.0.1:2/v1",
    "switch_base_url": "http://127.0.0.1:3/v1",
    "total_usd": 1.0,
    "total_calls": 9,
    "total_seconds": 9.0,
    "engine": "ray",
    "ray_address": "head:6379",
}


def test_every_field_of_a_plan_is_looked_at() -> None:
    assert {*OTHER, *FASTER, "arms", "limit", "seeds", "db"} == asdict(PLAN).keys()  # db: see test_storage.py


def test_a_plan_is_read_back_as_it_was_asked_for(tmp_path: Path) -> None:
    assert asdict(open_folder(tmp_path / "new" / "one", PLAN)) == asdict(PLAN)
    assert asdict(read_plan(tmp_path / "new" / "one")) == asdict(PLAN)


@pytest.mark.parametrize("name", OTHER)
def test_another_comparison_is_refused_with_what_is_other_about_it(name: str, tmp_path: Path) -> None:
    open_folder(tmp_path / "x", PLAN)
    kept = (tmp_path / "x" / "bench.json").read_text()
    with pytest.raises(ThreadMismatch, match=rf"another comparison \({name} .* -> .*\); give another folder"):
        open_folder(tmp_path / "x", replace(PLAN, **{name: OTHER[name]}))
    assert (tmp_path / "x" / "bench.json").read_text() == kept


def test_what_is_refused_is_paid_by_nobody_and_harms_nothing(tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl"), tmp_path / "x")
    kept, calls = {path: path.read_bytes() for path in (tmp_path / "x").glob("*.*")}, server.counts["calls"]
    with pytest.raises(ThreadMismatch, match=r"model 'openai:policy' -> 'openai:other', rounds 3 -> 2"):
        runner.run(plan_of("icrl", model="openai:other", rounds=2), tmp_path / "x")
    with pytest.raises(ValueError, match="unknown topology"):
        runner.run(plan_of("tree"), tmp_path / "y")
    assert {path: path.read_bytes() for path in (tmp_path / "x").glob("*.*")} == kept
    assert server.counts["calls"] == calls
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("name", FASTER)
def test_rate_limit_and_server_may_change_on_resume(name: str, tmp_path: Path) -> None:
    open_folder(tmp_path, PLAN)
    assert getattr(open_folder(tmp_path, replace(PLAN, **{name: FASTER[name]})), name) == FASTER[name]


def test_arms_tasks_and_seeds_are_never_taken_away(tmp_path: Path) -> None:
    open_folder(tmp_path, replace(PLAN, limit=5, seeds=3))
    whole = open_folder(tmp_path, replace(PLAN, arms=["reflexion", "best_of_n"], limit=2, seeds=1))
    assert (list(whole.arms), whole.limit, whole.seeds) == (["icrl", "best_of_n", "reflexion"], 5, 3)
    assert asdict(read_plan(tmp_path)) == asdict(whole)


@pytest.mark.parametrize(
    ("more", "runs"),
    [({"limit": 3}, 1), ({"seeds": 2}, 2), ({"limit": 3, "seeds": 2}, 4), ({"concurrency": 1}, 0)],
)
def test_only_the_runs_that_are_new_are_paid(more: Any, runs: int, tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl"), tmp_path / "x")
    before, paid = outcome(tmp_path / "x"), server.counts["calls"]
    assert paid == 6
    runner.run(plan_of("icrl", **more), tmp_path / "x")
    after = outcome(tmp_path / "x")
    assert server.counts["calls"] - paid == 3 * runs
    assert len(after) == len(before) + runs
    assert after.items() >= before.items()


def test_an_arm_is_added_beside_those_that_are_there(tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl"), tmp_path / "x")
    paid = server.counts["calls"]
    progress = runner.run(plan_of("best_of_n"), tmp_path / "x")
    assert server.counts["calls"] == paid + 6 == calls_in(rows_of(tmp_path / "x"))
    assert (progress.runs, progress.done) == (4, 4)


def test_a_shuffled_arm_is_added_to_the_arm_that_it_draws_from(tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl"), tmp_path / "x")
    progress = runner.run(plan_of("icrl", "icrl+show=shuffled"), tmp_path / "x")
    assert (progress.runs, progress.done, server.counts["calls"]) == (4, 4, 12)


def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        with pytest.raises(ValueError, match=f"{name} is not an empty folder"):
            open_folder(tmp_path / name, PLAN)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    assert len(list((tmp_path / "mine").iterdir())) == 1
    with pytest.raises(ValueError, match="mine holds no comparison"):
        read_plan(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    open_folder(tmp_path / "empty", PLAN)


def test_a_folder_whose_process_ended_while_it_was_made_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(source: Any, target: Any) -> None:
        raise OSError("this is the end")

    with monkeypatch.context() as ending:
        ending.setattr(os, "replace", end)
        with pytest.raises(OSError, match="this is the end"):
            open_folder(tmp_path, PLAN)
    assert list(tmp_path.iterdir())
    open_folder(tmp_path, PLAN)
    assert read_plan(tmp_path).model == PLAN.model


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path, PLAN)
    stored = json.loads((tmp_path / "bench.json").read_text())
    (tmp_path / "bench.json").write_text(json.dumps({**stored, "form": 99}))
    for read in (read_plan, lambda folder: open_folder(folder, PLAN)):
        with pytest.raises(ThreadMismatch, match=r"schema version 99, this package reads 1"):
            read(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"form": 1}', '{"form": 1, "benchmark": "x", "extra": 1}'], ids=str
)
def test_a_plan_that_can_not_be_read_is_an_error_with_its_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(ValueError, match=r"bench\.json can't be read"):
        read_plan(tmp_path)
    with pytest.raises(ValueError, match=r"bench\.json can't be read"):
        open_folder(tmp_path, PLAN)
    assert (tmp_path / "bench.json").read_text() == text


def test_a_key_is_never_written_down(tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    runner.run(plan_of("icrl", limit=1, rounds=1), tmp_path / "x")
    kept = [path.read_bytes() for path in (tmp_path / "x").rglob("*.*")]
    assert len(kept) == 2
    assert not any(b"sk-very-secret" in content for content in kept)
