"""Broken connections and answers that are no HTTP: the same words and the same retries under invoke and ainvoke."""

import asyncio
import gzip
import json
from collections.abc import Iterable
from threading import Event
from typing import Any

import pytest
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from pydantic import BaseModel

from icrl_graph import ModelError, RateLimit, aimprove, chat_model, improve
from tests.raw_http import CHUNKED, COMPLETION, RESET, START, RawServer, answer, refusing, trickle

WAYS = [improve, aimprove]
BROKE_OFF, NO_HTTP = "the connection to SERVER broke off", "what SERVER sent is no valid HTTP"
EVENTS = b"text/event-stream"
PAGE = answer(b"<html>Log in</html>").replace(b"application/json", b"text/html")
NO_ANSWER = "what SERVER sent is no chat completion"
BROKEN = answer(COMPLETION.replace(b'"stop"', b'"error"'))
WHY = answer(COMPLETION.replace(b'"stop"', b'"error", "error": {"code": 524, "message": "late"}'))
FAULTS: dict[str, tuple[bytes, str]] = {
    "closed at once": (b"", BROKE_OFF),
    "reset": (RESET, BROKE_OFF),
    "half a header": (b"HTTP/1.1 200 OK\r\nContent-Ty", BROKE_OFF),
    "half a body": (answer(COMPLETION)[:-40], BROKE_OFF),
    "half a chunk": (CHUNKED + b"ff\r\n" + COMPLETION[:50], BROKE_OFF),
    "no HTTP": (b"\x00\x01SSH-2.0\r\n\r\n", NO_HTTP),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\n\r\n", NO_HTTP),
    "a header without a colon": (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NO_HTTP),
    "an endless header": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", NO_HTTP),
    "a length that is no number": (START + b"Content-Length: many\r\n\r\n" + COMPLETION, NO_HTTP),
    "two lengths": (START + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + COMPLETION, NO_HTTP),
    "a chunk without a size": (CHUNKED + b"zz\r\n" + COMPLETION, NO_HTTP),
    "no gzip": (answer(COMPLETION, b"Content-Encoding: gzip"), f"{NO_HTTP}: Error -3 while decompressing data"),
    "half a gzip": (answer(gzip.compress(COMPLETION)[:-30], b"Content-Encoding: gzip"), NO_ANSWER),
    "half a JSON": (answer(COMPLETION[:50]), f'{NO_ANSWER}: {{"id": "chatcmpl-1"'),
    "an empty body": (answer(b""), f"{NO_ANSWER}: nothing"),
    "a page of a proxy": (PAGE, f"{NO_ANSWER}: <html>Log in</html>"),
    "nothing at all": (b"HTTP/1.1 204 No Content\r\n\r\n", NO_ANSWER),
    "a list": (answer(b"[]"), f"{NO_ANSWER}: []"),
    "no choices": (answer(COMPLETION.replace(b"choices", b"options")), NO_ANSWER),
    "null choices": (answer(b'{"choices": null}'), NO_ANSWER),
    "empty choices": (answer(b'{"id": "1", "choices": []}'), f'{NO_ANSWER}: {{"id": "1", "choices": []}}'),
    "null": (answer(b"null"), f"{NO_ANSWER}: null"),
    "a stream that was not asked for": (answer(b"data: {}").replace(b"application/json", EVENTS), f"{NO_ANSWER}: data"),
    "429 within a 200": (answer(b'{"error": {"code": 429, "message": "slow down"}}'), "Error code: 429 - slow down"),
    "503 as a text": (answer(b'{"error": {"code": "503", "message": "busy"}}'), "Error code: 503 - busy"),
    "an error without a code": (answer(b'{"error": {"message": "overloaded"}}'), "Error code: 502 - overloaded"),
    "an error that is a text": (answer(b'{"error": "overloaded"}'), "Error code: 502 - overloaded"),
    "a provider that broke off": (BROKEN, "502 - the provider broke its answer off"),
    "a provider that says why": (WHY, "524 - late"),
}
FINAL: dict[str, tuple[bytes, str]] = {
    "400 within a 200": (answer(b'{"error": {"code": 400, "message": "no such field"}}'), "400 - no such field"),
    "an empty quota": (answer(b'{"error": {"code": "insufficient_quota", "message": "pay"}}'), "pay"),
    "detail": (
        answer(b'{"detail": [{"loc": ["body", "seed"], "msg": "extra field"}]}', status=422),
        "body.seed: extra field",
    ),
    "error as a text": (answer(b'{"error": "no seed here"}', status=400), "400 - no seed here"),
    "a message": (answer(b'{"object": "error", "message": "no seed here"}', status=400), "400 - no seed here"),
}


class Answer(BaseModel):
    number: int


def _with(value: Any, *place: Any) -> bytes:
    """A completion with another value in a place."""
    completion = json.loads(COMPLETION)
    held = completion
    for name in place[:-1]:
        held = held[name]
    held[place[-1]] = value
    return json.dumps(completion).encode()


MESSAGE = ("choices", 0, "message")
BODIES = [
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"[null]",
    b"{}",
    COMPLETION[:-9],
    b"[" * 100_000,
    b"9" * 5000,
    b'{"a":' * 50_000,
]
NO_CHOICES: list[Any] = [None, 5, "abc", [], [None], ["a"], {}, {"message": {}}]
NO_MESSAGE: list[Any] = [None, 5, "abc", [], [None]]
NO_CONTENT: list[Any] = [5, True, {}, {"a": 1}, [None], [5]]
NO_CALLS: list[Any] = [5, "abc", [None], [{}], [{"function": None}]]
GARBAGE = [
    *BODIES,
    *(_with(value, "choices") for value in NO_CHOICES),
    *(_with(value, *MESSAGE) for value in NO_MESSAGE),
    *(_with(value, *MESSAGE, "content") for value in NO_CONTENT),
    *(_with(value, *MESSAGE, "tool_calls") for value in NO_CALLS),
    *(_with([5], name) for name in ("model", "service_tier")),
]
LEGAL = {
    "role null": _with(None, *MESSAGE, "role"),
    "another role": _with("model", *MESSAGE, "role"),
    "no role": _with({"content": "42"}, *MESSAGE),
    "a list of parts": _with([{"type": "text", "text": "42"}], *MESSAGE, "content"),
    "no id": _with(None, "id"),
    "usage that is a text": _with("abc", "usage"),
    "usage of texts": _with({"prompt_tokens": "1", "completion_tokens": "1"}, "usage"),
}
PIECES = [
    *(b"null", b"5", b'"text"', b"[]", b"half {", b"[" * 100_000, b'{"choices": "abc"}', b'{"choices": [null]}'),
    *(b'{"choices": [{}]}', b'{"choices": [{"delta": 5}]}', b'{"choices": [{"delta": {"content": 5}}]}'),
    *(b'{"choices": [{"delta": {"content": {}}}]}', b'{"choices": [{"delta": {"tool_calls": [null]}}]}'),
]


def _error(way: Any, base_url: str, **options: Any) -> str:
    """What the only attempt of a run says went wrong; each call is made twice at most."""
    model = chat_model("openai:any", base_url=base_url, **{"timeout": 20.0, **options})
    rate_limit = RateLimit(max_attempts=2, max_backoff=0.01)
    (episode,) = _played(way, model=model, rounds=1, rate_limit=rate_limit).episodes
    return str(episode["error"])


def _played(way: Any, **options: Any) -> Any:
    played = way("Say 42.", lambda response: float(response == "42"), **options)
    return asyncio.run(played) if asyncio.iscoroutine(played) else played


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_broken_is_repeated_and_told_in_the_same_words(fault: str, way: Any) -> None:
    sends, words = FAULTS[fault]
    with RawServer(sends) as server:
        assert words.replace("SERVER", f"http://{server.address}") in _error(way, f"http://{server.address}/v1")
        assert server.calls == 2


@pytest.mark.parametrize("way", WAYS)
def test_garbage_is_told_with_the_server_and_how_it_begins(way: Any) -> None:
    told, address = _told_of(way, (answer(body, b"Connection: close") for body in GARBAGE))
    begins = [" ".join(body[:500].decode().split()) for body in GARBAGE]
    words = f"OpenAIConnectionError: Connection error: what http://{address} sent is no chat completion: "
    assert told == [f"{words}{begin:.120}" for begin in begins]


@pytest.mark.parametrize("way", WAYS)
def test_garbage_in_a_stream_is_told_alike(way: Any) -> None:
    good = b'data: {"choices": [{"index": 0, "delta": {"content": "4"}}]}\r\n\r\n'
    bodies = [good + b"data:" + piece + b"\n\ndata: [DONE]\n\n" for piece in PIECES]
    told, address = _told_of(way, (_events(body) for body in bodies), True)
    words = f"OpenAIConnectionError: Connection error: what http://{address} sent is no stream: "
    assert told == [f"{words}{piece.decode():.120}" for piece in PIECES]


def _events(body: bytes) -> bytes:
    return answer(body, b"Connection: close").replace(b"application/json", EVENTS)


def _told_of(way: Any, sends: Iterable[bytes], stream: bool = False) -> tuple[list[str], str]:
    """What a run says of these answers, one a round, and the server's address."""
    left = list(sends)
    with RawServer(lambda request: [left.pop(0)]) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=stream)
        number, once = len(left), RateLimit(max_attempts=1)
        result = _played(way, model=model, rounds=number, max_failures=number, rate_limit=once)
        assert result.rewards == [None] * number
        return [each["error"] for each in result.episodes], server.address


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["an empty stream", "a whole answer"])
def test_what_is_no_stream_is_repeated(what: str, way: Any) -> None:
    whole = answer(COMPLETION) if what == "a whole answer" else answer(b"").replace(b"application/json", EVENTS)
    begins = COMPLETION[:40].decode() if what == "a whole answer" else "nothing"
    with RawServer(whole) as server:
        error = _error(way, f"http://{server.address}/v1", streaming=True)
        assert f"what http://{server.address} sent is no stream: {begins}" in error
        assert server.calls == 2


@pytest.mark.parametrize("way", WAYS)
def test_an_event_may_come_in_any_pieces_and_compressed(way: Any) -> None:
    body = (
        b'event: a\rdata: {"choices": null}\r\r: a comment\n\ndata: {\ndata: "choices": [{"delta":\ndata: null}]}\n\n'
    )
    body += b'data: {"choices": [{"index": 0, "delta": {"content": "42"}}]}\n\ndata: [DONE]\n\ndata: no event\n\n'
    head = answer(b"").replace(b"application/json", EVENTS).partition(b"Content-Length")[0]
    compressed = gzip.compress(body)
    whole = [head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed), compressed]
    for sends in (whole, [head + b"\r\n", *(body[at : at + 1] for at in range(len(body)))]):
        with RawServer(lambda request, sends=sends: sends) as server:  # type: ignore[misc]
            model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
            assert _played(way, model=model, rounds=1).rewards == [1.0]


@pytest.mark.parametrize("what", LEGAL)
def test_what_real_servers_send_is_an_answer(what: str) -> None:
    with RawServer(answer(LEGAL[what])) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1")
        result = _played(improve, model=model, rounds=1)
        assert (result.rewards, server.calls) == ([1.0], 1)
        assert result.usage["output"] == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FINAL)
def test_what_is_refused_for_good_is_told_and_not_repeated(fault: str, way: Any) -> None:
    sends, words = FINAL[fault]
    with RawServer(sends) as server:
        assert words in _error(way, f"http://{server.address}/v1")
        assert server.calls == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_key_within_a_200_ends_the_run(way: Any) -> None:
    no_key = answer(b'{"error": {"code": 401, "message": "no key"}}')
    with RawServer(no_key) as server, pytest.raises(ModelError, match="no key"):
        _error(way, f"http://{server.address}/v1")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", ["429 within a 200", "empty choices", "a provider that broke off"])
def test_structured_answers_are_repeated_alike(fault: str, way: Any) -> None:
    sends, words = FAULTS[fault]
    with RawServer(sends) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1")
        limit = RateLimit(max_attempts=2, max_backoff=0.01)
        result = _played(way, model=model, rounds=1, extract=Answer, rate_limit=limit)
        assert words.replace("SERVER", f"http://{server.address}") in result.episodes[0]["error"]
        assert server.calls == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", [b'"error"', b'"stop"'])
def test_a_stream_that_its_provider_broke_off_is_repeated(end: bytes, way: Any) -> None:
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": null}]}\n\n'
    last = b'data: {"choices": [{"index": 0, "delta": {"content": "2"}, "finish_reason": %s}]}\n\n' % end
    body = chunk + last + b"data: [DONE]\n\n"
    with RawServer(answer(body).replace(b"application/json", b"text/event-stream")) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
        limit = RateLimit(max_attempts=2, max_backoff=0.01)
        result = _played(way, model=model, rounds=1, rate_limit=limit)
        assert (result.rewards, server.calls) == (([None], 2) if end == b'"error"' else ([1.0], 1))


@pytest.mark.parametrize("way", WAYS)
def test_a_proxy_of_the_environment_is_used(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answer(COMPLETION)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        model = chat_model("openai:any", base_url="http://no-such-host.invalid/v1")
        assert _played(way, model=model, rounds=1).rewards == [1.0]
        assert proxy.calls == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_is_longer_than_it_says_is_repeated(way: Any) -> None:
    with RawServer(START + b"Content-Length: 20\r\n\r\n" + COMPLETION) as server:
        assert _error(way, f"http://{server.address}/v1")
        assert server.calls == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_cannot_be_reached_is_named_with_the_reason(way: Any, caplog: Any) -> None:
    with refusing() as address:
        refused = f"connection refused by http://{address}"
        assert refused in _error(way, f"http://{address}/v1")
    assert refused in caplog.text  # also where a retry is logged
    assert "unknown host no-such-host.invalid" in _error(way, "http://no-such-host.invalid/v1")
    with RawServer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        address = f"https://{plain.address}"
        assert f"TLS with {address} failed: [SSL: WRONG_VERSION_NUMBER]" in _error(way, f"{address}/v1")


def test_an_address_without_a_protocol_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="must begin with http:// or https://, got 'localhost:8000/v1'"):
        chat_model("openai:any", base_url="localhost:8000/v1")


SIZE = b"%x" % len(COMPLETION)
TRICKLES = {
    "blanks before the body": trickle(CHUNKED, b"1\r\n \r\n", SIZE + b"\r\n" + COMPLETION + b"\r\n0\r\n\r\n"),
    "blanks of a known length": trickle(
        START + b"Content-Length: %d\r\n\r\n" % (300 + len(COMPLETION)), b" ", COMPLETION
    ),
    "headers": trickle(
        b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", b"Content-Length: %d\r\n\r\n" % len(COMPLETION) + COMPLETION
    ),
    "the size of a chunk": trickle(CHUNKED + SIZE + b";a=", b"b", b"\r\n" + COMPLETION + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", TRICKLES)
def test_a_time_limit_is_for_the_whole_call_however_it_trickles(what: str, way: Any) -> None:
    with RawServer(TRICKLES[what]) as server:
        error = _error(way, f"http://{server.address}/v1", timeout=0.5)
        assert f"Request timed out: no whole answer from http://{server.address} within 0.5 s" in error
        assert server.calls == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_trickles_comments_ends_at_the_limit(way: Any) -> None:
    start = CHUNKED.replace(b"application/json", b"text/event-stream")
    with RawServer(trickle(start, b"3\r\n: \n\r\n", b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")) as server:
        error = _error(way, f"http://{server.address}/v1", timeout=0.5, streaming=True)
        assert f"no whole answer from http://{server.address} within 0.5 s" in error


@pytest.mark.parametrize("way", WAYS)
def test_max_seconds_ends_a_call_in_flight(way: Any) -> None:
    with RawServer(TRICKLES["blanks before the body"]) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1")
        result = _played(way, model=model, rounds=5, max_seconds=0.5)
        assert (result.stopped, server.calls, len(result.episodes)) == ("time", 1, 1)
        assert result.episodes[0]["error"] == "TimeoutError: nothing came back before max_seconds was spent"
        assert result.usage["calls"] == 1
        assert result.usage["seconds"] >= 0.5


@pytest.mark.parametrize("way", WAYS)
def test_max_seconds_ends_a_call_of_a_function_that_hangs(way: Any) -> None:
    release = Event()
    result = _played(way, model=lambda: str(release.wait(30)), rounds=5, max_seconds=0.2)
    release.set()
    assert (result.stopped, result.episodes[0].get("response")) == ("time", None)


@pytest.mark.parametrize("way", WAYS)
def test_a_drain_waits_for_a_call_no_longer_than_its_limit(way: Any) -> None:
    control = RunControl()
    with RawServer(TRICKLES["blanks before the body"], lambda: control.request_drain("enough")) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", timeout=0.5)
        with pytest.raises(GraphDrained):
            _played(way, model=model, rounds=5, control=control, rate_limit=RateLimit(max_backoff=0.01))
        assert server.calls == 1


def test_a_call_has_a_limit_by_default() -> None:
    model: Any = chat_model("openai:any", base_url="http://127.0.0.1:1/v1")
    assert model.request_timeout == 600.0
