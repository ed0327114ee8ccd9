"""A reply without an answer is what the method came to; a call that failed says nothing of the method."""

import asyncio
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from icrl_graph import RateLimit, aimprove, chat_model, improve
from icrl_graph.benchmarks.api import Comparison, compare
from icrl_graph.benchmarks.benchmark import Benchmark
from icrl_graph.benchmarks.experiment import make_plan
from icrl_graph.benchmarks.runner import run
from icrl_graph.testing import Fault, OpenAIServer
from tests.command_line import icrl

REPLIES: dict[str, Any] = {
    "empty": AIMessage(""),
    "blank": AIMessage(" \n"),
    "refused": AIMessage("", additional_kwargs={"refusal": "I can't help with that."}),
    "filtered": AIMessage("Half an ans", response_metadata={"finish_reason": "content_filter"}),
    "unparsable": {"raw": AIMessage("Well, it depends."), "parsed": None, "parsing_error": ValueError("not JSON")},
    "empty structured": {"raw": AIMessage(""), "parsed": None, "parsing_error": None},
    "unparsable by a chain": OutputParserException("not JSON"),
}
DOWN = RuntimeError("down")


def _model(script: Any) -> tuple[RunnableLambda[Any, Any], list[int]]:
    """A model that gives the replies of a script in turn, the last one for ever, and the calls that it had."""
    calls: list[int] = []

    def reply(prompt: Any) -> Any:
        calls.append(1)
        said = script[min(len(calls), len(script)) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    return RunnableLambda(reply), calls


def _improve(way: Any, model: Any, path: Path, **options: Any) -> Any:
    quick = {"rate_limit": RateLimit(max_attempts=1), "path": path, **options}
    played = way("t", lambda response: float(response == "42"), model=model, **quick)
    return asyncio.run(played) if way is aimprove else played


TOPOLOGIES = ["icrl", "reflexion", "self_refine", "best_of_n"]
CASES: list[Any] = [
    *product(REPLIES, TOPOLOGIES, [improve]),
    *product(REPLIES, ["icrl"], [aimprove]),
    *product(["refused"], TOPOLOGIES[1:], [aimprove]),
]


@pytest.mark.parametrize(("reply", "topology", "way"), CASES)
def test_a_run_of_replies_without_an_answer_has_ended_and_is_not_paid_again(
    reply: str, topology: str, way: Any, tmp_path: Path
) -> None:
    model, calls = _model([REPLIES[reply]])
    size = {"n" if topology == "best_of_n" else "rounds": 4}
    first = _improve(way, model, tmp_path / "run.sqlite", topology=topology, **size)
    assert (first.stopped, first.answer, first.reward) == ("rounds", None, None)
    assert {episode["error_kind"] for episode in first.episodes} == {"reply"}
    paid = len(calls)
    again = _improve(way, model, tmp_path / "run.sqlite", topology=topology, **size)
    assert (again.episodes, len(calls)) == (first.episodes, paid)


@pytest.mark.parametrize("way", [improve, aimprove])
def test_a_run_that_its_provider_has_lost_is_resumed_and_its_refused_rounds_count(way: Any, tmp_path: Path) -> None:
    refused = REPLIES["refused"]
    model, calls = _model([refused, DOWN, refused, DOWN, DOWN, DOWN, AIMessage("42")])
    path = tmp_path / "run.sqlite"
    first = _improve(way, model, path, rounds=5)
    kinds = ["reply", "call", "reply", "call", "call", "call"][: len(first.episodes)]
    assert (first.stopped, [episode.get("error_kind") for episode in first.episodes]) == ("rounds", kinds)
    assert len(calls) == 5


@pytest.mark.parametrize("way", [improve, aimprove])
def test_of_a_run_that_is_resumed_the_lost_rounds_alone_are_made_again(way: Any, tmp_path: Path) -> None:
    model, calls = _model([REPLIES["refused"], DOWN, DOWN, DOWN, REPLIES["empty"], AIMessage("42"), AIMessage("41")])
    path = tmp_path / "run.sqlite"
    assert _improve(way, model, path, rounds=4).stopped == "failures"
    result = _improve(way, model, path, rounds=4)
    assert (result.stopped, result.answer, len(calls)) == ("rounds", "42", 7)  # four that count, three that were lost


@pytest.mark.parametrize("fault", ["empty", "refused", "filtered"])
@pytest.mark.parametrize("way", [improve, aimprove])
def test_over_http_it_is_the_same(fault: Fault, way: Any, tmp_path: Path) -> None:
    with OpenAIServer(lambda: "42", faults=dict.fromkeys(range(1, 9), fault)) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        for _ in range(2):
            assert _improve(way, model, tmp_path / "run.sqlite", rounds=3).stopped == "rounds"
        assert server.counts["calls"] == 3


ITEMS = [f"{number:02}" for number in range(20)]
BENCHMARK = Benchmark(
    about="twenty",
    items=lambda: ITEMS,
    read=lambda name: {"task": f"Task {name}", "task_data": {}},
    evaluator=lambda response: float(response == "right"),
)
ARMS = """
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from tests.test_unanswered import REPLIES

calls = []


def _of(other):
    def reply(prompt):
        calls.append(1)
        said = AIMessage("right") if "Task 00" in str(prompt) or "Task 01" in str(prompt) else other
        if isinstance(said, Exception):
            raise said
        return said

    return RunnableLambda(reply)


wrong = _of(AIMessage("wrong"))
silent = _of(REPLIES[%r])
"""


@pytest.mark.parametrize(("reply", "solved_at"), [*((reply, 1.0) for reply in REPLIES), ("empty", None)])
def test_who_solves_2_of_20_has_solved_a_tenth_whether_the_others_are_wrong_or_empty(
    reply: str, solved_at: float | None, tmp_path: Path
) -> None:
    (tmp_path / "models.py").write_text(ARMS % reply)
    wrong, silent = (f"icrl+model={tmp_path / 'models.py'}:{name}" for name in ("wrong", "silent"))
    given: Any = {"model": lambda: "x", "rounds": 1, "solved_at": solved_at}
    plan, objects = make_plan(BENCHMARK, [wrong, silent], **given)
    run(plan, tmp_path / "x", objects=objects, durable=False)
    played = Comparison.read(tmp_path / "x")
    assert (played.failures, played.unscored) == ({}, [])
    one, other = played.summary["methods"]
    for name in played.summary["measures"]:
        assert one["equal"][name] == other["equal"][name]
        assert (other["equal"][name]["mean"], other["equal"][name]["unscored"]) == (0.1, 0)
    for name in ("reward", "metric", "best", "answer", "solved"):
        assert one[name] == other[name]  # type: ignore[literal-required]
    assert all(pair["difference"] == 0 and pair["p"] == 1 for pair in played.summary["pairs"])
    assert any("18 of 20 runs gave no answer" in line for line in other["warnings"])


def test_runs_without_an_answer_are_not_paid_again_when_a_comparison_is_resumed(tmp_path: Path) -> None:
    model, calls = _model([REPLIES["refused"]])
    for _ in range(2):
        played = compare(BENCHMARK, "icrl,best_of_n", model=model, rounds=2, limit=2, folder=tmp_path / "x")
        assert (played.failures, len(calls)) == ({}, 8)


def test_icrl_run_says_that_nothing_was_answered_and_does_not_ask_to_resume(tmp_path: Path) -> None:
    with OpenAIServer(lambda: "42", faults=dict.fromkeys(range(1, 9), "refused")) as server:
        given = ("--model", "openai:any", "--base-url", server.base_url, "--rounds", "2", "--out", str(tmp_path / "x"))
        done = icrl("run", "game24:4,5,6,10", *given)
        assert (done.returncode, server.counts["calls"]) == (1, 2)
        assert "no attempt gave an answer" in done.stderr
        assert "icrl resume" not in done.stderr
        assert icrl("resume", str(tmp_path / "x"), "--json").returncode == 1
        assert server.counts["calls"] == 2
