"""Resume means the same: whatever ends a run, and wherever, it comes to what it would have come to.

A run is ended before and after each of its writes, resumed or asked for more rounds, and compared with one that nothing
ended: the result, every attempt, and the number of calls, but for those that were in flight. `make soak` has them all.
"""

import asyncio
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import langgraph.checkpoint.base.id as checkpoint_ids
import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from icrl_graph import aimprove, improve
from icrl_graph.benchmarks.files import write_whole
from icrl_graph.cli.run_folder import Run as FolderRun
from icrl_graph.errors import JournalError
from icrl_graph.execution.sql_journals import TableJournal
from icrl_graph.state.episode import Output
from icrl_graph.topologies import revise
from icrl_graph.topologies.methods import TOPOLOGIES, create_icrl
from tests.command_line import ROOT, icrl
from tests.databases import ASYNC, SYNC, opened
from tests.helpers import GAME, digest, nearness, thread, without_cost

WAYS = ("sync", "async")
CLOCKS = {"right": 0, "an hour back": -3600, "an hour forward": 3600}
WRITES = [
    *((SqliteSaver, name) for name in ("put", "put_writes")),
    *((AsyncSqliteSaver, name) for name in ("aput", "aput_writes")),
    *((TableJournal, name) for name in ("put", "aput")),
]


class Killed(BaseException):
    """The process is gone."""


class Process:
    """What a process leaves behind that is killed at one of its writes: nothing is written after it.

    Args:
        kill_at: which of its writes, from 0; None lets it live.
        after: whether that one is still done.
    """

    def __init__(self, kill_at: int | None = None, after: bool = False) -> None:
        self.kill_at, self.after, self.writes, self.dead = kill_at, after, 0, False

    def write(self) -> bool:
        """Whether to end at this write."""
        if self.dead:
            raise Killed
        self.writes += 1
        self.dead = self.writes - 1 == self.kill_at
        if self.dead and not self.after:
            raise Killed
        return self.dead

    def hooked(self, write: Any) -> Any:
        @functools.wraps(write)
        def sync(*args: Any, **kwargs: Any) -> Any:
            is_last = self.write()
            done = write(*args, **kwargs)
            if is_last:
                raise Killed
            return done

        @functools.wraps(write)
        async def not_sync(*args: Any, **kwargs: Any) -> Any:
            is_last = self.write()
            done = await write(*args, **kwargs)
            if is_last:
                raise Killed
            return done

        return not_sync if asyncio.iscoroutinefunction(write) else sync


class Run:
    """A run saved in a file, and what its model was paid for.

    Args:
        path: the file.
        topology: its name.
        way: sync or async.
        rounds: how many at first.
    """

    def __init__(self, path: Path, topology: str, way: str, rounds: int = 2, **options: Any) -> None:
        self.path, self.topology, self.way, self.rounds, self.options = path, topology, way, rounds, options
        self.paid = 0

    def model(self, messages: Any) -> str:
        self.paid += 1
        return digest(messages)

    def play(self, more: int = 0, process: Process | None = None, **options: Any) -> Any:
        """Make the call, in a process of its own; what it comes to, or None if something has ended it."""
        size = {"n": 3} if self.topology == "best_of_n" else {"rounds": self.rounds + more}
        given: Any = {"model": self.model, "topology": self.topology, "task_data": {"secret": 42}, "seed": 0}
        given = {**given, **size, **self.options, **options, "path": self.path}
        process = process or Process()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_ids, "_last_v6_timestamp", None)
            for kind, name in WRITES:
                patch.setattr(kind, name, process.hooked(getattr(kind, name)))
            try:
                if self.way == "sync":
                    result = improve("Find the number.", nearness, **given)
                else:
                    result = asyncio.run(aimprove("Find the number.", nearness, **given))
            except BaseException:
                if process.dead or "on_episode" in options:
                    return None
                raise
        assert not process.dead
        usage = {name: amount for name, amount in result.usage.items() if name != "seconds"}
        return result.answer, result.reward, result.stopped, usage, without_cost(result.episodes)

    def kept(self) -> int:
        """The replies in its journal."""
        with closing(sqlite3.connect(self.path)) as file:
            made = file.execute("SELECT count(*) FROM sqlite_master WHERE name = 'icrl_replies'").fetchone()[0]
            return int(file.execute("SELECT count(*) FROM icrl_replies").fetchone()[0]) if made else 0


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> Callable[[list[Any], str], list[Any]]:
    """Which of all cases are tried: in the long form all of them with the right clock, and 24 with each other one."""
    long = request.config.getoption("--soak")

    def choose(cases: list[Any], clock: str) -> list[Any]:
        if long and clock == "right":
            return cases
        return Random(request.node.name).sample(cases, min(24 if long else 3, len(cases)))

    return choose


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    numbers = count()

    def make(*args: Any, **options: Any) -> Run:
        return Run(tmp_path / f"{next(numbers)}.sqlite", *args, **options)

    return make  # type: ignore[return-value]


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Set the clock by which checkpoints get their ids, and forget the last one, as in another process."""
    moved = SimpleNamespace(time_ns=lambda: time.time_ns() + seconds * 10**9)
    monkeypatch.setattr(checkpoint_ids, "time", moved)
    monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)


def boundaries(writes: int) -> list[tuple[int, bool]]:
    return [(at, after) for at in range(writes) for after in (False, True)]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_run_killed_at_any_write_and_resumed_or_asked_for_more_ends_as_if_it_had_not_been(
    topology: str,
    way: str,
    clock: str,
    runs: Callable[..., Run],
    chosen: Callable[[list[Any], str], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_rounds, first, later = topology != "best_of_n", Process(), Process()
    whole = runs(topology, way)
    ended = whole.play(process=first)
    calls = whole.paid
    extended = whole.play(2, process=later) if has_rounds else ended
    calls_extended = whole.paid
    asked = [("resume", ended, calls)] + [("more", extended, calls_extended)] * has_rounds
    cases = [(0, at, after, then) for at, after in boundaries(first.writes) for then in asked]
    cases += [(2, at, after, asked[-1]) for at, after in boundaries(later.writes) if has_rounds]
    cases = chosen(cases, clock)
    print(f"{len(cases)} cases")
    for number, (more, at, after, (then, wanted, paid)) in enumerate(cases):
        set_clock(monkeypatch, 0)
        run = runs(topology, way)
        if more:
            run.play()
        assert run.play(more, Process(at, after)) is None
        in_flight = run.paid - run.kept()
        assert 0 <= in_flight <= (1 if has_rounds else 3)
        set_clock(monkeypatch, CLOCKS[clock])
        what = f"killed {'after' if after else 'before'} write {at} with {more} more rounds, then {then} ({number})"
        assert run.play(2 if then == "more" else 0) == wanted, what
        assert run.paid - in_flight == paid, what
        assert run.play(2 if then == "more" else 0) == wanted, f"{what}, and asked again"
        if then == "resume" and has_rounds and number % 3 == 0:
            assert run.play(2) == extended, f"{what}, then more"
            assert run.paid - in_flight == calls_extended, what


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name != "best_of_n"])
def test_a_run_ended_by_its_own_listener_and_asked_for_more_rounds_makes_all_of_them(
    topology: str, way: str, error: type[BaseException], runs: Callable[..., Run]
) -> None:
    whole = runs(topology, way, rounds=3)
    whole.play()
    wanted = whole.play(5)
    for last in range(3):
        run = runs(topology, way, rounds=3)

        def listen(event: Any, last: int = last) -> None:
            if event["round"] == last:
                raise error

        assert run.play(on_episode=listen) is None
        assert run.play(5) == wanted
        assert run.paid == whole.paid


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name != "best_of_n"])
@pytest.mark.parametrize("node", ["generate", "evaluate"])
def test_an_embedded_run_interrupted_in_a_round_and_asked_for_more_makes_all_of_its_rounds(
    node: str, topology: str, way: str, durability: Any, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def model(messages: Any) -> str:
        asked.append(messages)
        return digest(messages)

    graph = TOPOLOGIES[topology](model, nearness, rounds=3, seed=0)
    config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 1000}

    def listen(event: Any, interrupts: bool) -> None:
        episodes = (event.get(node) or {}).get("episodes")
        if interrupts and episodes and episodes[-1]["round"] == 1:
            raise Killed

    def play(inputs: Any, saver: Any, interrupts: bool) -> Any:
        compiled: Any = graph.compile(saver)
        with closing(compiled.stream(inputs, config, stream_mode="updates", durability=durability)) as events:
            for event in events:
                listen(event, interrupts)
        return without_cost(compiled.get_state(config).values["episodes"])

    async def aplay(inputs: Any, path: Path, interrupts: bool) -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            compiled: Any = graph.compile(saver)
            stream = compiled.astream(inputs, config, stream_mode="updates", durability=durability)
            async with aclosing(stream) as events:
                async for event in events:
                    listen(event, interrupts)
            return without_cost((await compiled.aget_state(config)).values["episodes"])

    def run(inputs: Any, path: Path, interrupts: bool = False) -> Any:
        if way == "async":
            return asyncio.run(aplay(inputs, path, interrupts))
        with SqliteSaver.from_conn_string(str(path)) as saver:
            return play(inputs, saver, interrupts)

    run(GAME, tmp_path / "whole.sqlite")
    wanted, paid = run({"more": 2}, tmp_path / "whole.sqlite"), len(asked)
    asked.clear()
    with pytest.raises(Killed):
        run(GAME, tmp_path / "ended.sqlite", interrupts=True)
    assert run({"more": 2}, tmp_path / "ended.sqlite") == wanted
    assert len(asked) == paid


class Outer(Output, total=False):
    task: str
    task_data: dict[str, Any]
    more: int


def embedded(graph: Any) -> Any:
    outer = StateGraph(Outer)
    outer.add_node("before", lambda state: {"rounds_done": 0})
    outer.add_node("inner", graph.compile())
    outer.add_edge(START, "before")
    outer.add_edge("before", "inner")
    return outer


@pytest.mark.parametrize("is_embedded", [False, True])
@pytest.mark.parametrize("kind", SYNC[:2] + ASYNC[:2])
def test_a_thread_goes_on_from_what_was_written_last_though_the_clock_was_set_back(
    kind: str, is_embedded: bool, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph: Any = create_icrl(digest, nearness, rounds=3, seed=0)
    with opened(kind, tmp_path / "run.sqlite", postgres) as database:
        compiled = (embedded(graph) if is_embedded else graph).compile(checkpointer=database.saver)

        def run(inputs: Any, clock: int, **options: Any) -> Any:
            set_clock(monkeypatch, clock)
            output = database.invoke(compiled, inputs, thread(), **options)
            saved = compiled.get_state(thread()).values
            assert {name: saved[name] for name in output} == output
            return output

        database.invoke(compiled, GAME, thread(), interrupt_before=["inner" if is_embedded else "evaluate"])
        assert run(None, -3600)["rounds_done"] == 3  # resumed
        if not is_embedded:
            set_clock(monkeypatch, -5000)
            branch = revise(compiled, thread(), 1, reward=0.0)
            assert branch["configurable"]["checkpoint_id"] == head_of(compiled)
            assert run(None, -6000)["rounds_done"] == 3
        assert run({"task": "Another.", "task_data": {"secret": 7}}, -7200)["rounds_done"] == 3  # another input
        if not is_embedded:
            assert run({"more": 2}, -9000)["rounds_done"] == 5


def head_of(compiled: Any) -> str:
    return str(compiled.get_state(thread()).config["configurable"]["checkpoint_id"])


MODEL = '''
from pathlib import Path

def model(messages):
    """Answers as often as it is allowed to."""
    paid = Path("paid")
    if (said := len(paid.read_text()) if paid.exists() else 0) >= int(Path("allowed").read_text()):
        raise RuntimeError("down")
    paid.write_text("." * (said + 1))
    return str(said)

def score(response):
    return 0.5
'''
FOLDER_RUN: Any = {"task": "Count.", "model": "m.py:model", "evaluator": "m.py:score", "options": {"rounds": 8}}


def begun(folder: Path, allowed: int) -> None:
    """A run of eight rounds whose model has answered so often, and then no more."""
    (folder / "m.py").write_text(MODEL)
    (folder / "allowed").write_text(str(allowed))
    FolderRun(**FOLDER_RUN).start(folder / "out")


def rounds_of(folder: Path) -> int:
    return int(json.loads((folder / "out" / "run.json").read_text())["options"]["rounds"])


@pytest.mark.parametrize("down_again", [False, True])
def test_rounds_lost_to_a_model_that_was_down_are_lost_once_when_more_are_asked_for(
    down_again: bool, here: Path
) -> None:
    begun(here, 2)
    if down_again:
        assert FolderRun.resume(here / "out", more=2).stopped == "failures"
        assert rounds_of(here) == 8
    (here / "allowed").write_text("100")
    result = FolderRun.resume(here / "out", more=2)
    answered = [episode for episode in result.episodes if "response" in episode]
    assert (len(answered), len(result.episodes), result.stopped) == (10, 16 if down_again else 13, "rounds")
    assert FolderRun.resume(here / "out", more=1).lost_rounds == len(result.episodes) - 10
    assert len((here / "paid").read_text()) == 11


def test_a_run_that_was_extended_while_its_model_was_down_by_an_earlier_version_is_resumed(here: Path) -> None:
    begun(here, 2)
    values = json.loads((here / "out" / "run.json").read_text())
    (here / "out" / "run.json").write_text(json.dumps({**values, "options": {"rounds": 10}}))
    (here / "allowed").write_text("100")
    result = FolderRun.resume(here / "out")
    assert len([episode for episode in result.episodes if "response" in episode]) == 10


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("allowed", [2, 100])
def test_a_folder_is_resumed_after_a_kill_around_the_writing_of_its_arguments(
    allowed: int, after: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(here, allowed)
    (here / "allowed").write_text("100")

    def dying(path: Path, values: Any) -> None:
        if path.name == "run.json":
            if after:
                write_whole(path, values)
            raise Killed
        write_whole(path, values)

    with monkeypatch.context() as patch:
        patch.setattr("icrl_graph.cli.run_folder.write_whole", dying)
        with pytest.raises(Killed):
            FolderRun.resume(here / "out", more=2)
    assert rounds_of(here) == (10 if after else 8)
    assert len((here / "paid").read_text()) == 8
    FolderRun.resume(here / "out")
    assert len((here / "paid").read_text()) == rounds_of(here)


READING = """
import asyncio, sys
from pathlib import Path
from icrl_graph.api import aimprove, improve
from icrl_graph.cli.run_folder import Run
sys.path.insert(0, ".")
from m import model, score
given = {"model": model, "path": "out/run.sqlite", "thread_id": "run"}
print(Run.resume(Path("out")).answer)
print(improve("Count.", score, rounds=8, **given).answer)
print(asyncio.run(aimprove("Count.", score, rounds=8, **given)).answer)
try:
    improve("Count.", score, rounds=9, **given)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_an_ended_run_is_read_from_a_folder_that_can_not_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.chdir(folder)
        begun(folder, 8)
        before = {file.name for file in (folder / "out").iterdir()}
        for each in (folder, folder / "out"):
            each.chmod(0o555)
        command, environment = [sys.executable, "-c", READING], {**os.environ, "PYTHONPATH": str(ROOT)}
        if os.getuid() == 0:  # root may write everywhere
            command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.stdout.split() == ["0", "0", "0", "OperationalError"], done.stderr
        assert {file.name for file in (folder / "out").iterdir()} == before
        assert len((folder / "paid").read_text()) == 8
        for each in (folder, folder / "out"):
            each.chmod(0o755)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_more_is_paid_once_the_file_of_a_run_was_deleted(way: str, tmp_path: Path) -> None:
    asked: list[Any] = []

    def model() -> str:
        asked.append("once")
        if len(asked) == 2:
            (tmp_path / "run.sqlite").unlink()
        return "42"

    given: Any = {"model": model, "rounds": 6, "path": tmp_path / "run.sqlite"}

    def call() -> Any:
        if way == "sync":
            return improve("t", lambda: 1.0, **given)
        return asyncio.run(aimprove("t", lambda: 1.0, **given))

    with pytest.raises(JournalError, match="run.sqlite was deleted"):
        call()
    assert len(asked) == 2


def test_what_was_answered_is_printed_when_the_folder_of_a_run_is_deleted(here: Path) -> None:
    deleting = 'if said == 1:\n        __import__("shutil").rmtree("out")\n    return "answer " * 40 + str(said)'
    (here / "m.py").write_text(MODEL.replace("return str(said)", deleting).replace("return 0.5", "return -0.5"))
    (here / "allowed").write_text("100")
    done = icrl("run", "t", "--model", "m.py:model", "--evaluator", "m.py:score", "--rounds", "5", "--out", "out")
    assert done.returncode == 1
    assert "was deleted" in " ".join(done.stderr.split())
    assert "answer " * 40 + "0" in " ".join(done.stdout.split())
    assert len((here / "paid").read_text()) == 2
