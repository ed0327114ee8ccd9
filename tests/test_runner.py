"""A comparison as it runs: every method, side by side, over real HTTP; what fails; processes that are killed."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import open_folder
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import Cell, appending
from icrl_graph.errors import ModelError, ThreadMismatch, UnknownTask
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.state.episode import value_of
from icrl_graph.testing import OpenAIServer
from tests.bench_child import METHODS, calls_in, outcome, plan_of, player, rows_of
from tests.command_line import icrl, process

CHILD = Path(__file__).parent / "bench_child.py"
GAMES = find_benchmark("game24").items()[:3]


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that failed are made again without a wait."""
    monkeypatch.setattr(RateLimit, "_exponential", lambda rate_limit, number: 0.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


def left_over(folder: Path) -> list[Path]:
    return list((folder / "unfinished").iterdir())


# -------------------------------------------------------------------------------------------- all methods, all at once


@pytest.mark.parametrize(("benchmark", "judge"), [("game24", None), ("writing", "openai:judge")])
def test_every_method_plays_every_task_and_nothing_is_paid_that_is_not_in_its_row(
    benchmark: str, judge: Any, tmp_path: Path, server: OpenAIServer
) -> None:
    progress = runner.run(plan_of(*METHODS, benchmark=benchmark, judge=judge), tmp_path / "x")
    rows, items = rows_of(tmp_path / "x"), find_benchmark(benchmark).items()[:2]
    assert rows.keys() == {Cell(arm, item, 0) for arm in METHODS for item in items}
    assert (progress.runs, progress.done, progress.failed, progress.share) == (10, 10, {}, 1.0)
    assert calls_in(rows) == server.counts["calls"] == progress.usage["calls"]
    assert not left_over(tmp_path / "x")
    for cell, row in rows.items():
        assert {"task": row["task"], "task_data": row["task_data"]} == find_benchmark(benchmark).read(cell.item)
        assert len(row["episodes"]) == len(row["chosen"]) == (1 if "n=1" in cell.arm else 3)
        assert row["rewarded_by"] == ("oracle" if judge is None else "judged")
        assert (row["answer"], row["stopped"]) == (row["episodes"][row["chosen"][-1] or 0]["response"], "rounds")
        assert all("value" in each["reward"] and "metric" in each["reward"] for each in row["episodes"])
        values = [value_of(each) or 0.0 for each in row["episodes"]]
        best = [max(range(place + 1), key=values.__getitem__) for place in range(len(values))]
        assert row["chosen"] == (list(range(len(values))) if cell.arm == "self_refine" else best)
    assert len({str(row["answer"]) for row in rows.values()}) > len(items)


def test_concurrency_changes_nothing_but_the_time(tmp_path: Path, server: OpenAIServer) -> None:
    arms = ["icrl", "reflexion", "best_of_n", "icrl+show=shuffled"]
    for concurrency in (1, 16):
        runner.run(plan_of(*arms, concurrency=concurrency, evaluator=f"{CHILD}:score"), tmp_path / str(concurrency))
    assert len(outcome(tmp_path / "1")) == 8
    assert outcome(tmp_path / "1") == outcome(tmp_path / "16")


def test_the_seeds_of_a_task_differ_and_are_shared_by_the_arms(tmp_path: Path, server: OpenAIServer) -> None:
    runner.run(plan_of("icrl+schedule=plain", "reflexion+schedule=plain", seeds=3, limit=1, rounds=1), tmp_path / "x")
    said = {cell: row["answer"] for cell, row in rows_of(tmp_path / "x").items()}
    assert len(set(said.values())) == 3
    assert all(said[cell] == said[Cell("icrl+schedule=plain", *cell[1:])] for cell in said)


MEETING = """
from threading import Barrier, Lock

together, inside, lock = Barrier(4, timeout=60), 0, Lock()

def model():
    global inside
    with lock:
        inside += 1
        print(inside, file=open(LOG, "a"), flush=True)
    together.wait()
    with lock:
        inside -= 1
    return "Answer: 1"
"""


@pytest.mark.parametrize(("arm", "limit"), [("best_of_n", 2), ("icrl", 8)])
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_concurrency_is_the_number_of_calls_in_flight(arm: str, limit: int, tmp_path: Path) -> None:
    """Four meet each time, or nobody is answered."""
    (tmp_path / "meeting.py").write_text(f"LOG = {str(tmp_path / 'log')!r}\n{MEETING}")
    model = f"{tmp_path / 'meeting.py'}:model"
    runner.run(plan_of(arm, model=model, limit=limit, rounds=8 if arm == "best_of_n" else 2), tmp_path / "x")
    inside = list(map(int, (tmp_path / "log").read_text().split()))
    assert (max(inside), len(inside)) == (4, 16)
    assert all("response" in episode for row in rows_of(tmp_path / "x").values() for episode in row["episodes"])


def test_shuffled_rewards_are_those_of_other_tasks_only(tmp_path: Path) -> None:
    lines = [f'{{"task": "Task {worth}.", "task_data": {{"worth": {worth}}}}}' for worth in (1, 2, 3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    (tmp_path / "mine.py").write_text(
        "def score(task_data):\n    return task_data['worth']\n\ndef model():\n    return ''"
    )
    (tmp_path / "mine.py").write_text(
        "def score(task_data):\n    return task_data['worth']\n\n\ndef model():\n    return 'x'\n"
    )
    plan = plan_of(
        *("icrl+show=shuffled", "icrl", "icrl+memory=last:1", "icrl+memory=last:1+show=shuffled"),
        benchmark=str(tmp_path / "mine.jsonl"),
        model=f"{tmp_path / 'mine.py'}:model",
        evaluator=f"{tmp_path / 'mine.py'}:score",
        limit=3,
        rounds=4,
    )
    runner.run(plan, tmp_path / "x")
    seen: dict[bool, set[Any]] = {True: set(), False: set()}
    for cell, row in rows_of(tmp_path / "x").items():
        shown = {episode["shown"]["value"] for episode in row["episodes"]}
        own = row["task_data"]["worth"]
        assert {episode["reward"]["value"] for episode in row["episodes"]} == {own}
        shuffled = "shuffled" in cell.arm
        assert shown <= {1, 2, 3} - {own} if shuffled else shown == {own}
        seen[shuffled] |= shown
    assert seen == {True: {1, 2, 3}, False: {1, 2, 3}}


def test_shuffled_rewards_do_not_depend_on_which_task_was_done_first(tmp_path: Path, server: OpenAIServer) -> None:
    arms = ["icrl", "icrl+show=shuffled"]
    for name in ("straight", "turned"):
        runner.run(plan_of("icrl", limit=4, evaluator=f"{CHILD}:score"), tmp_path / name)
        path = tmp_path / name / "results.jsonl"
        lines = sorted(path.read_bytes().splitlines(keepends=True), reverse=name == "turned")
        path.write_bytes(b"".join(lines))
        runner.run(plan_of(*arms, limit=4, evaluator=f"{CHILD}:score"), tmp_path / name)
    assert outcome(tmp_path / "straight") == outcome(tmp_path / "turned")


# ----------------------------------------------------------------------------------------------------------- what fails


def broken_for(task: str, broken: list[bool]) -> Any:
    """A server's reply that is refused (400) for one task while it is broken."""

    def reply(messages: list[dict[str, Any]], rng: Random) -> str:
        if broken and numbers(task) in str(messages):
            raise UnknownTask("this one I can't read")
        return player(messages, rng)

    return reply


def numbers(item: str) -> str:
    return f"the numbers {item.replace(',', ' ')} exactly"


def test_a_failed_task_stops_no_other_and_it_alone_is_repeated_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, broken = GAMES[1], [True]
    with OpenAIServer(broken_for(bad, broken)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        plan = plan_of("icrl", "best_of_n", limit=3)
        first = runner.run(plan, tmp_path / "x")
        assert first.failed.keys() == {Cell("icrl", bad, 0), Cell("best_of_n", bad, 0)}
        assert all("this one I can't read" in why for why in first.failed.values())
        assert (first.done, first.share) == (4, 1.0)
        others = {cell: row for cell, row in outcome(tmp_path / "x").items() if "error" not in row}
        assert len(others) == 4
        broken.clear()
        asked = server.counts["calls"]
        second = runner.run(plan, tmp_path / "x")
        assert all(numbers(bad) in str(prompt) for prompt in server.prompts[asked:])
        assert server.counts["calls"] - asked == 6
    assert (second.done, second.failed) == (6, {})
    after = outcome(tmp_path / "x")
    assert after.items() >= others.items()
    answered = [[each for each in row["episodes"] if "response" in each] for row in after.values()]
    assert [len(episodes) for episodes in answered] == [3] * 6
    assert not left_over(tmp_path / "x")


def test_the_cost_of_a_comparison_is_counted_once_though_a_failed_run_was_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]
    with OpenAIServer(broken_for(GAMES[0], broken)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        runner.run(plan_of("icrl"), tmp_path / "x")
        broken.clear()
        progress = runner.run(plan_of("icrl"), tmp_path / "x")
        assert progress.usage["calls"] == server.counts["calls"] == 9
        again = runner.run(plan_of("icrl"), tmp_path / "x")
        assert again.usage["calls"] == 9


def test_a_model_that_raises_for_one_task_fails_that_run_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"def model(messages):\n    assert {numbers(GAMES[0])!r} not in str(messages), 'not this'\n    return '24'\n"
    )
    progress = runner.run(plan_of("icrl", "reflexion", model=f"{tmp_path / 'mine.py'}:model"), tmp_path / "x")
    assert {cell.item for cell in progress.failed} == {GAMES[0]}
    assert all("AssertionError: not this" in why for why in progress.failed.values())
    assert progress.done == 2


def test_an_evaluator_that_raises_for_one_task_leaves_it_unscored_and_the_run_whole(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"def score(task):\n    assert {numbers(GAMES[0])!r} not in task\n    return 1\n\n\n"
        "def model():\n    return 'a'\n"
    )
    mine = str(tmp_path / "mine.py")
    progress = runner.run(plan_of("icrl", model=f"{mine}:model", evaluator=f"{mine}:score"), tmp_path / "x")
    assert (progress.done, progress.failed) == (2, {})
    values = {cell.item: [value_of(e) for e in row["episodes"]] for cell, row in rows_of(tmp_path / "x").items()}
    assert values == {GAMES[0]: [None] * 3, GAMES[1]: [1.0] * 3}


def test_a_wrong_key_stops_everything_no_backoff_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("icrl", "reflexion", "best_of_n")
    with OpenAIServer(player, faults=dict.fromkeys(range(1, 99), "401")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(ModelError, match="401"):
            runner.run(plan, tmp_path / "x")
        assert server.counts["calls"] <= plan.concurrency * 3  # candidates of one run are asked together
    assert all("error" in row for row in rows_of(tmp_path / "x").values())
    with OpenAIServer(player) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert runner.run(plan, tmp_path / "x").done == 6
        runner.run(plan, tmp_path / "whole")
    assert outcome(tmp_path / "x") == outcome(tmp_path / "whole")


def test_one_task_that_is_refused_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 for one task, as a provider may answer to what is in it; not one has ended before."""
    with OpenAIServer(player, faults={1: "401"}) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        progress = runner.run(plan_of("icrl", concurrency=1), tmp_path / "x")
        assert (progress.done, len(progress.failed)) == (progress.runs - 1, 1)


def test_a_task_that_has_changed_is_refused_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text('{"task": "first"}\n{"task": "second"}\n')
    (tmp_path / "score.py").write_text("def score(): return 1.0\ndef model(): return 'a'\n")
    own = {"model": f"{tmp_path}/score.py:model", "evaluator": f"{tmp_path}/score.py:score"}
    mine = plan_of("icrl", benchmark=str(tasks), limit=2, **own)
    runner.run(mine, tmp_path / "x")
    tasks.write_text('{"task": "new"}\n{"task": "first"}\n{"task": "second"}\n')
    with pytest.raises(ThreadMismatch, match="has changed since it was played"):
        runner.run(replace(mine, arms=["icrl", "best_of_n"]), tmp_path / "x")


def test_a_folder_is_locked_to_one_process(tmp_path: Path) -> None:
    plan = plan_of("icrl", benchmark="hidden-color", model="learner:hidden-color", limit=1)
    open_folder(tmp_path / "x", plan)
    with appending(tmp_path / "x"), pytest.raises(BlockingIOError, match="another process works in"):
        runner.run(plan, tmp_path / "x")
    assert runner.run(plan, tmp_path / "x").done == 1


def test_more_runs_no_backoff_than_files_may_be_open_are_refused(tmp_path: Path) -> None:
    plan = plan_of("icrl", benchmark="hidden-color", model="learner:hidden-color", limit=1, concurrency=10**9)
    with pytest.raises(ValueError, match="needs about 8000000100 open files"):
        runner.run(plan, tmp_path / "x")


def test_shuffled_rewards_need_those_of_another_task(tmp_path: Path) -> None:
    plan = plan_of("icrl", "icrl+show=shuffled", benchmark="hidden-color", model="learner:hidden-color", limit=1)
    progress = runner.run(plan, tmp_path / "x")
    assert [cell.arm for cell in progress.failed] == ["icrl+show=shuffled"]
    assert "no rewards of icrl on other tasks" in next(iter(progress.failed.values()))


def test_a_failed_comparison_holds_no_database_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever goes on in the same process waits for it in vain, until the garbage collector has run."""
    locked = []
    for attempt in range(6):
        with OpenAIServer(player, faults=dict.fromkeys(range(1, 99), "401")) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
            with pytest.raises(ModelError):
                runner.run(plan_of("icrl", "best_of_n", rounds=2), tmp_path / str(attempt))
        for file in (tmp_path / str(attempt) / "unfinished").glob("*.sqlite"):
            with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as database:
                try:
                    database.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as held:
                    locked.append(f"{file.name}: {held}")
    assert not locked


def test_a_key_that_ends_half_way_loses_nothing_that_was_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("icrl", "reflexion", limit=4)
    wanted = 4 * 3 + 4 * 5
    with OpenAIServer(player, faults=dict.fromkeys(range(18, 999), "401")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        progress = runner.run(plan, tmp_path / "x")
        assert progress.done > 0
        assert all("ModelError" in why for why in progress.failed.values())
        assert progress.done + len(progress.failed) == 8
        answered = server.counts["answered"]
        assert answered == 17
    with OpenAIServer(player) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert (progress := runner.run(plan, tmp_path / "x")).done == 8
        assert answered + server.counts["answered"] == wanted
        runner.run(plan, tmp_path / "whole")
    assert progress.failed == {}
    assert outcome(tmp_path / "x") == outcome(tmp_path / "whole")


def test_transient_faults_cost_retries_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_backoff: None) -> None:
    plan, faults = plan_of("reflexion", "best_of_n"), {1: "500", 4: "429", 9: "reset"}
    for name, wrong in (("calm", {}), ("stormy", faults)):
        with OpenAIServer(player, faults=wrong) as server:  # type: ignore[arg-type]
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
            assert runner.run(plan, tmp_path / name).failed == {}
            assert server.counts["calls"] == server.counts["answered"] + len(wrong)
            assert calls_in(rows_of(tmp_path / name)) == server.counts["answered"]
    assert outcome(tmp_path / "stormy") == outcome(tmp_path / "calm")


# ---------------------------------------------------------------------------------------------------- processes killed


def test_a_comparison_that_is_killed_again_and_again_pays_for_no_more_than_what_was_in_flight_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, model = ["icrl", "reflexion", "best_of_n", "icrl+show=shuffled"], f"{CHILD}:model"
    monkeypatch.setenv("BENCH_LOG", str(tmp_path / "whole.log"))
    runner.run(plan_of(*arms, model=model), tmp_path / "whole")
    wanted = (tmp_path / "whole.log").read_text().count("paid")
    assert wanted == 2 * (3 + 5 + 3 + 3)
    rng, kills = Random(3), 2
    sizes = ("--limit", "2", "--rounds", "3", "--concurrency", "4", "--model", model)
    first = ("bench", "game24", "--topologies", ",".join(arms), "--out", "killed", *sizes)
    for at in range(kills):
        dies = {"BENCH_LOG": "paid.log", "BENCH_KILL_AT": str(rng.randint(3, 8))}
        killed = process(*(("resume", "killed") if at else first), cwd=tmp_path, **dies)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    begun = outcome(tmp_path / "killed")
    assert len(begun) < 8
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_LOG", "paid.log")
    ended = icrl("resume", "killed")
    assert ended.returncode == 0, ended.stderr
    paid = (tmp_path / "paid.log").read_text().count("paid")
    # In flight: one call of each of the four runs, or all that stand side by side.
    assert wanted <= paid <= wanted + kills * (2 + 2 * 3)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert outcome(tmp_path / "killed").items() >= begun.items()
    assert calls_in(rows_of(tmp_path / "killed")) == wanted
    assert not left_over(tmp_path / "killed")


@pytest.mark.parametrize("arm", ["icrl", "best_of_n"])
def test_an_interrupted_run_resumes_between_any_two_checkpoints(
    arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer
) -> None:
    """The disk is full after one checkpoint, after two, and so on."""
    plan, put = plan_of(arm, limit=1, rounds=2), AsyncSqliteSaver.aput
    runner.run(plan, tmp_path / "whole")
    for room in range(1, 5):
        left = iter(range(room))

        async def full(saver: Any, *given: Any, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise OSError("the disk is full")
            return await put(saver, *given)

        with monkeypatch.context() as wrong:
            wrong.setattr(AsyncSqliteSaver, "aput", full)
            with pytest.raises(OSError, match="the disk is full"):
                runner.run(plan, tmp_path / str(room))
        progress = runner.run(plan, tmp_path / str(room))
        assert progress.failed == {}, room
        assert outcome(tmp_path / str(room)) == outcome(tmp_path / "whole")
    assert server.counts["calls"] == 5 * 2
