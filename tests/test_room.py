"""What a server does without a word where a prompt nears the size of the context: no room for an answer, no front."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from icrl_graph import create_icrl, improve
from icrl_graph.environments import episode_return, rollout
from icrl_graph.state.episode import warnings_of
from tests.corridor import Corridor
from tests.test_reasoning import TOPOLOGIES, WAYS, Server, completion, run

LOOPS = {name: options for name, options in TOPOLOGIES.items() if name != "best_of_n"}
ANSWER = "word " * 80


def tokens(body: Any) -> int:
    return sum(len(message["content"]) for message in body["messages"]) // 4


def small(context: int, said: str = ANSWER) -> Callable[[Any], bytes]:
    """A model whose answers end where its context does; the server says so by the finish reason alone."""

    def reply(body: Any) -> bytes:
        read = tokens(body)
        room = max(1, context - read)
        if room * 4 >= len(said):
            return completion(said, read=read, written=len(said) // 4)
        return completion(said[: room * 4], "length", read=read, written=room)

    return reply


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", LOOPS)
def test_where_a_prompt_leaves_no_room_for_an_answer_less_of_the_history_is_shown(topology: str, way: Any) -> None:
    with Server(small(800)) as server:
        options = {"topology": topology, **LOOPS[topology], "rounds": 12, "memory": "all"}
        result = run(way, "Say it.", lambda: 0.5, model=server.model(), **options)
    assert min(len(each["response"]) for each in result.episodes) > len(ANSWER) / 5
    assert any(each["plan"]["left_out"] for each in result.episodes)
    assert result.usage["calls"] == server.calls  # what was cut off was paid, too


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_within_an_episode_of_many_turns_too(way: str) -> None:
    log: list[str] = []
    with Server(small(260, "right " * 4)) as server:
        policy = rollout(server.model(), lambda: Corridor(log), max_steps=3)
        graph = create_icrl(policy, episode_return, rounds=6).compile()
        given: Any = {"task": "Find it. " * 40, "task_data": {"length": 9}}
        out = graph.invoke(given) if way == "invoke" else asyncio.run(graph.ainvoke(given))
    assert out["rounds_done"] == 6
    assert {action.split()[0] for action in log} == {"reset", "right"}
    assert server.calls > 18


def test_a_limit_of_its_own_shortens_no_history() -> None:
    with Server(lambda body: completion("no", "length", read=tokens(body), written=1)) as server:
        result = improve("Say it.", lambda: 0.5, model=server.model(), rounds=6)
    assert server.calls == 6
    assert [each["plan"]["left_out"] for each in result.episodes] == [0] * 6
    assert all(each["cut"] for each in result.episodes)


def test_a_limit_that_is_met_for_the_first_time_costs_one_call() -> None:
    replies = iter([("ok", "stop", 1)] * 4 + [("no no", "length", 2)] * 9)

    def reply(body: Any) -> bytes:
        said, finish, written = next(replies)
        return completion(said, finish, read=tokens(body), written=written)

    with Server(reply) as server:
        result = improve("Say it.", lambda: 0.5, model=server.model(), rounds=8)
    assert server.calls == 9
    assert [each.get("cut", False) for each in result.episodes] == [False] * 4 + [True] * 4


# ------------------------------------------------------------------------------------------------- a lost front


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", LOOPS)
def test_a_server_that_cuts_the_front_off_is_told_once_with_the_numbers_and_the_remedy(
    topology: str, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    said = "Some words. " * 250
    with Server(lambda body: completion(said, read=min(tokens(body), 2050), written=750)) as server:
        options = {"topology": topology, **LOOPS[topology], "rounds": 10, "memory": "all"}
        result = run(way, "Say it.", lambda: 0.5, model=server.model(), **options)
    told = [record for record in caplog.records if "cut off the front" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    (warning,) = warnings_of(result.episodes)
    assert sum("warning" in each for each in result.episodes) == 1
    for words in ("2,050 tokens", "num_ctx", "OLLAMA_CONTEXT_LENGTH", "memory='tokens:N'"):
        assert words in warning
    assert "warning: the server reports 2,050 tokens" in repr(result)
    at = next(at for at, each in enumerate(result.episodes) if "warning" in each)
    assert 2050 < tokens(json.loads(server.requests[at if topology == "icrl" else 2 * at])) < 8200


def test_a_task_that_is_cut_from_the_start_is_told_in_the_second_round() -> None:
    with Server(lambda body: completion("ok", read=min(tokens(body), 2050), written=1)) as server:
        result = improve("Some words. " * 4000, lambda: 0.5, model=server.model(), rounds=3)
    assert ["warning" in each for each in result.episodes] == [False, True, False]


WORDS, HAN = "Some words. " * 250, "一些话。" * 800
HONEST: dict[str, Any] = {
    "all is read": lambda body, before: (WORDS, tokens(body), 750),
    "only what was not cached is reported": lambda body, before: (WORDS, tokens(body) - before, 750),
    "the same, and an answer is cached once it is written": lambda body, before: (WORDS, 60, 750),
    "a template of its own": lambda body, before: ("ok", 3000 + tokens(body), 1),
    "short prompts": lambda body, before: ("ok", tokens(body), 1),
    "no usage": lambda body, before: (WORDS, 0, 0),
    "always the same number": lambda body, before: (WORDS, 1, 1),
    "blank lines in few tokens": lambda body, before: ("\n" * 4000, 60 + tokens(body) // 20, 200),
    "long reasoning": lambda body, before: (f"<think>{WORDS * 4}</think>ok", tokens(body), 3000),
    "a coarse tokenizer": lambda body, before: (WORDS, tokens(body) // 2, 375),
    "a fine tokenizer": lambda body, before: (HAN, tokens(body) * 8, 6400),
}


@pytest.mark.parametrize("report", HONEST.values(), ids=HONEST)
def test_there_is_no_false_alarm(report: Any) -> None:
    sent = [0]

    def reply(body: Any) -> bytes:
        said, read, written = report(body, sent[-1])
        sent.append(tokens(body))
        return completion(said, read=read, written=written)

    with Server(reply) as server:
        result = improve("Say it.", lambda: 0.5, model=server.model(), rounds=10)
    assert warnings_of(result.episodes) == []


def test_a_memory_that_shows_other_attempts_gives_no_false_alarm() -> None:
    """Ten thousand tokens of Chinese, then two thousand of English, in more characters."""
    replies = iter([(HAN, 6400)] * 2 + [(WORDS * 2, 1500)] * 6)

    def read(body: Any) -> int:
        texts = [message["content"] for message in body["messages"]]
        return sum(len(text) * 2 if "一" in text else len(text) // 4 for text in texts)

    def reply(body: Any) -> bytes:
        said, written = next(replies)
        return completion(said, read=read(body), written=written)

    with Server(reply) as server:
        result = improve("Say it.", lambda: 0.5, model=server.model(), rounds=8, memory="last:2")
    assert warnings_of(result.episodes) == []
