"""Text that is no valid Unicode, or holds NUL: cleaned where it enters, so that nothing after it breaks."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph import aimprove, chat_model, create_icrl, improve, llm_judge
from icrl_graph.environments import Outcome
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.state.unicode import cleaned
from icrl_graph.testing import OpenAIServer
from tests.command_line import icrl, process
from tests.databases import opened
from tests.helpers import thread
from tests.raw_http import COMPLETION, RawServer, answer

DIRTY, CLEAN = "4\0\ud8002", "4\ufffd\ufffd2"
WAYS = [improve, aimprove]


def _played(way: Any, task: Any, score: Any, **options: Any) -> Any:
    played = way(task, score, **options)
    return asyncio.run(played) if asyncio.iscoroutine(played) else played


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_cleaned_can_be_stored_and_sent_and_stays_what_it_is_if_it_could(text: str) -> None:
    clean = cleaned(text)
    assert "\0" not in clean.encode().decode()
    assert cleaned(clean) is clean
    try:
        valid = "\0" not in text and text.encode().decode() == text
    except UnicodeEncodeError:
        valid = False
    assert (clean is text) == valid


def test_halves_that_a_stream_has_torn_apart_become_their_character() -> None:
    assert cleaned({"a": ["\ud83d\ude00", 1, None]}) == {"a": ["\U0001f600", 1, None]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_dirty_reply_task_and_feedback_do_not_end_a_run_over_http(stream: bool, way: Any) -> None:
    with OpenAIServer(lambda: DIRTY) as server:
        model = chat_model("openai:any", base_url=server.base_url, streaming=stream)
        score: Any = lambda response, task_data: {"value": task_data["x"] == CLEAN, "feedback": DIRTY}  # noqa: E731
        result = _played(way, f"Say {DIRTY}.", score, model=model, task_data={"x": DIRTY}, rounds=3)
        assert (result.answer, result.rewards) == (CLEAN, [1.0] * 3)
        assert result.episodes[0]["reward"]["feedback"] == CLEAN
        asked = json.dumps(server.prompts[2], ensure_ascii=False)
        assert asked.count(CLEAN) == 5
        assert "\ud800" not in asked


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["error", "schedule", "system", "rubric", "reflection", "extract", "judge"])
def test_what_comes_as_an_argument_or_from_another_part_is_cleaned(part: str, way: Any) -> None:
    with OpenAIServer(lambda: json.dumps({"reasons": DIRTY, "score": 5})) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        score: Any = lambda: 0.5  # noqa: E731
        options: dict[str, Any] = {"rounds": 2}
        if part == "error":
            score = lambda: _raise(ValueError(DIRTY))  # noqa: E731
        elif part == "schedule":
            options["schedule"] = lambda number, past: DIRTY
        elif part == "system":
            options["system"] = DIRTY
        elif part in ("rubric", "judge"):
            score = llm_judge(model, DIRTY if part == "rubric" else "Is it good?")
        elif part == "reflection":
            options["topology"] = "reflexion"
        else:
            options["extract"] = lambda response: {DIRTY: [DIRTY]}
        result = _played(way, "Say 42.", score, model=model, **options)
        assert result.stopped == "rounds"
        assert cleaned(result.episodes) == result.episodes
        assert cleaned(server.prompts) == server.prompts


def _raise(error: Exception) -> Any:
    raise error


class Dirty:
    """An environment of one step, whose words are dirty."""

    def reset(self, task_data: Any) -> Outcome:
        return Outcome(DIRTY, hint=DIRTY)

    def step(self, action: str) -> Outcome:
        return Outcome(DIRTY + action, 1.0, done=True, info={DIRTY: DIRTY})

    def close(self) -> None: ...


@pytest.mark.parametrize("way", WAYS)
def test_a_dirty_observation_does_not_end_a_rollout(way: Any) -> None:
    with OpenAIServer(lambda: DIRTY) as server:
        model = rollout(chat_model("openai:any", base_url=server.base_url), Dirty)
        result = _played(way, "Go.", episode_return, model=model, rounds=2)
        assert result.rewards == [1.0, 1.0]
        assert result.episodes[0]["steps"][0]["observation"] == CLEAN * 2


@pytest.mark.parametrize("way", WAYS)
def test_bytes_that_are_no_utf8_are_replaced(way: Any) -> None:
    with RawServer(answer(COMPLETION.replace(b"42", b"4\xff2"))) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1")
        assert _played(way, "Say 42.", lambda: 1.0, model=model, rounds=2).answer == "4\ufffd2"


@pytest.mark.parametrize("kind", ["postgres", "async postgres", "sqlite", "async sqlite"])
def test_a_dirty_run_ends_on_a_real_database(kind: str, tmp_path: Path, postgres: str) -> None:
    with OpenAIServer(lambda: DIRTY) as server, opened(kind, tmp_path / "db.sqlite", postgres) as database:
        model = chat_model("openai:any", base_url=server.base_url)
        score: Any = lambda: {"value": 1.0, "feedback": DIRTY}  # noqa: E731
        graph: Any = create_icrl(model, score, rounds=3).compile(checkpointer=database.saver)
        asked = {"task": "Say 4\0002.", "task_data": {"4\0002": "4\0002"}}  # LangGraph itself refuses surrogates here
        out = database.invoke(graph, asked, thread())
        assert (out["answer"], out["rounds_done"], server.counts["calls"]) == (CLEAN, 3, 3)


def test_a_dirty_file_and_a_dirty_argument_are_played(here: Path) -> None:
    (here / "mine.py").write_text("def score(response):\n    return 1.0\n")
    (here / "mine.jsonl").write_text('{"task": "Say 4\\u0000\\ud8002.", "id": "a\\ud800"}\n')
    with OpenAIServer(lambda: DIRTY) as server:
        model = (
            "--model",
            "openai:any",
            "--base-url",
            server.base_url,
            "--evaluator",
            "mine.py:score",
            "--rounds",
            "2",
        )
        file = icrl("bench", "mine.jsonl", "--topologies", "icrl", *model, "--out", "bench")
        argument = process("run", "Say 4\udcff2.", *model, "--out", "run", cwd=here)
        for done in (file, argument):
            assert done.returncode == 0, done.stderr
        assert server.counts["calls"] == 4


def test_a_dirty_prompt_is_sent_by_a_chat_model_on_its_own_too() -> None:
    with OpenAIServer(lambda messages: messages[-1]["content"]) as server:
        assert chat_model("openai:any", base_url=server.base_url).invoke(DIRTY).content == CLEAN
