"""When the place where a run is kept fails under it: a full disk, a lock, a database that is restarted."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import improve
from icrl_graph.errors import ThreadMismatch
from icrl_graph.execution import threads
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from tests.databases import opened
from tests.full_disk_child import play
from tests.helpers import GAME, climber, nearness, thread

CHILD = Path(__file__).parent / "full_disk_child.py"


def test_a_full_disk_ends_the_run_with_a_clear_error_and_it_is_resumed_once_there_is_room(tmp_path: Path) -> None:
    whole, full = tmp_path / "whole", tmp_path / "full"
    whole.mkdir()
    full.mkdir()
    for kilobytes in (60, 120, 300):
        ended = _on_a_full_disk(full, kilobytes)
        assert "disk" in ended.stderr
        assert "the same call resumes it" in ended.stderr
    assert play(full) == play(whole)
    assert len((full / "paid.log").read_text()) <= 30 + 3  # at most what was in flight


def test_a_run_that_is_resumed_on_a_disk_that_is_still_full_pays_for_nothing(tmp_path: Path) -> None:
    _on_a_full_disk(tmp_path, 100)
    paid = (tmp_path / "paid.log").read_text()
    assert paid
    for kilobytes in (60, 100, 120, 200):
        ended = _on_a_full_disk(tmp_path, kilobytes, "already")
        assert "File too large" in ended.stderr
        assert "the same call resumes it" in ended.stderr
        assert (tmp_path / "paid.log").read_text() == paid


def _on_a_full_disk(folder: Path, kilobytes: int, *already: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHILD), str(folder), str(kilobytes * 1024), *already]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    return ended


@pytest.mark.parametrize("kind", ["postgres pool", "async postgres pool"])
def test_a_database_that_is_restarted_under_a_pool_costs_nothing(
    kind: str, tmp_path: Path, postgres: str, postgres_server: Any
) -> None:
    def reply(messages: Any) -> str:
        if len(model.prompts) == 3:
            postgres_server.stop()
            postgres_server.start()
        return climber(messages)

    model = ScriptedModel(reply)
    with opened(kind, tmp_path, postgres) as database:
        graph: Any = create_icrl(model, nearness, rounds=5).compile(checkpointer=database.saver)
        asked: Any = GAME
        for _ in range(10):  # LangGraph's own writes are not made again, so the run may end; nothing of it is lost
            try:
                end = database.invoke(graph, asked, thread())
                break
            except Exception:
                asked = None
        assert end["rounds_done"] == 5
    assert len(model.prompts) == 5


def test_a_database_that_is_restarted_under_a_single_connection_costs_the_call_in_flight(
    tmp_path: Path, postgres: str, postgres_server: Any
) -> None:
    def reply(messages: Any) -> str:
        if len(model.prompts) == 3:
            postgres_server.stop()
            postgres_server.start()
        return climber(messages)

    model = ScriptedModel(reply)
    with opened("postgres", tmp_path, postgres) as database:
        graph: Any = create_icrl(model, nearness, rounds=5).compile(checkpointer=database.saver)
        with pytest.raises(Exception, match="(?i)connection"):
            database.invoke(graph, GAME, thread())
    with opened("postgres", tmp_path, postgres) as database:
        graph = create_icrl(model, nearness, rounds=5).compile(checkpointer=database.saver)
        assert database.invoke(graph, None, thread())["rounds_done"] == 5
    assert len(model.prompts) == 6


@pytest.mark.parametrize("at", ["build_context", "generate", "evaluate", "select"])
def test_a_thread_of_another_version_is_refused_by_the_graph_and_not_read_as_empty(at: str, tmp_path: Path) -> None:
    model = ScriptedModel(climber)
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        graph: Any = create_icrl(model, nearness, rounds=1).compile(checkpointer=database.saver)
        graph.invoke(GAME, thread(), interrupt_before=[at])
        settings = graph.get_state(thread()).values["settings"]
        before = {"build_context": "prepare", "generate": "build_context", "evaluate": "generate", "select": "evaluate"}
        graph.update_state(thread(), {"settings": {**settings, "form": 1}}, as_node=before[at])
        asked = len(model.prompts)
        with pytest.raises(ThreadMismatch, match="schema version 1"):
            graph.invoke(None, thread())
        assert len(model.prompts) == asked


def test_a_thread_of_another_version_is_refused_by_improve(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    improved: Callable[[], Any] = lambda: improve(  # noqa: E731
        GAME["task"], nearness, model=climber, task_data=GAME["task_data"], rounds=2, path=path, thread_id="1"
    )
    improved()
    with opened("sqlite", path, "") as database:
        graph: Any = create_icrl(climber, nearness, rounds=2).compile(checkpointer=database.saver)
        settings = graph.get_state(thread()).values["settings"]
        graph.update_state(thread(), {"settings": {**settings, "form": 1}}, as_node="select")
    with pytest.raises(ThreadMismatch, match="schema version 1"):
        improved()
    with opened("sqlite", path, "") as database:
        threads.delete(create_icrl(climber, nearness, rounds=2).compile(checkpointer=database.saver), "1")
    assert improved().usage["calls"] == 2
