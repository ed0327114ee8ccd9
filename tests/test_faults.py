"""What each fault of a provider does to a run, over real HTTP: the table of docs/faults.md, row by row."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import (
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
)
from langchain_core.runnables import RunnableLambda

from icrl_graph import ModelError, RateLimit, aimprove, chat_model, create_best_of_n, improve
from icrl_graph.models.responses import is_permanent
from icrl_graph.state.episode import cost_of
from icrl_graph.testing import Fault, OpenAIServer
from tests.helpers import play
from tests.interrupted_child import play as play_kept

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
LOST: dict[Fault, str] = {  # what the attempt says, where nobody repeats the call
    "429": "429",
    "500": "500",
    "reset": "Connection error",
    "hang": "timed out",
    "malformed": "is no chat completion",
    "truncated": "Connection error",
    "empty": "empty answer",
    "refused": "the model refused: I can't help with that.",
    "filtered": "content filter",
}
REPEATED = {"429", "500", "reset", "hang", "malformed", "truncated"}
SHORT: Any = {"max_backoff": 0.01}


def _right(response: str) -> float:
    return float(response == "42")


def _play(fault: Fault, stream: bool = False, way: Any = improve, **options: Any) -> tuple[Any, OpenAIServer]:
    with OpenAIServer(lambda: "42", faults={2: fault}) as server:
        timeout = 1.0 if fault == "hang" else 60.0
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0, timeout=timeout, streaming=stream)
        played = way("Say 42.", _right, model=model, rounds=3, **options)
        return asyncio.run(played) if asyncio.iscoroutine(played) else played, server


@pytest.mark.parametrize("fault", LOST)
def test_a_fault_costs_its_attempt_and_nothing_else(fault: Fault) -> None:
    result, server = _play(fault, rate_limit=RateLimit(max_attempts=1))
    assert result.rewards == [1.0, None, 1.0]
    assert LOST[fault] in result.episodes[1]["error"]
    assert (result.answer, result.stopped, server.counts["calls"]) == ("42", "rounds", 3)
    assert result.usage["calls"] == 3


@pytest.mark.parametrize("way", [improve, aimprove])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", LOST)
def test_a_transient_fault_is_retried(fault: Fault, stream: bool, way: Any) -> None:
    result, server = _play(fault, stream, way, rate_limit=RateLimit(**SHORT))
    assert (result.rewards == [1.0, 1.0, 1.0]) == (fault in REPEATED)
    assert server.counts["calls"] == 3 + (fault in REPEATED)
    assert result.usage["calls"] == 3  # a call that was repeated is one call


def test_retries_are_the_default() -> None:
    result, server = _play("429")
    assert (result.rewards, server.counts["calls"]) == ([1.0, 1.0, 1.0], 4)


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_answer_is_waited_for(stream: bool) -> None:
    result, server = _play("slow", stream)
    assert (result.rewards, server.counts["calls"], server.counts["slow"]) == ([1.0, 1.0, 1.0], 3, 1)


def test_a_slow_answer_among_several_is_its_own_candidates() -> None:
    with OpenAIServer(lambda messages: messages[-1]["content"][-1], faults={1: "slow"}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        out, episodes = play(create_best_of_n(model, lambda: 1.0, n=3), {"task": "Say x"})
        assert ([e["response"] for e in episodes], out["usage"]["calls"]) == (["x"] * 3, server.counts["calls"])


@pytest.mark.parametrize("fault", ["empty", "refused", "filtered"])
def test_a_reply_that_says_nothing_was_paid_for_and_its_tokens_count(fault: Fault) -> None:
    result, server = _play(fault)
    assert cost_of(result.episodes[1])["input"] == server.reported[1]["prompt_tokens"] > 0


def test_a_wrong_key_ends_the_run_at_once() -> None:
    with pytest.raises(ModelError, match="401"):
        _play("401")


@pytest.mark.parametrize(
    ("kind", "permanent"),
    [
        (ModelAuthenticationError, True),
        (ModelPermissionDeniedError, True),
        (ModelNotFoundError, True),
        (ModelInvalidRequestError, False),
    ],
)
def test_an_error_of_langchains_own_ends_the_run_where_no_other_attempt_can_succeed(kind: Any, permanent: bool) -> None:
    assert is_permanent(kind("no")) == permanent


def test_json_that_a_custom_evaluator_cannot_read_is_not_retried() -> None:
    asked = []

    def judge(given: Any) -> float:
        asked.append(given)
        return float(json.loads(given["response"][:1] + "{"))

    with OpenAIServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Say 42.", RunnableLambda(judge), model=model, rounds=2, rate_limit=RateLimit(**SHORT))
    assert (len(asked), result.rewards) == (2, [None, None])
    assert "JSONDecodeError" in result.episodes[0]["reward"]["error"]


def test_a_call_is_not_retried_where_its_backoff_would_pass_max_seconds() -> None:
    with OpenAIServer(lambda: "42", faults={1: "500"}) as server:
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0)
        result = improve("Say 42.", _right, model=model, rounds=2, max_seconds=0.99)  # the first wait is 1 s or more
    assert (result.rewards, server.counts["calls"]) == ([None, 1.0], 2)


@pytest.mark.parametrize("way", ["icrl", "best_of_n", "aimprove"])
def test_ctrl_c_ends_a_wait_at_once_and_nothing_that_was_paid_is_lost(way: str, tmp_path: Path) -> None:
    with OpenAIServer(lambda: "42", faults={2: "429"}, retry_after=500) as server:
        given = (way, server.base_url, str(tmp_path / "run.sqlite"))
        command = [sys.executable, "-m", "tests.interrupted_child", *given]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
            assert child.stderr is not None
            told = ""
            for line in child.stderr:
                told += line
                if "retry in 500.0 s" in line:
                    child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in told.splitlines()[-1]
        assert play_kept(*given).reward == 1.0
        assert server.counts["calls"] == 3 + 1


WAITING = """
import sys
from icrl_graph import RateLimit, chat_model, create_best_of_n
from tests.ctrl_c import accept_ctrl_c

accept_ctrl_c()
url, task, at_once, after = sys.argv[1:]
rate_limit = RateLimit(max_concurrency=int(at_once), max_backoff=0.01)
graph = create_best_of_n(chat_model("openai:any", base_url=url), lambda: 1.0, n=6, rate_limit=rate_limit).compile()
try:
    graph.invoke({"task": task})
except KeyboardInterrupt:
    if after == "end":
        raise
    print(graph.invoke({"task": task})["usage"]["calls"])
"""


@pytest.mark.parametrize(("task", "max_concurrency"), [("x" * 9000, 9), ("x", 1)])
def test_after_ctrl_c_no_waiting_call_begins(task: str, max_concurrency: int) -> None:
    _, calls = _interrupted(task, str(max_concurrency), "end")
    assert calls == 1


def test_a_run_begun_while_a_ctrl_c_is_handled_is_not_interrupted() -> None:
    told, calls = _interrupted("x", "1", "again")
    assert (told, calls) == ("6\n", 1 + 1 + 6)


def _interrupted(*given: str) -> tuple[str, int]:
    """Of a run that got a Ctrl-C in its first wait: what it printed, and how many calls there were."""
    with OpenAIServer(lambda: "42", faults={1: "429", 3: "500"}, retry_after=500) as server:
        command = [sys.executable, "-c", WAITING, server.base_url, *given]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            assert child.stdout is not None
            for line in child.stderr:
                if "retry in 500.0 s" in line:
                    child.send_signal(signal.SIGINT)
            return child.stdout.read(), server.counts["calls"]


def test_the_table_has_a_row_for_every_fault() -> None:
    told = set(re.findall(r"^\| `(\w+)`", TABLE, re.M))
    assert told == {*LOST, "slow", "401", "overflow"}
