"""Where the runs of a comparison are saved until they end: a few files, PostgreSQL, files of earlier versions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableLambda

from icrl_graph import aimprove, compare, improve
from icrl_graph.api import aplay, check_inputs
from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import read_plan
from icrl_graph.benchmarks.storage import PostgresStorage, SqliteStorage, Storage
from icrl_graph.errors import JournalError, MissingExtra, ThreadBusy, ThreadMismatch
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import build
from tests.bench_child import calls_in, outcome, plan_of, player, rows_of, score
from tests.command_line import ROOT, icrl
from tests.ctrl_c import heed_ctrl_c

ARMS = ["icrl", "reflexion", "best_of_n"]
CALL: Any = {"score": score, "rounds": 3}
NAMES = ["0123456789abcdef", "fedcba9876543210"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


def storage(kind: str, folder: Path, postgres: str) -> Storage:
    return SqliteStorage(folder) if kind == "sqlite" else PostgresStorage(postgres, "a")


def threads_in(address: str) -> set[str]:
    with psycopg.connect(address) as connection:
        tables = ("checkpoints", "checkpoint_writes", "checkpoint_blobs")
        found = [connection.execute(f"SELECT DISTINCT thread_id FROM {table}").fetchall() for table in tables]
        names = ("icrl_replies", "icrl_drivers")
        found += [connection.execute(f"SELECT DISTINCT thread FROM {name}").fetchall() for name in names]
    return {thread for rows in found for (thread,) in rows}


# ------------------------------------------------------------------------------------------------------- one run of it


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_runs_have_spent_is_known_until_they_are_released_and_nothing_is_left_of_them(
    kind: str, tmp_path: Path, postgres: str
) -> None:
    graph = build("icrl", lambda: "42", lambda: 1.0, rounds=3)

    async def play() -> None:
        async with (held := storage(kind, tmp_path, postgres)).open():
            for name in NAMES:
                async with held.drive(name) as thread:
                    await aplay(graph, check_inputs("t", None), *thread)

    async def look() -> Any:
        async with (held := storage(kind, tmp_path, postgres)).open():
            spent = {name: usage["calls"] for name, usage in (await held.spent()).items()}
            await held.release([NAMES[0], "unknown"])
            return spent, await held.begun()

    asyncio.run(play())
    assert asyncio.run(look()) == (dict.fromkeys(NAMES, 3), {NAMES[1]})
    assert asyncio.run(look()) == ({NAMES[1]: 3}, {NAMES[1]})
    if kind == "postgres":
        assert threads_in(postgres) == {f"a/{NAMES[1]}"}
    else:
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_improve_saves_a_run_in_postgresql_and_goes_on_from_there(way: str, postgres: str) -> None:
    asked: list[int] = []

    def model() -> str:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return str(len(asked))

    def call() -> Any:
        given: Any = {**CALL, "model": model, "path": postgres}
        return improve("t", **given) if way == "sync" else asyncio.run(aimprove("t", **given))

    with pytest.raises(KeyboardInterrupt):
        call()
    result = call()
    assert [episode["response"] for episode in result.episodes] == ["1", "2", "4"]
    assert call().episodes == result.episodes
    assert len(asked) == 4


CHILD = """
import sys
from icrl_graph import improve
from tests.bench_child import score
def model(messages):
    print("asked", flush=True)
    sys.stdin.readline()
    return "42"
improve("t", score, model=model, rounds=3, path=sys.argv[1], thread_id="run")
"""


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_thread_in_postgresql_that_another_process_drives_is_refused_with_its_name_until_it_is_dead(
    way: str, postgres: str
) -> None:
    def call() -> Any:
        given: Any = {**CALL, "model": lambda: "42", "path": postgres, "thread_id": "run"}
        return improve("t", **given) if way == "sync" else asyncio.run(aimprove("t", **given))

    command, environment = [sys.executable, "-c", CHILD, postgres], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_ctrl_c
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "asked\n"
        with pytest.raises(ThreadBusy, match=f"process {other.pid} on {socket.gethostname()[:40]} since 20"):
            call()
        other.kill()
    while True:  # the server notices the end of its connection a moment later
        try:
            assert call().answer == "42"
            return
        except ThreadBusy:
            continue


def test_the_same_call_twice_in_one_event_loop_is_refused_in_postgresql_too(postgres: str) -> None:
    async def both() -> Any:
        refused = asyncio.Event()

        async def model(messages: Any) -> str:
            await asyncio.wait_for(refused.wait(), 60)  # else the one call may have ended before the other begins
            return "42"

        async def call() -> Any:
            try:
                return await aimprove("t", **CALL, model=RunnableLambda(model), path=postgres)
            except ThreadBusy as busy:
                refused.set()
                return busy

        return await asyncio.gather(call(), call())

    first, second = sorted(asyncio.run(both()), key=lambda each: isinstance(each, ThreadBusy))
    assert first.answer == "42"
    assert isinstance(second, ThreadBusy)


def _cut_off(postgres: str) -> None:
    """End the connections that hold threads, as a network does that fails."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'icrl_graph %'"
        )


def test_a_run_whose_connection_was_lost_pays_for_nothing_more_once_somebody_else_has_its_thread(postgres: str) -> None:
    asked: list[int] = []

    async def play() -> None:
        async with (one := PostgresStorage(postgres, "a")).open(), (two := PostgresStorage(postgres, "a")).open():
            taken = two.drive("run")

            async def model(messages: Any) -> str:
                asked.append(1)
                if len(asked) == 2:
                    _cut_off(postgres)
                    await taken.__aenter__()
                return "42"

            graph = build("icrl", RunnableLambda(model), lambda: 1.0, rounds=5)
            async with one.drive("run") as thread:
                with pytest.raises(ThreadBusy, match=f"is driven by process {os.getpid()}"):
                    await aplay(graph, check_inputs("t", None), *thread)
            await taken.__aexit__(None, None, None)

    asyncio.run(play())
    assert len(asked) == 2


def test_a_run_whose_connection_was_lost_goes_on_where_nobody_has_its_thread(postgres: str) -> None:
    async def model(messages: Any) -> str:
        _cut_off(postgres)
        return "42"

    assert asyncio.run(aimprove("t", **CALL, model=RunnableLambda(model), path=postgres)).usage["calls"] == 3


# -------------------------------------------------------------------------------------------------- a whole comparison


def test_results_are_identical_in_files_and_in_postgresql_and_nothing_is_left_in_either(
    tmp_path: Path, server: OpenAIServer, postgres: str
) -> None:
    plan = plan_of(*ARMS, "icrl+show=shuffled", limit=3)
    runner.run(plan, tmp_path / "files")
    runner.run(replace(plan, db=postgres), tmp_path / "database")
    assert outcome(tmp_path / "files") == outcome(tmp_path / "database")
    assert not list((tmp_path / "files" / "unfinished").iterdir())
    assert not list((tmp_path / "database" / "unfinished").iterdir())
    assert threads_in(postgres) == set()


def test_comparisons_share_a_database_and_not_their_runs(tmp_path: Path, server: OpenAIServer, postgres: str) -> None:
    plan = plan_of("icrl", db=postgres, total_calls=4)
    for folder in (tmp_path / "x", tmp_path / "y"):
        assert runner.run(plan, folder).left is not None
    assert len({thread.partition("/")[0] for thread in threads_in(postgres)}) == 2
    for folder in (tmp_path / "x", tmp_path / "y"):
        assert runner.run(replace(plan, total_calls=99), folder).done == 2
    assert server.counts["calls"] == 2 * 6
    assert threads_in(postgres) == set()


def test_runs_that_have_files_of_their_own_go_on_in_them(tmp_path: Path, server: OpenAIServer) -> None:
    """As an earlier version began them."""
    plan, folder = plan_of(*ARMS), tmp_path / "x"

    class OneFileEach(SqliteStorage):
        def drive(self, name: str) -> Any:
            self._files[name] = self._folder / f"{name}.sqlite"
            return super().drive(name)

    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(runner, "storage_of", lambda plan, folder: OneFileEach(folder / "unfinished"))
        assert runner.run(replace(plan, total_calls=7), folder).left is not None
    assert any(len(file.stem) == 16 for file in (folder / "unfinished").glob("*.sqlite"))
    progress = runner.run(replace(plan, total_calls=99), folder)
    assert progress.done == 6
    assert server.counts["calls"] == calls_in(rows_of(folder)) == 2 * (3 + 5 + 3)
    runner.run(plan, tmp_path / "whole")
    assert outcome(folder) == outcome(tmp_path / "whole")
    assert not list((folder / "unfinished").iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_comparison_whose_process_is_killed_pays_again_for_what_was_in_flight_alone(
    kind: str, seed: int, here: Path, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    concurrency, wanted = 3, 4 * (3 + 5 + 3)
    kill_at = Random(seed).randrange(6, wanted - 6)
    running: list[Any] = []

    def reply(messages: Any, rng: Random) -> str:
        if served.counts["calls"] >= kill_at and running:
            running.pop().kill()
        return player(messages, rng)

    with OpenAIServer(reply, latency=0.02) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        db = ["--db", postgres] if kind == "postgres" else []
        arguments = ["bench", "game24", "--topologies", ",".join(ARMS), "--model", "openai:policy", "--limit", "4"]
        arguments += ["--rounds", "3", "--concurrency", str(concurrency), "--out", "x", *db]
        command = [sys.executable, "-m", "icrl_graph", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            running.append(child)
            assert child.wait() == -signal.SIGKILL
        paid = served.counts["answered"]
        assert paid < wanted
        resumed = icrl("resume", "x", *db)
        assert resumed.returncode == 0, resumed.stderr
        assert served.counts["calls"] <= wanted + concurrency * 3  # candidates of one run are asked together
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        runner.run(replace(read_plan(Path("x")), db=None, base_url=None), Path("whole"))
    assert outcome(Path("x")) == outcome(Path("whole"))
    if kind == "postgres":
        assert threads_in(postgres) == set()


def test_a_restart_of_postgresql_is_waited_out_and_nothing_is_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: str, postgres_server: Any
) -> None:
    plan, restarts = plan_of(*ARMS, limit=4, db=postgres, concurrency=3), [postgres_server]

    def reply(messages: Any, rng: Random) -> str:
        if served.counts["calls"] >= 12 and restarts:
            restarted = restarts.pop()
            restarted.stop()
            restarted.start()
        return player(messages, rng)

    with OpenAIServer(reply) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        progress = runner.run(plan, tmp_path / "x")
        assert not restarts
        assert (progress.done, progress.failed) == (12, {})
        assert served.counts["calls"] == calls_in(rows_of(tmp_path / "x")) == 4 * (3 + 5 + 3)
        runner.run(replace(plan, db=None), tmp_path / "whole")
    assert outcome(tmp_path / "x") == outcome(tmp_path / "whole")


def test_caps_hold_over_a_resume_from_postgresql(tmp_path: Path, server: OpenAIServer, postgres: str) -> None:
    for total in (5, 11, 30):
        runner.run(plan_of(*ARMS, db=postgres, total_calls=total, concurrency=1), tmp_path / "x")
        assert server.counts["calls"] == min(total, 22)


# ------------------------------------------------------------------------------------------------------- its address


SECRET = "s3cret"


def with_password(address: str) -> str:
    return address.replace("postgres:@", f"postgres:{SECRET}@")


def test_the_password_of_a_database_is_saved_nowhere(tmp_path: Path, server: OpenAIServer, postgres: str) -> None:
    given: Any = {"model": "openai:policy", "limit": 1, "rounds": 2, "folder": tmp_path / "x", "register": True}
    compare("game24", "icrl,best_of_n", db=with_password(f"{postgres}&password={SECRET}"), **given)
    for file in (tmp_path / "x").rglob("*"):
        assert file.is_dir() or SECRET not in file.read_text(errors="replace")
    assert "postgresql://" in json.loads((tmp_path / "x" / "bench.json").read_text())["db"]
    assert compare("game24", "icrl,best_of_n", db=postgres, **given).failures == {}


@pytest.mark.parametrize(
    "address",
    [
        *("postgresql://me:s3cret/x@host/runs", "postgresql://me:s3@cret@host/runs", "postgresql://[me:s3cret@host/r"),
        *("mysql://me:s3cret@host/runs", "me:s3cret@host/runs", "postgresql://me:s3cret@127.0.0.1:1/runs"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_without_its_password(address: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, JournalError)) as raised:
        compare("hidden-color", "icrl", db=address, folder=tmp_path / "x", limit=1)
    assert "s3" not in str(raised.value)
    assert "cret" not in str(raised.value)
    if address.startswith("postgresql"):
        with pytest.raises((ValueError, JournalError)) as raised:
            improve("t", **CALL, model=lambda: "42", path=address)
        assert "cret" not in str(raised.value)


def test_a_comparison_in_another_database_is_refused(tmp_path: Path, server: OpenAIServer, databases: Any) -> None:
    first, second = databases(), databases()
    runner.run(plan_of("icrl", db=first, total_calls=2), tmp_path / "x")
    for other in (second, None):
        with pytest.raises(ThreadMismatch, match="with what was paid for them"):
            runner.run(plan_of("icrl", db=other), tmp_path / "x")
    runner.run(plan_of("icrl", db=None), tmp_path / "y")
    with pytest.raises(ThreadMismatch, match="files of the folder"):
        runner.run(plan_of("icrl", db=first), tmp_path / "y")


def test_a_wrong_name_of_a_database_is_corrected_in_the_same_folder(
    tmp_path: Path, server: OpenAIServer, postgres: str
) -> None:
    given: Any = {"model": "openai:any", "base_url": server.base_url, "limit": 1, "rounds": 1, "folder": tmp_path / "x"}
    with pytest.raises(JournalError, match="does not exist"):
        compare("game24", "icrl", db=postgres.replace("test_", "tset_"), **given)
    assert compare("game24", "icrl", db=postgres, **given).failures == {}


def test_a_database_in_which_nothing_may_be_written_ends_a_comparison_before_it_pays(
    tmp_path: Path, server: OpenAIServer, postgres: str
) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on")
    with pytest.raises(JournalError, match="the database can't be used: .*read-only"):
        runner.run(plan_of("icrl", db=postgres), tmp_path / "x")
    assert server.counts["calls"] == 0


def test_without_the_extra_an_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("psycopg")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "icrl_graph.execution.postgres", raising=False)
    monkeypatch.delattr("icrl_graph.execution.postgres", raising=False)
    with pytest.raises(MissingExtra, match=r"icrl-graph\[postgres\]"):
        compare("hidden-color", "icrl", db="postgresql://host/x", folder=tmp_path / "x", limit=1)
    with pytest.raises(MissingExtra, match=r"icrl-graph\[postgres\]"):
        improve("t", **CALL, model=lambda: "42", path="postgresql://host/x")
    assert not (tmp_path / "x").exists()


def test_runs_in_postgres_need_no_more_threads_than_there_are(postgres: str) -> None:
    """PostgreSQL's checkpointer waits for a thread while it holds one of four connections."""
    graph = build("icrl", RunnableLambda(lambda messages: "7"), CALL["score"], rounds=1)

    async def play_many() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        kept = PostgresStorage(postgres, "a")

        async def play_one(name: str) -> Any:
            async with kept.drive(name) as thread:
                return await aplay(graph, check_inputs("Say it.", None), *thread)

        async with kept.open():
            return await asyncio.gather(*(play_one(str(number)) for number in range(12)))

    assert len(asyncio.run(play_many())) == 12
