"""What each fault of a provider does to a run, over real HTTP: the table of docs/faults.md, row by row."""

import re
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import ModelError, Pace, chat_model, improve
from icrl_graph.state import cost_of
from icrl_graph.testing import OpenAIServer

TABLE = (Path(__file__).parents[1] / "docs" / "faults.md").read_text(encoding="utf-8")
LOST = {  # what the attempt says, where nobody repeats the call
    "429": "429",
    "500": "500",
    "reset": "Connection error",
    "hang": "timed out",
    "malformed": "JSONDecodeError",
    "truncated": "Connection error",
    "empty": "empty answer",
    "filtered": "content filter",
}
REPEATED = {"429", "500", "reset", "hang", "truncated"}


def _play(fault: Any, **options: Any) -> tuple[Any, OpenAIServer]:
    with OpenAIServer(lambda: "42", faults={2: fault}) as server:
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0, timeout=1.0)
        return improve("Say 42.", lambda response: float(response == "42"), model=model, rounds=3, **options), server


@pytest.mark.parametrize("fault", LOST)
def test_a_fault_costs_its_attempt_and_nothing_else(fault: str) -> None:
    result, server = _play(fault)
    assert result.rewards == [1.0, None, 1.0]
    assert LOST[fault] in result.episodes[1]["error"]
    assert (result.answer, result.stopped, server.counts["calls"]) == ("42", "rounds", 3)
    assert result.usage["calls"] == 3


@pytest.mark.parametrize("fault", LOST)
def test_with_a_pace_what_may_pass_is_asked_again(fault: str) -> None:
    result, server = _play(fault, pace=Pace(longest_wait=0.01))
    assert (result.rewards == [1.0, 1.0, 1.0]) == (fault in REPEATED)
    assert server.counts["calls"] == 3 + (fault in REPEATED)
    assert result.usage["calls"] == 3  # a call that was repeated is one call


@pytest.mark.parametrize("fault", ["empty", "filtered"])
def test_a_reply_that_says_nothing_was_paid_for_and_its_tokens_count(fault: str) -> None:
    result, server = _play(fault)
    assert cost_of(result.episodes[1])["input"] == server.reported[1]["prompt_tokens"] > 0


def test_a_wrong_key_ends_the_run_at_once() -> None:
    with pytest.raises(ModelError, match="401"):
        _play("401")


def test_the_table_has_a_row_for_every_fault() -> None:
    told = set(re.findall(r"^\| `(\w+)`", TABLE, re.M))
    assert told == {*LOST, "401", "overflow"}
