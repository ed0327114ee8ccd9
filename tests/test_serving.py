"""The endpoint in OpenAI's protocol, driven by its official client; what is paid is counted by the server behind it."""

import asyncio
import json
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from icrl_graph import chat_model, create_best_of_n, create_icrl
from icrl_graph.integrations.serving import Endpoint
from icrl_graph.testing import OpenAIServer
from tests.command_line import icrl, started

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKEN = "s3cret"


def letters(response: str) -> float:
    """The share of the alphabet in an answer."""
    return len(set(response)) / 26


class Held:
    """Answers of one letter, two, three ...; one of them is held back until it is released."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.in_flight, self.release, self._calls = at, threading.Event(), threading.Event(), count(1)

    async def __call__(self, messages: Any) -> str:
        call = next(self._calls)
        if call == self.at:
            self.in_flight.set()
            assert await asyncio.to_thread(self.release.wait, 60)
        return LETTERS[: (call - 1) % 26 + 1]


def graph(server: OpenAIServer, **options: Any) -> Any:
    return create_icrl(chat_model("openai:any", base_url=server.base_url), letters, **{"rounds": 4, **options})


_clients: list[openai.AsyncOpenAI] = []


def client(url: str, **options: Any) -> openai.AsyncOpenAI:
    """A client that `run` closes."""
    _clients.append(openai.AsyncOpenAI(base_url=url, **{"api_key": TOKEN, "max_retries": 0, **options}))
    return _clients[-1]


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        try:
            return await work
        finally:
            while _clients:
                await _clients.pop().close()

    return asyncio.run(main())


def ask(asking: openai.AsyncOpenAI, text: str = "Letters.", **more: Any) -> Any:
    return asking.chat.completions.create(**{"model": "it", "messages": [{"role": "user", "content": text}], **more})


def keyed(key: str) -> dict[str, Any]:
    return {"extra_headers": {"Idempotency-Key": key}}


def serve(graphs: Mapping[str, Any], act: Callable[[str, Endpoint], Awaitable[Any]], **options: Any) -> Any:
    """Serve while something is done to the server; gives what that gives."""

    async def main() -> Any:
        endpoint = Endpoint(graphs, **options)
        async with endpoint.serving() as url:
            return await act(url, endpoint)

    return run(main())


def test_a_request_is_a_run_whose_answer_is_the_best_and_whose_usage_is_the_servers() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        assert [model.id async for model in client(url).models.list()] == ["it"]
        return await ask(client(url))

    answers = iter(["abc", "abcdef", "ab", "a"])
    with OpenAIServer(lambda: next(answers)) as server:
        reply = serve({"it": graph(server)}, act)
        assert server.counts["calls"] == 4
        reported = {
            name: sum(each[name] for each in server.reported) for name in ("prompt_tokens", "completion_tokens")
        }
    assert reply.choices[0].message.content == "abcdef"
    assert reported == {name: getattr(reply.usage, name) for name in reported}
    told = reply.model_extra["icrl"]
    assert (told["stopped"], told["rounds_done"], told["rewarded_by"], told["regret"]) == ("rounds", 4, "oracle", 0.0)
    assert told["reward"] == letters("abcdef")
    assert told["usage"]["calls"] == 4


def test_langchains_client_is_answered_too() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await ChatOpenAI(model="it", base_url=url, api_key=SecretStr(TOKEN), max_retries=0).ainvoke("Letters.")

    with OpenAIServer(Held()) as server:
        assert serve({"it": graph(server)}, act).content == "abcd"


def test_a_stream_tells_each_round_then_the_answer_in_pieces_then_the_usage() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        stream = await ask(client(url), stream=True, stream_options={"include_usage": True})
        return [chunk async for chunk in stream]

    long = LETTERS * 10
    with OpenAIServer(lambda: long) as server:
        chunks = serve({"it": graph(server, rounds=2)}, act, heartbeat=0.001)
        tokens = sum(each["total_tokens"] for each in server.reported)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    thoughts = [each.model_extra["reasoning_content"] for each in deltas if "reasoning_content" in each.model_extra]
    assert thoughts == ["round 1: reward 1, best 1\n", "round 2: reward 1, best 1\n"]
    pieces = [each.content for each in deltas if each.content]
    assert "".join(pieces) == long
    assert len(pieces) > 2
    assert chunks[-2].model_extra["icrl"]["reward"] == 1
    assert chunks[-1].usage.total_tokens == tokens


def test_a_stream_in_which_nothing_happens_shows_that_it_lives() -> None:
    held = Held(at=1)

    async def act(url: str, endpoint: Endpoint) -> str:
        body = {"model": "it", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with httpx2.AsyncClient() as web, web.stream("POST", f"{url}/chat/completions", json=body) as response:
            lines = []
            async for line in response.aiter_lines():
                lines.append(line)
                if line.startswith(":"):
                    held.release.set()
        return "\n".join(lines)

    with OpenAIServer(held) as server:
        text = serve({"it": graph(server, rounds=1)}, act, heartbeat=0.01)
    assert ": still running" in text
    assert text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    ("own", "limits", "wished", "calls"),
    [
        ({}, {}, {"max_calls": 2}, 2),
        ({}, {}, {"rounds": 99}, 4),
        ({"max_calls": 3}, {}, {"max_calls": 99}, 3),
        ({"max_calls": 3}, {"max_calls": 1}, {}, 1),
        ({}, {"max_calls": 2}, {"max_calls": 3, "rounds": 1}, 1),
    ],
)
def test_of_the_limits_of_client_owner_and_graph_the_lowest_holds(
    own: Any, limits: Any, wished: Any, calls: int
) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await ask(client(url), extra_body={"icrl": wished})

    with OpenAIServer(Held()) as server:
        serve({"it": graph(server, **own)}, act, limits=limits)
        assert server.counts["calls"] == calls


REFUSED: Mapping[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": ({"model": "nope"}, 404, "no model 'nope'; choose one of it"),
    "unknown setting": (
        {"extra_body": {"icrl": {"roundz": 3}}},
        400,
        "unknown setting 'roundz'; choose among max_calls",
    ),
    "number out of range": ({"extra_body": {"icrl": {"max_calls": 0}}}, 400, "max_calls"),
    "settings that are none": ({"extra_body": {"icrl": [3]}}, 400, "icrl is an object"),
    "code by path": ({"extra_body": {"icrl": {"memory": "os.path:join"}}}, 400, "imports no code"),
    "a model of the client's": (
        {"extra_body": {"icrl": {"model": "openai:o9"}}},
        400,
        "the setting model is not for clients",
    ),
    "a setting called self": ({"extra_body": {"icrl": {"self": 1}}}, 400, "unknown setting 'self'"),
    "a target out of bounds": ({"extra_body": {"icrl": {"target": "high"}}}, 400, "target"),
    "no messages": ({"messages": []}, 400, "the task must be a text or a list of messages"),
    "the assistant last": ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "must not be the assistant's"),
    "task data": ({"extra_body": {"task_data": 3}}, 400, "task_data is an object"),
    "several answers": ({"n": 2}, 400, "n is not honoured here"),
    "sampling": ({"temperature": 0.2}, 400, "temperature is not honoured here"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools is not honoured here"),
    "stop words": ({"stop": ["x"]}, 400, "stop is not honoured here"),
    "a form": ({"response_format": {"type": "json_object"}}, 400, "response_format is not honoured here"),
    "the length": ({"max_completion_tokens": 9}, 400, "max_completion_tokens is not honoured here"),
    "what nobody knows": ({"extra_body": {"roundz": 9}}, 400, "roundz is not honoured here"),
    "of a stream": ({"stream": True, "stream_options": {"include_obfuscation": True}}, 400, "include_obfuscation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_or_not_honoured_is_refused_before_anything_is_paid(case: str) -> None:
    asked, status, words = REFUSED[case]

    async def act(url: str, endpoint: Endpoint) -> None:
        with pytest.raises(openai.APIStatusError, match=words.replace("[", r"\[")) as refused:
            await ask(client(url), **asked)
        assert refused.value.status_code == status
        assert refused.value.type == "invalid_request_error"

    with OpenAIServer(Held()) as server:
        serve({"it": graph(server)}, act)
        assert server.counts["calls"] == 0


def test_fields_that_say_no_more_than_their_defaults_and_labels_are_taken() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        said: Any = {"n": 1, "temperature": 1, "top_p": 1.0, "tools": [], "response_format": {"type": "text"}}
        return await ask(client(url), **said, user="someone", metadata={"a": "b"}, seed=7)

    with OpenAIServer(Held()) as server:
        assert serve({"it": graph(server)}, act).choices[0].message.content == "abcd"


def post(url: str, content: bytes, **headers: Any) -> Any:
    async def sent() -> Any:
        async with httpx2.AsyncClient() as web:
            given: Any = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}", **headers}
            return await web.post(f"{url}/chat/completions", content=content, headers=given)

    return sent()


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"{", {}, 400, "the request is no JSON"),
        (b"\xff", {}, 400, "the request is no JSON"),
        (b"[" * 200_000, {}, 400, "the request is no JSON"),
        (b"[]", {}, 400, "a request is an object with a list of messages"),
        (b'{"messages": "x"}', {}, 400, "a request is an object with a list of messages"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "Content-Type: application/json"),
        (b" " * 300_000, {}, 413, "Request Entity Too Large"),
        (b"{}", {"Authorization": "Bearer wrong"}, 401, "wrong or missing token"),
        (b"{}", {"Authorization": b"Bearer \xff"}, 401, "wrong or missing token"),
    ],
)
def test_what_is_no_request_is_refused_in_openais_form(content: bytes, headers: Any, status: int, words: str) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await post(url, content, **headers)

    response = serve({"it": create_icrl(lambda: "", letters)}, act, token=TOKEN, max_body=250_000)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]


def test_without_a_token_no_other_machine_and_no_page_of_another_name_is_answered() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        with pytest.raises(ValueError, match=r"at 0\.0\.0\.0 other machines could make paid calls: give a token"):
            async with endpoint.serving("0.0.0.0"):
                pass
        return await post(url, b"{}", Host="rebound.example")

    assert serve({"it": create_icrl(lambda: "", letters)}, act).status_code == 403


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_repeats_by_itself_pays_once(is_stream: bool) -> None:
    """Its time limit ends within the run; the answer that it waits for comes once the server has seen it go."""
    held, statuses = Held(at=3), list[int]()

    def told(record: Mapping[str, Any]) -> None:
        statuses.append(record["status"])
        held.release.set()

    async def act(url: str, endpoint: Endpoint) -> Any:
        if not is_stream:
            return await ask(client(url, timeout=0.5, max_retries=2))
        first = await ask(client(url), stream=True)
        await asyncio.to_thread(held.in_flight.wait, 60)
        await first.close()
        return await ask(client(url), stream=False)

    with OpenAIServer(held) as server:
        reply = serve({"it": graph(server)}, act, on_request=told, heartbeat=0.01)
        assert server.counts["calls"] == 4
    assert statuses[0] == 499
    assert statuses[-1] == 200
    assert reply.model_extra["icrl"]["usage"]["calls"] == 4
    assert reply.choices[0].message.content == "abcd"


@pytest.mark.parametrize(("comes_back", "calls"), [(False, 2), (True, 4)])
def test_who_goes_pays_for_nothing_but_the_calls_in_flight_and_may_come_back(comes_back: bool, calls: int) -> None:
    held, gone = Held(at=2), threading.Event()

    async def act(url: str, endpoint: Endpoint) -> Any:
        asking = asyncio.create_task(ask(client(url)))
        await asyncio.to_thread(held.in_flight.wait, 60)
        asking.cancel()
        await asyncio.to_thread(gone.wait, 60)
        held.release.set()
        if comes_back:
            return (await ask(client(url))).choices[0].message.content
        return await endpoint.drain()  # returns once nothing is played

    with OpenAIServer(held) as server:
        answer = serve({"it": graph(server)}, act, on_request=lambda record: gone.set())
        assert server.counts["calls"] == calls
    assert answer == ("abcd" if comes_back else None)


def test_equal_requests_that_are_meant_are_runs_of_their_own_at_once_or_one_after_another() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        both = await asyncio.gather(ask(client(url)), ask(client(url)))
        return [*both, await ask(client(url))]

    with OpenAIServer(Held()) as server:
        replies = serve({"it": graph(server)}, act)
        assert server.counts["calls"] == 12
    assert len({reply.id for reply in replies}) == 3


def test_what_openais_client_calls_a_repeat_is_given_again_although_it_was_delivered() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        first = await ask(client(url))
        again = await ask(client(url), extra_headers={"x-stainless-retry-count": "1"})
        return first, again

    with OpenAIServer(Held()) as server:
        first, again = serve({"it": graph(server)}, act)
        assert server.counts["calls"] == 4
    assert first == again


def test_a_key_stands_for_one_run_for_good_and_for_no_other_request() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        replies = await asyncio.gather(*(ask(client(url), **keyed("k")) for _ in range(3)))
        replies.append(await ask(client(url), **keyed("k")))
        with pytest.raises(openai.UnprocessableEntityError, match="given with another request"):
            await ask(client(url), "Others.", **keyed("k"))
        return replies

    with OpenAIServer(Held()) as server:
        replies = serve({"it": graph(server)}, act)
        assert server.counts["calls"] == 4
    assert all(reply == replies[0] for reply in replies)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_run_that_is_saved_goes_on_at_the_next_server(kind: str, tmp_path: Path, postgres: str) -> None:
    path, held = postgres or tmp_path / "runs.sqlite", Held(at=3)

    async def first(url: str, endpoint: Endpoint) -> None:
        asking = asyncio.create_task(ask(client(url), **keyed("k")))
        await asyncio.to_thread(held.in_flight.wait, 60)
        draining = asyncio.create_task(endpoint.drain())
        await asyncio.sleep(0)
        held.release.set()
        await draining
        with pytest.raises(openai.InternalServerError, match="the server stops") as told:
            await asking
        assert told.value.response.headers["Retry-After"]
        with pytest.raises(openai.InternalServerError, match="the server stops"):
            await ask(client(url), "Others.")

    async def second(url: str, endpoint: Endpoint) -> Any:
        return [await ask(client(url), **keyed("k")), await ask(client(url), **keyed("k"))]

    with OpenAIServer(held) as server:
        serve({"it": graph(server)}, first, path=path)
        assert server.counts["calls"] == 3
        once, again = serve({"it": graph(server)}, second, path=path)
        (third,) = {reply.id for reply in serve({"it": graph(server)}, second, path=path)}
        assert server.counts["calls"] == 4
    assert once == again
    assert third == once.id
    assert once.choices[0].message.content == "abcd"


def test_of_a_run_without_a_key_that_was_delivered_nothing_stays_in_the_file(tmp_path: Path) -> None:
    def threads() -> int:
        with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as database:
            return int(database.execute("SELECT count(DISTINCT thread_id) FROM checkpoints").fetchone()[0])

    async def act(url: str, endpoint: Endpoint) -> None:
        await ask(client(url), **keyed("k"))
        await ask(client(url))
        async with asyncio.timeout(60):
            while threads() > 1:
                await asyncio.sleep(0.01)

    with OpenAIServer(Held()) as server:
        serve({"it": graph(server)}, act, path=tmp_path / "runs.sqlite", grace=0.1)
    assert threads() == 1


def test_more_runs_than_there_is_room_for_are_told_when_to_come_again() -> None:
    held = Held(at=1)

    async def act(url: str, endpoint: Endpoint) -> Any:
        first = asyncio.create_task(ask(client(url)))
        await asyncio.to_thread(held.in_flight.wait, 60)
        with pytest.raises(openai.RateLimitError, match="1 runs are being played") as full:
            await ask(client(url), "Others.")
        assert int(full.value.response.headers["Retry-After"]) > 0
        held.release.set()
        await first
        return await ask(client(url), "Others.")

    with OpenAIServer(held) as server:
        assert serve({"it": graph(server)}, act, max_runs=1).choices


def test_the_repeat_of_a_request_that_was_turned_away_is_a_run_of_its_own() -> None:
    held = Held(at=1)
    repeat: dict[str, Any] = {"extra_headers": {"x-stainless-retry-count": "1"}}

    async def act(url: str, endpoint: Endpoint) -> Any:
        first = asyncio.create_task(ask(client(url)))
        await asyncio.to_thread(held.in_flight.wait, 60)
        with pytest.raises(openai.RateLimitError):
            await ask(client(url))
        held.release.set()
        return await first, await ask(client(url), **repeat), await ask(client(url), **repeat)

    with OpenAIServer(held) as server:
        first, second, again = serve({"it": graph(server)}, act, max_runs=1)
        assert server.counts["calls"] == 8
    assert first.id != second.id == again.id


def test_a_limit_that_can_not_hold_is_told_before_anything_is_served() -> None:
    with OpenAIServer(Held()) as server, pytest.raises(ValueError, match="any"):
        Endpoint({"it": graph(server)}, limits={"max_usd": 1.0})
    with pytest.raises(ValueError, match="unknown setting 'max_roundz'"):
        Endpoint({"it": create_icrl(lambda: "", letters)}, limits={"max_roundz": 1})


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_model_that_can_not_answer_is_a_502_and_its_run_goes_on_once_it_can(is_stream: bool) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        async def whole() -> None:
            async for _ in await ask(client(url), stream=is_stream):
                pass

        with pytest.raises(openai.APIError, match="401") as told:
            await whole()
        assert is_stream or told.value.status_code == 502  # type: ignore[attr-defined]
        return await ask(client(url))

    with OpenAIServer(Held(), faults={3: "401"}) as server:
        assert serve({"it": graph(server)}, act).choices[0].message.content == "abcd"
        assert server.counts["calls"] == 5


def test_a_run_without_any_answer_is_a_502_and_no_apology() -> None:
    async def act(url: str, endpoint: Endpoint) -> None:
        with pytest.raises(openai.InternalServerError, match="the model answered no attempt: RuntimeError") as told:
            await ask(client(url))
        assert told.value.status_code == 502

    def fail() -> str:
        raise RuntimeError("out of order")

    serve({"it": create_icrl(fail, letters, max_failures=1)}, act)


def broken_then(answers: Callable[[], Any], down: int) -> Any:
    """A function that raises for so many calls."""
    calls = count(1)

    def call(*given: Any, **named: Any) -> Any:
        if next(calls) <= down:
            raise RuntimeError("out of order, with the secret")
        return answers()

    return call


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("key", [{}, keyed("k")], ids=["without a key", "with a key"])
@pytest.mark.parametrize(("max_failures", "downs"), [(3, [3, 3]), (9, [8])])
def test_an_outage_is_never_a_result_and_what_comes_after_it_has_all_its_calls(
    max_failures: int, downs: list[int], key: Any, is_saved: bool, tmp_path: Path
) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        for _ in downs:
            with pytest.raises(openai.InternalServerError, match="the model answered no attempt: RuntimeError") as told:
                await ask(client(url), **key)
            assert told.value.status_code == 502
        return await ask(client(url), **key)

    model = broken_then(lambda: "abc", sum(downs))
    graph = create_icrl(lambda: model(), letters, rounds=99, max_calls=8, max_failures=max_failures)
    reply = serve({"it": graph}, act, path=tmp_path / "runs.sqlite" if is_saved else None)
    told = reply.model_extra["icrl"]
    assert (reply.choices[0].message.content, told["usage"]["calls"], told["rounds_done"]) == ("abc", 8, 8)


@pytest.mark.parametrize("rounds", [2, 4])
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_evaluator_that_always_fails_is_a_502_that_tells_no_task_data_and_no_result(
    is_stream: bool, rounds: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        async def whole() -> None:
            async for _ in await ask(client(url, max_retries=2), stream=is_stream, **keyed("k")):
                pass

        with pytest.raises(openai.APIError, match="the evaluator failed at every attempt") as told:
            await whole()
        assert "secret" not in str(told.value)
        assert is_stream or told.value.status_code == 502  # type: ignore[attr-defined]
        return await ask(client(url), **keyed("k"))

    score, told = broken_then(lambda: 0.5, min(rounds, 3)), list[Any]()
    graph = create_icrl(lambda: "abc", lambda response: score(), rounds=rounds)
    reply = serve({"it": graph}, act, on_request=told.append)
    why = "the evaluator failed at every attempt: RuntimeError: out of order, with the secret"
    assert why in caplog.text
    assert [each["status"] for each in told] == [502, 200]
    assert told[0]["error"] == why
    assert (reply.model_extra["icrl"]["reward"], reply.model_extra["icrl"]["rounds_done"]) == (0.5, rounds)


def test_an_answer_that_its_evaluator_leaves_unscored_is_given() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await ask(client(url))

    reply = serve({"it": create_icrl(lambda: "abc", lambda response: None, rounds=2)}, act)
    assert (reply.choices[0].message.content, reply.model_extra["icrl"]["reward"]) == ("abc", None)


def test_what_was_delivered_without_a_key_is_not_given_again_by_the_next_server(tmp_path: Path) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return [(await ask(client(url))).choices[0].message.content for _ in range(2)]

    with OpenAIServer(Held()) as server:
        first = serve({"it": graph(server)}, act, path=tmp_path / "runs.sqlite")
        second = serve({"it": graph(server)}, act, path=tmp_path / "runs.sqlite")
        assert server.counts["calls"] == 16
    assert first + second == [LETTERS[:at] for at in (4, 8, 12, 16)]


async def break_off(url: str, endpoint: Endpoint, held: Held, **given: Any) -> None:
    """Ask, and drain the server while a call of the run is in flight."""
    asking = asyncio.create_task(ask(client(url), **given))
    await asyncio.to_thread(held.in_flight.wait, 60)
    draining = asyncio.create_task(endpoint.drain())
    await asyncio.sleep(0)
    held.release.set()
    await draining
    with pytest.raises(openai.InternalServerError, match="the server stops"):
        await asking


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_broken_off_after_an_equal_request_goes_on_at_the_next_server(
    kind: str, tmp_path: Path, postgres: str
) -> None:
    path, held = postgres or tmp_path / "runs.sqlite", Held(at=6)

    async def first(url: str, endpoint: Endpoint) -> None:
        await ask(client(url))
        await break_off(url, endpoint, held)

    async def second(url: str, endpoint: Endpoint) -> Any:
        return await ask(client(url))

    with OpenAIServer(held) as server:
        serve({"it": graph(server)}, first, path=path)
        reply = serve({"it": graph(server)}, second, path=path)
        assert server.counts["calls"] == 8
    assert reply.choices[0].message.content == LETTERS[:8]


@pytest.mark.parametrize("key", [{}, keyed("k")], ids=["without a key", "with a key"])
def test_a_server_of_another_model_does_not_go_on_with_the_run_of_the_first(key: Any, tmp_path: Path) -> None:
    held = Held(at=2)

    async def broken_off(url: str, endpoint: Endpoint) -> None:
        await break_off(url, endpoint, held, **key)

    async def act(url: str, endpoint: Endpoint) -> Any:
        return await ask(client(url), **key)

    with OpenAIServer(held) as server:
        serve({"it": graph(server)}, broken_off, path=tmp_path / "runs.sqlite")
        other = create_icrl(chat_model("openai:other", base_url=server.base_url), letters, rounds=4)
        reply = serve({"it": other}, act, path=tmp_path / "runs.sqlite")
        assert server.counts["calls"] == 2 + 4
    assert reply.model_extra["icrl"]["usage"]["calls"] == 4


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/responses", 404), ("GET", "/chat/completions", 405)])
def test_what_is_not_served_is_told_with_what_is(method: str, path: str, status: int) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        async with httpx2.AsyncClient() as web:
            return await web.request(method, url + path)

    response = serve({"it": create_icrl(lambda: "", letters)}, act)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "invalid_request_error")
    assert error["message"] == f"no {method} /v1{path} here; there is POST /v1/chat/completions, GET /v1/models"


def test_a_compiled_topology_is_served_as_it_was_before_and_nothing_else_is() -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await ask(client(url))

    compiled = create_icrl(lambda: "abc", letters, rounds=2).compile(name="mine")
    assert serve({"it": compiled}, act, limits={"max_calls": 1}).choices[0].message.content == "abc"
    with pytest.raises(ValueError, match="a topology is served, and 'it' is none: got 3"):
        Endpoint({"it": 3})  # type: ignore[dict-item]


def test_fifty_requests_at_once_get_each_their_own_answer_and_usage(tmp_path: Path) -> None:
    async def act(url: str, endpoint: Endpoint) -> Any:
        return await asyncio.gather(*(ask(client(url), f"Say {i}.") for i in range(50)))

    def reply(messages: Any) -> str:
        return str(messages[0]["content"]).split()[1]

    with OpenAIServer(reply, latency=0.02) as server:
        replies = serve({"it": graph(server, rounds=2)}, act, path=tmp_path / "runs.sqlite")
        assert sum(reply.usage.total_tokens for reply in replies) == sum(e["total_tokens"] for e in server.reported)
        assert server.counts["calls"] == 100
    assert [reply.choices[0].message.content for reply in replies] == [f"{i}." for i in range(50)]


def test_no_request_passes_its_caps_by_more_than_the_calls_in_flight(request: pytest.FixtureRequest) -> None:
    rng, paid = random.Random(1), Counter[str]()

    def reply(messages: Any) -> str:
        paid[str(messages[0]["content"]).splitlines()[0]] += 1
        return LETTERS[: rng.randrange(1, 26)]

    def asked(number: int) -> dict[str, Any]:
        sizes = {"rounds": rng.randrange(1, 7), "width": rng.randrange(1, 4)}
        caps = {"max_calls": rng.randrange(1, 12), "max_tokens": rng.randrange(1, 900)}
        named = {name: value for name, value in {**sizes, **caps}.items() if rng.random() < 0.7}
        return {"text": f"Task {number}", "extra_body": {"icrl": named}}

    async def act(url: str, endpoint: Endpoint) -> Any:
        asking, room = client(url), asyncio.Semaphore(20)

        async def one(each: dict[str, Any]) -> Any:
            async with room:
                return await ask(asking, **each)

        return await asyncio.gather(*map(one, requests))

    requests = [asked(number) for number in range(1000 if request.config.getoption("--soak") else 60)]
    with OpenAIServer(reply) as server:
        replies = serve({"it": graph(server, rounds=6, width=3, max_calls=10)}, act)
        spent, tokens = Counter[str](), dict[str, list[int]]()
        for prompt, used in zip(server.prompts, server.reported, strict=True):
            task = str(prompt[0]["content"]).splitlines()[0]
            spent[task] += 1
            tokens.setdefault(task, []).append(used["total_tokens"])
    for each, got in zip(requests, replies, strict=True):
        caps, task = each["extra_body"]["icrl"], each["text"]
        assert paid[task] <= min(10, caps.get("max_calls", 10)), caps
        assert got.model_extra["icrl"]["usage"]["calls"] == paid[task]
        width = min(3, caps.get("width", 3))
        if "max_tokens" in caps:
            assert got.usage.total_tokens - sum(sorted(tokens[task])[-width:]) < caps["max_tokens"], caps
    assert sum(got.usage.total_tokens for got in replies) == sum(each["total_tokens"] for each in server.reported)


MINE = """
import os
from icrl_graph import chat_model, create_icrl

def score(response):
    return len(set(response)) / 26

def say(messages):
    return "hello"

def make():
    return create_icrl(chat_model("openai:any", base_url=os.environ["UPSTREAM"]), score, rounds=4)

def create_mine(model, evaluator, rounds=2, **options):
    return create_icrl(model, evaluator, rounds=rounds, **options)

compiled = create_icrl(say, score, rounds=2).compile()
number = 3
"""


@pytest.fixture
def mine(here: Path) -> Path:
    (here / "mine.py").write_text(MINE, encoding="utf-8")
    return here


@pytest.mark.parametrize("key", [{}, keyed("k")], ids=["without a key", "with a key"])
def test_a_server_that_is_killed_costs_the_call_in_flight_and_no_other(key: Any, mine: Path) -> None:
    held = Held(at=3)
    serving = ("serve", "it=mine.py:make", "--port", "0", "--json", "--path", "runs.sqlite")

    async def told(url: str) -> None:
        asking = asyncio.create_task(ask(client(url), **key))
        await asyncio.to_thread(held.in_flight.wait, 60)
        first.kill()
        with pytest.raises(openai.APIConnectionError):
            await asking
        held.release.set()

    with OpenAIServer(held) as server:
        with started(*serving, cwd=mine, UPSTREAM=server.base_url) as first:
            run(told(json.loads(first.stdout.readline())["base_url"]))
            first.communicate(timeout=60)
        with started(*serving, cwd=mine, UPSTREAM=server.base_url) as second:
            url = json.loads(second.stdout.readline())["base_url"]
            reply = run(ask(client(url), **key))
            second.kill()
            second.communicate(timeout=60)
        assert server.counts["calls"] == 5
    assert reply.model_extra["icrl"]["usage"]["calls"] == 4


def test_sigterm_lets_the_call_in_flight_end_and_the_next_server_goes_on(mine: Path) -> None:
    held = Held(at=2)
    serving = ("serve", "it=mine.py:make", "--port", "0", "--json", "--path", "runs.sqlite")

    async def told(url: str) -> None:
        asking = asyncio.create_task(ask(client(url)))
        await asyncio.to_thread(held.in_flight.wait, 60)
        first.send_signal(signal.SIGTERM)
        assert "SIGTERM again stops at once" in await asyncio.to_thread(first.stderr.readline)
        held.release.set()
        with pytest.raises(openai.InternalServerError, match="the server stops"):
            await asking

    with OpenAIServer(held) as server:
        with started(*serving, cwd=mine, UPSTREAM=server.base_url) as first:
            run(told(json.loads(first.stdout.readline())["base_url"]))
            _, errors = first.communicate(timeout=60)
            assert first.returncode == 143
            assert [json.loads(line)["status"] for line in errors.splitlines()] == [503]
        with started(*serving, cwd=mine, UPSTREAM=server.base_url) as second:
            run(ask(client(json.loads(second.stdout.readline())["base_url"])))
            second.kill()
            _, errors = second.communicate(timeout=60)
        assert server.counts["calls"] == 4
    record = json.loads(errors)
    assert (record["model"], record["status"], record["usage"]["calls"]) == ("it", 200, 4)


def test_topologies_are_given_by_path_by_name_and_by_function_under_names_of_ones_own(mine: Path) -> None:
    made = ("--model", "mine.py:say", "--evaluator", "mine.py:score")
    given = ("mine.py:make", "short=mine.py:create_mine", "best_of_n", "mine.py:compiled", *made, "--max-calls", "3")
    (mine / "token").write_text(f"{TOKEN}\n", encoding="utf-8")

    async def act(url: str) -> Any:
        with pytest.raises(openai.AuthenticationError):
            await ask(client(url, api_key="wrong"))
        names = [model.id async for model in client(url).models.list()]
        return names, [await ask(client(url), model=name) for name in names[1:]]

    started_with = ("serve", *given, "--port", "0", "--token-file", "token")
    with started(*started_with, cwd=mine, UPSTREAM="http://127.0.0.1:9/v1") as server:
        url = server.stdout.readline().split(" at ")[1].split(";")[0]
        names, replies = run(act(url))
        server.kill()
        _, errors = server.communicate(timeout=60)
    assert names == ["make", "short", "best_of_n", "compiled"]
    assert [reply.model_extra["icrl"]["usage"]["calls"] for reply in replies] == [2, 3, 2]
    assert "401  /v1/chat/completions  wrong or missing token" in errors
    assert "200  short  reward 0.153846 (rounds), 2 calls" in errors


def test_a_function_is_served_as_a_model(mine: Path) -> None:
    with started("serve", "mine.py:say", "--port", "0", "--json", cwd=mine) as server:
        url = json.loads(server.stdout.readline())["base_url"]
        reply = run(ask(client(url), model="say"))
        server.kill()
        server.communicate(timeout=60)
    assert reply.choices[0].message.content == "hello"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("mine.py:number",), "'mine.py:number' is neither a topology nor a chat model or a function of messages"),
        (("icrl",), "the topology 'icrl' is made of a model and an evaluator: give --model and --evaluator"),
        (("mine.py:make", "mine.py:say"), "a model is served alone, got make, say, of which say is one"),
        (("mine.py:make", "a=b=mine.py:make"), "can't be loaded"),
        (("mine.py:make", "mine.py:make"), "two are named 'make'; name one by NAME=mine.py:make"),
        (("mine.py:make", "--latency", "1"), "--latency is for a model alone"),
        (("mine.py:say", "--path", "x", "--max-calls", "3"), "--path and --max-calls are for topologies"),
        (("mine.py:make", "--host", "0.0.0.0"), "could make paid calls: give a token (--token-file)"),
        (("mine.py:make", "--path", "."), "got the folder ."),
        (("mine.py:score",), "reply function"),
        (("mine.py:nothing",), "has no 'nothing'"),
    ],
)
def test_what_can_not_be_served_is_told(
    given: tuple[str, ...], words: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM", "http://127.0.0.1:9/v1")
    done = icrl("serve", *given, "--port", "0")
    assert done.returncode == 2
    assert words in done.stderr


def test_an_empty_token_is_none(mine: Path) -> None:
    with pytest.raises(ValueError, match="the token is empty"):
        Endpoint({"it": create_best_of_n(lambda: "", letters)}, token="  ")
