"""`compare`: what `icrl bench` does, from Python; benchmarks and topologies of a user's own files."""

import asyncio
import json
import re
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph import MissingExtra, ThreadMismatch, compare, llm_judge
from icrl_graph.benchmarks import Benchmark, Comparison, find_benchmark
from icrl_graph.benchmarks.arms import read_arm, read_arms
from icrl_graph.benchmarks.registry import canonical, find_item
from icrl_graph.testing import OpenAIServer
from tests.bench_child import player, rows_of
from tests.command_line import icrl

SUMS = {"small": ("What is 2 + 3?", 5), "large": ("What is 278 + 355?", 633)}


def score(response: str, task_data: dict[str, Any]) -> float:
    return float(str(task_data["sum"]) == response)


def guess(messages: list[dict[str, Any]], rng: Random) -> str:
    return rng.choice(["5", "633", "7"])


BENCHMARK = Benchmark(
    about="two sums",
    items=lambda: list(SUMS),
    read=lambda name: {"task": SUMS[name][0], "task_data": {"sum": SUMS[name][1]}},
    evaluator=score,
    rounds=3,
)

OUTSIDE = '''
"""A verifier and its benchmark, in a user's own file."""

from icrl_graph.benchmarks import Benchmark

TASKS = {"short": ("Say a short word.", 3), "long": ("Say a long word.", 9)}


def length(response, task_data):
    return 1 - abs(len(response) - task_data["letters"]) / 10


def say(messages, rng):
    return "a" * rng.randint(1, 9)


BENCH = Benchmark(
    about="two words",
    items=lambda: list(TASKS),
    read=lambda name: {"task": TASKS[name][0], "task_data": {"letters": TASKS[name][1]}},
    evaluator=length,
    rounds=2,
)
'''

TOPOLOGY = '''
"""A custom topology, in a user's own file."""

from icrl_graph import create_best_of_n, create_icrl


def create_mine(model, evaluator, *, memory="last:1", rounds=4, **options):
    return create_icrl(model, evaluator, memory=memory, schedule="plain", rounds=rounds, **options)


def create_many(model, evaluator, *, n=4, **options):
    return create_best_of_n(model, evaluator, n=n, **options)
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of user files, and where the process stands."""
    (tmp_path / "that.py").write_text(OUTSIDE)
    (tmp_path / "method.py").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------------------------------------- from Python


def test_a_comparison_is_what_the_command_writes(tmp_path: Path) -> None:
    asked: Any = {"limit": 3, "rounds": 4, "folder": tmp_path / "python"}
    result = compare("hidden_color", ["icrl", "best_of_n"], **asked)
    done = icrl(
        *("bench", "hidden_color", "--topologies", "icrl,best_of_n", "--limit", "3", "--rounds", "4"),
        *("--out", str(tmp_path / "command"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    plans = [json.loads((tmp_path / name / "bench.json").read_text()) for name in ("python", "command")]
    assert [plan.pop("began") <= datetime.now(UTC).isoformat() for plan in plans] == [True, True]
    assert plans[0] == plans[1]
    assert {k: v for k, v in result.summary.items() if k != "usage"}.keys() <= json.loads(done.stdout).keys()
    answers = {cell: row["answer"] for cell, row in result.rows.items()}
    assert answers == {cell: row["answer"] for cell, row in rows_of(tmp_path / "command").items()}
    assert result.failures == {}
    assert Comparison.read(tmp_path / "command").tables["methods"][0]["arm"] == "icrl"


def test_it_prints_as_the_table_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "x")
    assert capsys.readouterr() == ("", "")  # nothing by itself, where no terminal is
    shown = repr(result)
    for line in shown.splitlines():
        assert line == line.rstrip()
    assert "hidden-color, 2 tasks x 1 seeds, within 2 calls, learner:hidden-color" in " ".join(shown.split())
    assert re.search(r"^ *best_of_n .* 2\.0$", shown, re.M)
    assert "Against icrl, over the same tasks" in shown
    assert shown.endswith(f"Spent: 8 calls. Saved in {tmp_path / 'x'}")
    command = icrl("resume", str(tmp_path / "x")).stdout
    tables = shown.partition("Spent:")[0].split()
    assert command.split()[: len(tables)] == tables


def test_its_tables_are_rows_and_rounds_are_counted_from_1(tmp_path: Path) -> None:
    result = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=3, seeds=2, folder=tmp_path / "x")
    tables = result.tables
    assert tables.keys() == {"methods", "rounds", "budgets", "tasks", "differences", "learning", "runs", "attempts"}
    assert [row["runs"] for row in tables["methods"]] == [4, 4]
    assert {row["round"] for row in tables["rounds"]} == {1, 2, 3}
    assert [(row["arm"], row["item"], row["seed"]) for row in tables["runs"]] == [tuple(cell) for cell in result.rows]
    assert len(tables["attempts"]) == 8 * 3
    assert [row["round"] for row in tables["attempts"] if row["arm"] == "icrl"][:3] == [1, 2, 3]
    assert sum(row["calls"] for row in tables["attempts"]) == result.usage["calls"] == 24


def test_a_table_is_a_data_frame_where_pandas_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "x")
    with pytest.raises(ValueError, match=r"unknown table 'method'; choose one of 'methods', 'rounds'"):
        result.frame("method")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        result.frame()
    fake: Any = types.ModuleType("pandas")
    fake.DataFrame = lambda rows: ("frame", rows)
    monkeypatch.setitem(sys.modules, "pandas", fake)
    assert result.frame("differences") == ("frame", result.tables["differences"])


def test_the_report_is_a_page_in_the_folder_and_where_one_wants_it(tmp_path: Path) -> None:
    result = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "x")
    assert result.report() == tmp_path / "x" / "report.html"
    assert result.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "x" / "report.html").read_bytes()


def test_a_model_an_evaluator_and_a_benchmark_may_be_objects_and_the_same_call_resumes(tmp_path: Path) -> None:
    paid = []

    def model(messages: list[dict[str, Any]], rng: Random) -> str:
        paid.append(1)
        return guess(messages, rng)

    asked: Any = {"model": model, "evaluator": score, "folder": tmp_path / "x"}
    result = compare(BENCHMARK, "icrl,best_of_n", **asked)
    assert (len(result.rows), len(paid)) == (4, 12)
    assert result.plan.benchmark == "python:two sums"
    assert (result.plan.model.rpartition(".")[2], result.plan.evaluator) == ("model", "python:score")
    assert "python:two sums, 2 tasks" in repr(result)
    assert result.report().is_file()
    compare(BENCHMARK, "icrl,best_of_n", **asked)
    assert len(paid) == 12
    assert len(compare(BENCHMARK, "icrl,reflexion", **asked).rows) == 6
    assert len(paid) == 12 + 10
    with pytest.raises(ThreadMismatch, match=r"model 'python:.*model' -> 'python:guess'"):
        compare(BENCHMARK, "icrl,best_of_n", **{**asked, "model": guess})
    resumed = icrl("resume", str(tmp_path / "x"))
    assert resumed.returncode == 2
    assert "resume the comparison by the call of compare() that began it" in resumed.stderr


def test_a_judge_may_be_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(player) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        asked: Any = {"model": guess, "limit": 1, "rounds": 1}
        one = compare(BENCHMARK, "icrl", judge="openai:judge", rubric="Is it right?", **asked, folder=tmp_path / "1")
        two = compare(BENCHMARK, "icrl", evaluator=llm_judge("openai:judge", "Is it right?"), **asked)
    assert [row["rewarded_by"] for result in (one, two) for row in result.rows.values()] == ["judged"] * 2
    assert two.plan.evaluator is not None
    assert two.plan.evaluator.startswith("python:")


def test_failures_are_reported_and_repeated_by_the_same_call(tmp_path: Path) -> None:
    broken = [True]

    def model(messages: list[dict[str, Any]]) -> str:
        if broken and "278" in str(messages):
            raise RuntimeError("no luck")
        return "5"

    first = compare(BENCHMARK, "icrl", model=model, folder=tmp_path / "x")
    assert [cell.item for cell in first.failures] == ["large"]
    assert all("no luck" in reason for reason in first.failures.values())
    assert "1 of 2 runs failed." in repr(first)
    broken.clear()
    assert compare(BENCHMARK, "icrl", model=model, folder=tmp_path / "x").failures == {}


def test_without_a_folder_it_is_saved_in_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = compare(BENCHMARK, "icrl", model=guess)
    assert result.folder.parent == tmp_path
    assert len(Comparison.read(result.folder).rows) == 2
    with pytest.raises(ValueError, match="unknown topology 'tree'"):
        compare(BENCHMARK, "tree", model=guess)
    with pytest.raises(ValueError, match="rounds must be 1 or more"):
        compare(BENCHMARK, "icrl", model=guess, rounds=0)
    assert list(tmp_path.iterdir()) == [result.folder]  # a mistake leaves nothing


def test_progress_is_reported_and_an_interrupted_comparison_says_how_to_resume(tmp_path: Path) -> None:
    control, seen = RunControl(), []

    def on_progress(progress: Any) -> None:
        seen.append((progress.done, progress.runs, progress.share))
        if progress.done:
            control.request_drain()

    asked: Any = {"model": guess, "concurrency": 1, "folder": tmp_path / "x"}
    with pytest.raises(GraphDrained) as drained:
        compare(BENCHMARK, "icrl", on_progress=on_progress, control=control, **asked)
    assert f"the same call with folder={str(tmp_path / 'x')!r} resumes it" in drained.value.__notes__[0]
    assert (seen[0], seen[-1][:2]) == ((0, 2, 0.0), (1, 2))
    assert len(compare(BENCHMARK, "icrl", **asked).rows) == 2


def test_it_runs_where_an_event_loop_runs_already_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> Comparison:
        return compare(BENCHMARK, "icrl", model=guess, folder=tmp_path / "x")

    assert len(asyncio.run(cell()).rows) == 2


def test_an_interrupt_in_a_notebook_pays_for_no_further_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drained, calls = threading.Event(), list[int]()
    drain = RunControl.request_drain

    def observed(control: RunControl, reason: str = "shutdown") -> None:
        drain(control, reason)
        drained.set()

    def interrupted() -> str:
        calls.append(1)
        while not drained.wait(0.5):  # again, for CPython misses one in the moment in which it begins to wait
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return "7"

    async def cell() -> None:
        compare(BENCHMARK, "icrl", model=interrupted, rounds=6, concurrency=1, folder=tmp_path / "x")

    monkeypatch.setattr(RunControl, "request_drain", observed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(cell())
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [1]


@pytest.mark.parametrize("in_a_loop", [False, True], ids=["script", "notebook"])
def test_a_model_sees_the_context_variables_of_the_caller(in_a_loop: bool, tmp_path: Path) -> None:
    tenant = ContextVar("tenant", default="nobody")
    seen = []

    def asks() -> str:
        seen.append(tenant.get())
        return "5"

    def caller() -> None:
        tenant.set("me")
        compare(BENCHMARK, "icrl", model=asks, limit=1, rounds=1, folder=tmp_path / "x")

    async def cell() -> None:
        caller()

    asyncio.run(cell()) if in_a_loop else copy_context().run(caller)
    assert seen == ["me"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": None}, "name the model, such as openai:gpt-4.1-mini; no learner plays"),
        ({"items": ["huge*"]}, "no task is named like 'huge"),
        ({"max_dollars": 1}, "'max_dollars'"),
        ({"memory": lambda episodes: episodes}, r"options\['memory'\] must hold JSON values only"),
        ({"judge": guess, "evaluator": score}, "one of the two"),
        ({"judge": guess}, "no rubric of its own"),
        ({"model": 3}, "a model is a name, a chat model"),
        ({"solved_at": float("nan")}, "solved_at must be a finite number, got nan"),
        ({"call_timeout": -1}, "call_timeout must be above 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, got nan"),
    ],
)
def test_a_mistake_is_a_value_error_before_anything_is_saved(wrong: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        compare(BENCHMARK, "icrl", **{"model": guess, "folder": tmp_path / "x", **wrong})
    assert not (tmp_path / "x").exists()


def test_compare_stays_a_function_whatever_was_imported_before() -> None:
    """No submodule may take its name."""
    import icrl_graph.benchmarks.api

    assert icrl_graph.benchmarks.compare is icrl_graph.benchmarks.api.compare is icrl_graph.compare


# -------------------------------------------------------------------------------------------------------- custom parts


def test_a_verifier_with_its_benchmark_is_one_file(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--topologies", "icrl,best_of_n", "--model", "that.py:say", "--out", "x", "--json")
    done = icrl("bench", "that.py:BENCH", *asked)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [(method["arm"], method["runs"]) for method in summary["methods"]] == [("icrl", 2), ("best_of_n", 2)]
    assert summary["benchmark"] == f"{outside}/that.py:BENCH"
    for row in rows_of(outside / "x").values():
        assert len(row["episodes"]) == 2
        letters = row["task_data"]["letters"]
        assert all(e["reward"]["value"] == 1 - abs(len(e["response"]) - letters) / 10 for e in row["episodes"])
    (outside / "elsewhere").mkdir()
    monkeypatch.chdir(outside / "elsewhere")
    assert icrl("resume", "../x", "--json").returncode == 0
    assert icrl("report", "../x").returncode == 0


def test_a_topology_is_one_file(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = "icrl,method.py:create_mine+memory=last:3,method.py:create_many,method.py:create_mine+rounds=1"
    asked = ("--rounds", "2", "--target", "5", "--model", "that.py:say", "--out", "x", "--json")
    done = icrl("bench", "that.py:BENCH", "--topologies", arms, *asked)
    assert done.returncode == 0, done.stderr
    mine, many = f"{outside}/method.py:create_mine", f"{outside}/method.py:create_many"
    assert [m["arm"] for m in json.loads(done.stdout)["methods"]] == [
        "icrl",
        f"{mine}+memory=last:3",
        many,
        f"{mine}+rounds=1",
    ]
    rows = rows_of(outside / "x")
    shapes = {cell.arm: [(e["round"], e["candidate"]) for e in row["episodes"]] for cell, row in rows.items()}
    assert shapes[f"{mine}+memory=last:3"] == [(0, 0), (1, 0)]
    assert [candidate for _, candidate in shapes[many]] == [0, 1]
    assert len(shapes[f"{mine}+rounds=1"]) == 1
    (outside / "elsewhere").mkdir()
    monkeypatch.chdir(outside / "elsewhere")
    assert icrl("resume", "../x", "--json").returncode == 0
    assert icrl("report", "../x").returncode == 0


def test_a_memory_is_one_file(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outside / "memories.py").write_text("def latest(past):\n    return [len(past) - 1] if past else []\n")
    arms = "icrl,icrl+memory=memories.py:latest"
    done = icrl("bench", "that.py:BENCH", "--topologies", arms, "--rounds", "3", "--model", "that.py:say", "--out", "x")
    assert done.returncode == 0, done.stderr
    arm = f"icrl+memory={outside}/memories.py:latest"
    shown = [row["episodes"][2]["plan"]["shown"] for cell, row in rows_of(outside / "x").items() if cell.arm == arm]
    assert shown == [[[1, 2]], [[1, 2]]]
    (outside / "elsewhere").mkdir()
    monkeypatch.chdir(outside / "elsewhere")
    assert icrl("resume", str(outside / "x")).returncode == 0


def test_options_that_a_topology_does_not_take_follow_from_its_signature(outside: Path) -> None:
    shared = {"target": 1.0, "patience": 2, "warmup": 2, "max_calls": 9}
    loop = read_arm("method.py:create_mine").arguments(3, shared)
    assert (loop["rounds"], loop["target"], loop["patience"], loop["max_calls"]) == (3, 1.0, 2, 9)
    assert "warmup" not in loop
    side_by_side = read_arm("method.py:create_many").arguments(3, shared)
    assert {name: side_by_side[name] for name in side_by_side if name != "topology"} == {"n": 3, "max_calls": 9}
    assert read_arm("icrl").arguments(3, shared)["warmup"] == 2


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("icrl+memory=a+b/method.py:last", r"an option is written NAME=VALUE.*a path can't hold '\+' or ','"),
        ("a+b/method.py:create_mine", r"unknown topology 'a'.*a path can't hold '\+' or ','"),
        ("icrl,a,b/method.py:create_mine", r"unknown topology 'a'.*a path can't hold '\+' or ','"),
        ("missing.py:create_mine", r"'.*missing\.py:create_mine' can't be loaded"),
        ("method.py:create_yours", r"has no 'create_yours'; it has .*create_mine"),
        ("tree", r"unknown topology 'tree'; choose one of icrl, reflexion, .*as an arm also react"),
    ],
)
def test_a_mistake_in_the_path_of_a_topology_is_clear(arms: str, message: str, outside: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_arms(arms)


def test_a_folder_with_a_plus_in_its_path_is_refused_for_topologies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a+b").mkdir()
    (tmp_path / "a+b" / "method.py").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path / "a+b")
    with pytest.raises(ValueError, match=r"'method.py:create_mine': its file is in a folder with a '\+' in its path"):
        read_arms("method.py:create_mine")


def test_a_benchmark_is_found_by_path_module_entry_point_and_as_a_file(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_benchmark("that.py:BENCH").about == "two words"
    assert find_benchmark(f"{__name__}:BENCHMARK") is BENCHMARK
    with pytest.raises(ValueError, match=r"'that.py:TASKS' is not a Benchmark: \{'short'"):
        find_benchmark("that.py:TASKS")
    assert canonical("that.py:BENCH") == f"{outside}/that.py:BENCH"
    assert canonical("hidden_color") == "hidden-color"

    class Point:
        name = "two-sums"

        def load(self) -> Benchmark:
            return BENCHMARK

    def entry_points(group: str) -> Iterator[Point]:
        return iter([Point()] if group == "icrl_graph.benchmarks" else [])

    monkeypatch.setattr("icrl_graph.state.choices.entry_points", entry_points)
    assert find_benchmark("two-sums") is BENCHMARK
    item = find_item("two-sums:small")
    assert item is not None
    assert item.inputs["task"] == "What is 2 + 3?"
    with pytest.raises(ValueError, match=r"unknown benchmark 'chess'; choose one of hidden-color.*two-sums"):
        find_benchmark("chess")


def test_an_item_of_a_benchmark_without_evaluator_is_no_prompt(outside: Path) -> None:
    (outside / "bare.py").write_text(
        "from icrl_graph.benchmarks import Benchmark\n"
        "BENCH = Benchmark(about='no evaluator', items=lambda: ['a'], read=lambda name: {'task': 'Say ' + name, "
        "'task_data': {}})\n"
    )
    command = ("run", "bare.py:BENCH:a", "--model", "that.py:say", "--rounds", "1", "--json")
    refused = icrl(*command)
    assert refused.returncode == 2
    assert "an evaluator is needed" in refused.stderr
    (outside / "length.py").write_text("def score(task, response):\n    return float(task == 'Say a')\n")
    done = icrl(*command, "--evaluator", "length.py:score")
    assert json.loads(done.stdout)["reward"] == 1.0


def test_an_item_of_a_custom_benchmark_is_a_task_of_icrl_run(outside: Path) -> None:
    item = find_item("that.py:BENCH:long")
    assert item is not None
    assert item.inputs["task"] == "Say a long word."
    assert find_item("Answer in one word: yes or no?") is None
    done = icrl("run", "that.py:BENCH:long", "--model", "that.py:say", "--rounds", "2", "--out", "r", "--json")
    assert done.returncode == 0, done.stderr


def test_a_benchmark_whose_tasks_have_no_data_is_played() -> None:
    plain = Benchmark("words", items=lambda: ["cat"], read=lambda name: {"task": name}, evaluator=lambda: 1.0)
    done = compare(plain, "icrl", model=lambda: "word", rounds=1)
    assert [row["task_data"] for row in done.rows.values()] == [{}]


@pytest.mark.parametrize("made", [{"prompt": "cat"}, {"task": "cat", "data": {}}, "cat", None])
def test_a_benchmark_that_reads_something_else_than_a_task_says_what_it_must_give(made: Any) -> None:
    wrong = Benchmark("words", items=lambda: ["cat"], read=lambda name: made, evaluator=lambda: 1.0)
    done = compare(wrong, "icrl", model=lambda: "word", rounds=1)
    assert all("read must give" in reason and repr(made)[:30] in reason for reason in done.failures.values())
    assert len(done.failures) == 1
