"""One driver for a thread: of a file, by a lock."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import aimprove, improve
from icrl_graph.errors import ThreadBusy
from icrl_graph.execution.thread_lock import driving
from icrl_graph.topologies.methods import build
from tests import databases
from tests.command_line import ROOT, icrl
from tests.ctrl_c import heed_ctrl_c
from tests.databases import opened
from tests.helpers import thread

CALL: Any = {"score": lambda response: 1.0, "rounds": 2}
CHILD = """
import sys
from icrl_graph import improve
def model(messages):
    print("asked", flush=True)
    sys.stdin.readline()
    return "42"
improve("t", lambda response: 1.0, model=model, rounds=2, path=sys.argv[1], thread_id="run")
"""


def child(path: Path) -> Any:
    """A process that drives the thread, and waits within its first call."""
    command, environment = [sys.executable, "-c", CHILD, str(path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_ctrl_c
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "asked\n"
    return started


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.endswith(("-wal", "-shm"))}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_thread_that_another_process_drives_is_refused_with_its_name_and_taken_over_once_it_is_dead(
    way: str, tmp_path: Path
) -> None:
    path, asked = tmp_path / "run.sqlite", list[str]()

    def model() -> str:
        asked.append("once")
        return "42"

    def call() -> Any:
        given: Any = {**CALL, "model": model, "path": path, "thread_id": "run"}
        return improve("t", **given) if way == "sync" else asyncio.run(aimprove("t", **given))

    with child(path) as other:
        try:
            with pytest.raises(ThreadBusy, match=f"process {other.pid} on {socket.gethostname()} since 20"):
                call()
            assert not asked
            improve("t", **CALL, model=lambda: "42", path=path, thread_id="another")
        finally:
            other.kill()
    assert call().answer == "42"
    assert files(tmp_path) == {"run.sqlite"}


def test_the_commands_refuse_a_run_that_another_process_drives(here: Path) -> None:
    (here / "m.py").write_text("def model(messages):\n    return '42'\n\ndef score(response):\n    return 1.0\n")
    arguments = ("run", "t", "--model", "m.py:model", "--evaluator", "m.py:score", "--rounds", "2", "--out", "out")
    assert icrl(*arguments).returncode == 0
    with child(here / "other.sqlite") as other:
        try:
            for file in here.glob("other.sqlite*"):
                file.rename(here / "out" / file.name.replace("other", "run"))
            done = icrl("resume", "out", "--more", "2")
        finally:
            other.kill()
    assert done.returncode != 0
    assert f"is driven by process {other.pid}" in " ".join(done.stderr.split())


def test_two_threads_of_one_file_run_side_by_side_and_one_of_them_twice_does_not(tmp_path: Path) -> None:
    path, began, may_end = tmp_path / "run.sqlite", threading.Event(), threading.Event()

    def waits() -> str:
        began.set()
        may_end.wait()
        return "42"

    first = threading.Thread(target=improve, args=("t",), kwargs={**CALL, "model": waits, "path": path})
    first.start()
    began.wait()
    try:
        with pytest.raises(ThreadBusy, match="this process already"):
            improve("t", **CALL, model=lambda: "42", path=path)
        assert improve("another", **CALL, model=lambda: "42", path=path).answer == "42"
    finally:
        may_end.set()
        first.join()
    assert files(tmp_path) == {"run.sqlite"}


def test_the_same_call_twice_in_one_event_loop_is_refused(tmp_path: Path) -> None:
    async def both() -> Any:
        calls = [aimprove("t", **CALL, model=lambda: "42", path=tmp_path / "run.sqlite") for _ in range(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second = asyncio.run(both())
    assert first.answer == "42"
    assert isinstance(second, ThreadBusy)
    assert asyncio.run(both())[0].episodes == first.episodes


def test_a_lock_is_free_for_the_next_though_a_forked_child_of_the_one_before_lives(tmp_path: Path) -> None:
    path, (ready, done) = tmp_path / "run.sqlite", os.pipe()
    with driving(path, "1"):
        forked = os.fork()
        if not forked:
            os.close(done)
            os.read(ready, 1)  # until the parent closes it
            os._exit(0)
        os.close(ready)
    with driving(path, "1"):
        assert len(files(tmp_path)) == 1
    os.close(done)
    os.waitpid(forked, 0)
    assert not files(tmp_path)


def test_a_path_to_the_same_file_by_another_name_is_the_same_thread(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with driving(tmp_path / "run.sqlite", "1"), pytest.raises(ThreadBusy), driving(tmp_path / "link/run.sqlite", "1"):
        pass


@pytest.mark.parametrize("topology", ["icrl", "self_refine"])
@pytest.mark.parametrize("kind", databases.ALL)
def test_an_embedded_run_that_another_one_takes_over_pays_for_nothing_more(
    kind: str, topology: str, tmp_path: Path, postgres: str
) -> None:
    """The later of two drivers goes on to the end, as if it had been alone."""
    asked, began, may_end = list[str](), threading.Event(), threading.Event()

    def model(messages: Any) -> str:
        asked.append("first" if not began.is_set() else "second")
        if asked == ["first"]:
            began.set()
            may_end.wait()
        return str(len(asked))

    rounds, calls = (4, 4) if topology == "icrl" else (3, 5)
    errors: list[BaseException] = []
    with opened(kind, tmp_path / "run.sqlite", postgres) as one, opened(kind, tmp_path / "run.sqlite", postgres) as two:
        graphs = [
            build(topology, model, lambda response: 1.0, rounds=rounds).compile(each.saver) for each in (one, two)
        ]

        def drive() -> None:
            try:
                one.invoke(graphs[0], {"task": "t"}, thread())
            except BaseException as error:
                errors.append(error)

        first = threading.Thread(target=drive)
        first.start()
        began.wait()
        try:
            output = two.invoke(graphs[1], None, thread())
        finally:
            may_end.set()
            first.join()
        assert graphs[1].get_state(thread()).values["answer"] == output["answer"]
        assert two.invoke(graphs[1], None, thread()) == output
    assert isinstance(errors[0], ThreadBusy)
    assert f"was taken over by process {os.getpid()} on" in str(errors[0])
    assert asked == ["first", *["second"] * calls]  # the one in flight


def test_a_thread_is_claimed_once_an_invocation_however_many_calls_it_makes(tmp_path: Path) -> None:
    claims: list[str] = []
    with opened("sqlite", tmp_path / "run.sqlite", "") as database:
        graph = build("best_of_n", lambda: "42", lambda: 1.0, n=8).compile(database.saver)
        database.invoke(graph, {"task": "t"}, thread())
        saver: Any = database.saver
        saver.conn.set_trace_callback(lambda sql: claims.append(sql) if "INTO icrl_drivers" in sql else None)
        graph = build("icrl", lambda: "42", lambda: 1.0, rounds=5).compile(database.saver)
        database.invoke(graph, {"task": "t"}, thread("2"))
        database.invoke(graph, {"more": 3}, thread("2"))
    assert len(claims) == 2
