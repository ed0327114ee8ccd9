"""SIGTERM, as a supervisor sends it: calls in flight are finished and saved, and the command says how to resume."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph import aimprove, improve
from icrl_graph.benchmarks.results import read_results
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.command_line import icrl, started


def _gate(open_at: int) -> tuple[Callable[..., str], Event, Event]:
    """A model that holds back its answer to one call until it is released."""
    in_flight, release, count = Event(), Event(), iter(range(10**6))

    def reply(messages: Any) -> str:
        if next(count) == open_at:
            in_flight.set()
            assert release.wait(60)
        return "red"

    return reply, in_flight, release


def test_sigterm_ends_a_run_after_the_call_in_flight_and_resume_continues_from_there(tmp_path: Path) -> None:
    reply, in_flight, release = _gate(2)
    with OpenAIServer(reply) as server:
        where = ("--model", "openai:any", "--base-url", server.base_url, "--rounds", "5", "--out", str(tmp_path / "r"))
        child = started("run", "hidden-color:#3b9", *where, cwd=tmp_path)
        assert in_flight.wait(60)
        child.send_signal(signal.SIGTERM)
        assert "SIGTERM again stops at once" in child.stderr.readline()
        release.set()
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 143
        assert f"Stopped. Progress is saved. Resume with: icrl resume {tmp_path / 'r'}" in errors
        assert server.counts["calls"] == 3
        resumed = icrl("resume", str(tmp_path / "r"), "--json")
        assert json.loads(resumed.stdout)["usage"]["calls"] == 5, resumed.stderr
        assert server.counts["calls"] == 5


def test_a_second_sigterm_ends_a_run_at_once_and_loses_only_the_call_in_flight(tmp_path: Path) -> None:
    reply, in_flight, release = _gate(2)
    with OpenAIServer(reply) as server:
        where = ("--model", "openai:any", "--base-url", server.base_url, "--rounds", "5", "--out", str(tmp_path / "r"))
        child = started("run", "hidden-color:#3b9", *where, cwd=tmp_path)
        assert in_flight.wait(60)
        child.send_signal(signal.SIGTERM)
        child.stderr.readline()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGTERM
        release.set()
        resumed = icrl("resume", str(tmp_path / "r"), "--json")
        assert json.loads(resumed.stdout)["usage"]["calls"] == 5, resumed.stderr
        assert server.counts["calls"] == 6


def test_sigterm_lets_a_comparison_start_no_further_run_and_resume_does_the_rest(tmp_path: Path) -> None:
    reply, in_flight, release = _gate(5)
    with OpenAIServer(reply) as server:
        limits = ("--rounds", "4", "--limit", "3", "--concurrency", "1", "--out", str(tmp_path / "b"))
        where = ("--model", "openai:any", "--base-url", server.base_url, "--topologies", "icrl")
        child = started("bench", "hidden-color", *where, *limits, cwd=tmp_path)
        assert in_flight.wait(60)
        child.send_signal(signal.SIGTERM)
        assert "SIGTERM again" in child.stderr.readline()
        release.set()
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 143
        assert "icrl resume" in errors
        assert server.counts["calls"] == 6
        assert len(read_results(tmp_path / "b").rows) == 1
        resumed = icrl("resume", str(tmp_path / "b"))
        assert resumed.returncode == 0, resumed.stderr
        assert len(read_results(tmp_path / "b").rows) == 3
        assert server.counts["calls"] == 12


@pytest.mark.parametrize("is_async", [False, True])
def test_improve_is_ended_through_its_control_and_the_same_call_resumes_it(is_async: bool, tmp_path: Path) -> None:
    import asyncio

    control, model = RunControl(), ScriptedModel(lambda: "x")

    def improved(**more: Any) -> Any:
        options: Any = {"score": lambda: 0.5, "model": model, "rounds": 4, "path": tmp_path / "run.sqlite", **more}
        return asyncio.run(aimprove("t", **options)) if is_async else improve("t", **options)

    with pytest.raises(GraphDrained) as raised:
        improved(control=control, on_episode=lambda event: control.request_drain("enough"))
    assert "the same call resumes it" in " ".join(raised.value.__notes__)
    assert len(model.prompts) == 1
    assert improved().usage["calls"] == 4
    assert len(model.prompts) == 4


@pytest.mark.parametrize("is_async", [False, True])
def test_calls_that_wait_for_their_turn_are_not_started_after_a_drain(is_async: bool, tmp_path: Path) -> None:
    import asyncio

    from icrl_graph import RateLimit

    control = RunControl()

    def reply() -> str:
        control.request_drain("enough")
        return "x"

    model = ScriptedModel(reply)

    def improved(**more: Any) -> Any:
        options: Any = {"score": lambda: 0.5, "model": model, "topology": "best_of_n", "n": 6, **more}
        options |= {"path": tmp_path / "run.sqlite", "rate_limit": RateLimit(max_concurrency=1)}
        return asyncio.run(aimprove("t", **options)) if is_async else improve("t", **options)

    with pytest.raises(GraphDrained):
        improved(control=control)
    assert len(model.prompts) == 1
    assert improved().usage["calls"] == 6
    assert len(model.prompts) == 6


def test_sigterm_ends_a_rejudge_and_resume_does_the_rest(tmp_path: Path) -> None:
    with OpenAIServer(lambda: "red") as server:
        where = ("--model", "openai:any", "--base-url", server.base_url, "--topologies", "icrl")
        limits = ("--rounds", "3", "--limit", "2", "--concurrency", "1", "--out", str(tmp_path / "b"))
        assert icrl("bench", "hidden-color", *where, *limits).returncode == 0
    reply, in_flight, release = _gate(1)
    with OpenAIServer(lambda messages: json.dumps({"reasons": reply(messages), "score": 3})) as server:
        (tmp_path / "judge.py").write_text(
            f"from icrl_graph import chat_model\nmodel = chat_model('openai:judge', base_url={server.base_url!r})\n"
        )
        judge = ("--judge", f"{tmp_path / 'judge.py'}:model", "--rubric", "Is it good?")
        child = started("rejudge", str(tmp_path / "b"), *judge, "--out", str(tmp_path / "again"), cwd=tmp_path)
        assert in_flight.wait(60)
        child.send_signal(signal.SIGTERM)
        while "SIGTERM again" not in child.stderr.readline():
            pass
        before = server.counts["calls"]
        release.set()
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 143, errors
        assert server.counts["calls"] == before
        resumed = icrl("resume", str(tmp_path / "again"))
        assert resumed.returncode == 0, resumed.stderr
        assert server.counts["calls"] == 6
