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


def _ended(how: bytes) -> bytes:
    return answer(COMPLETION.replace(b'"stop"', how))


BROKEN = _ended(b'"error"')
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
    "a stream that was not asked for": (
        answer(b"data: {}").replace(b"application/json", EVENTS),
        f"{NO_ANSWER}: data: {{}}; streaming=True asks for a stream",
    ),
    "429 within a 200": (answer(b'{"error": {"code": 429, "message": "slow down"}}'), "Error code: 429 - slow down"),
    "503 as a text": (answer(b'{"error": {"code": "503", "message": "busy"}}'), "Error code: 503 - busy"),
    "an error without a code": (answer(b'{"error": {"message": "overloaded"}}'), "Error code: 502 - overloaded"),
    "an error that is a text": (answer(b'{"error": "overloaded"}'), "Error code: 502 - overloaded"),
    "a text of a gateway": (answer(b"no healthy upstream\n", status=503), "Error code: 503 - no healthy upstream"),
    "a failed page": (
        answer(b"<html><head><title>502 Bad Gateway</title></head></html>", status=502),
        "Error code: 502 - 502 Bad Gateway",
    ),
    "a type for a code": (answer(b'{"error": {"type": "RateLimitError", "message": "slow"}}'), "429 - slow"),
    "a provider that broke off": (BROKEN, "502 - the provider broke its answer off"),
    "a broken network": (_ended(b'"network_error"'), "502 - the provider broke its answer off"),
    "a provider that broke off, in capitals": (_ended(b'"ERROR"'), "502 - the provider broke its answer off"),
    "a router's provider that broke off": (
        _ended(b'"stop", "native_finish_reason": "network_error"'),
        "502 - the provider broke its answer off",
    ),
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
    "a message within a 200": (answer(b'{"object": "error", "message": "no", "code": 400}'), "400 - no"),
    "a list": (answer(b'[{"error": {"code": 400, "message": "no such field"}}]'), "400 - no such field"),
    "a type for a code": (answer(b'{"error": {"type": "invalid_request_error", "message": "no"}}'), "400 - no"),
    "behind a router": (
        answer(b'{"error": {"message": "failed", "metadata": {"raw": "{\\"detail\\": \\"too cold\\"}"}}}', status=400),
        "400 - failed: too cold",
    ),
    "a prompt that moderation has flagged": (
        answer(b'{"error": {"code": 403, "message": "Your input was flagged for violence."}}', status=403),
        "403 - Your input was flagged",
    ),
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
NO_CHOICES: list[Any] = [None, 5, "abc", [], [None], ["a"], [{}], {}, {"message": {}}]
NO_CHOICES += [[{"text": "42", "finish_reason": "stop"}], [{"message": None, "finish_reason": None}]]
NO_MESSAGE: list[Any] = [5, "abc", [], [None]]
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
CALL = {"name": "search", "arguments": {"for": "42"}}
LEGAL = {
    "role null": _with(None, *MESSAGE, "role"),
    "another role": _with("model", *MESSAGE, "role"),
    "no role": _with({"content": "42"}, *MESSAGE),
    "a list of parts": _with([{"type": "text", "text": "42"}], *MESSAGE, "content"),
    "no id": _with(None, "id"),
    "a mark of the order of bytes": b"\xef\xbb\xbf" + COMPLETION,
    "arguments as an object": _with([{"id": "1", "function": CALL}], *MESSAGE, "tool_calls"),
    "usage that is a text": _with("abc", "usage"),
    "usage of texts": _with({"prompt_tokens": "1", "completion_tokens": "1"}, "usage"),
}
PIECES = [
    *(b"null", b"5", b'"text"', b"[]", b"half {", b"[" * 100_000, b'{"choices": "abc"}', b'{"choices": [null]}'),
    *(b'{"choices": [{"delta": 5}]}', b'{"choices": [{"delta": {"content": 5}}]}'),
    *(b'{"choices": [{"text": "42"}]}', b'{"choices": [{"message": {"content": "42"}}]}'),
    *(b'{"choices": [{"delta": {"content": {}}}]}', b'{"choices": [{"delta": {"tool_calls": [null]}}]}'),
]


SAID = b'data: {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": %b}]}\n\n'
REST = b'data: {"choices": [{"index": 0, "delta": {"content": "2"}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = SAID % b"null" + REST
FILTERED = b'data: {"id": "", "choices": [{"index": 0, "finish_reason": null, "content_filter_results": {}}]}\n\n'
CALLED = b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": %b}]}}]}\n\n'
STREAMS = {
    "a choice without a delta": SAID % b"null" + FILTERED + REST + FILTERED + DONE,
    "arguments as an object": CALLED % json.dumps(CALL).encode() + WHOLE + DONE,
    "an end that is empty until it is one": SAID % b'""' + REST + DONE,
    "an end that is the word null until it is one": SAID % b'"null"' + REST + DONE,
    "an end in each event": SAID % b'"stop"' + REST + REST.replace(b'"2"', b'""') + DONE,
    "an end, and no mark of one": WHOLE,
    "a mark of the end, and none": WHOLE.replace(b'"stop"', b"null") + DONE,
    "a mark of the end in a line that is not ended": WHOLE.replace(b'"stop"', b"null") + DONE.strip(),
    "no blank behind a colon": (WHOLE + DONE).replace(b"data: ", b"data:"),
    "lines without data": b"retry: 3000\n\ndata:\n\n" + WHOLE.replace(b"data:", b"id: 7\ndata:") + b": ping\n\n" + DONE,
    "a mark of the order of bytes": b"\xef\xbb\xbf" + WHOLE + DONE,
    "an event of another kind": b'event: ping\ndata: {"type": "ping"}\n\n' + WHOLE + DONE,
}
STREAM_FAULTS = {  # what is told, and how often it is asked
    "no end, and no mark of one": (SAID % b"null", BROKE_OFF, 2),
    "an error without its name": (b'data: {"object": "error", "message": "no", "code": 400}\n\n' + DONE, "no", 1),
    "an error without a code": (b'data: {"error": {"message": "no", "type": "BadRequestError"}}\n\n', "no", 1),
    "a detail": (b'data: {"detail": "no more room"}\n\n' + DONE, "no more room", 2),
    "an error that is a text": (SAID % b"null" + b'data: {"error": "no more room"}\n\n', "no more room", 2),
    "an error in a line of its own": (b'error: {"code": 400, "message": "too cold"}\n\n', "too cold", 1),
    "an error that is no event": (b'{"error": {"code": 400, "message": "too cold"}}', "too cold", 1),
    "a text": (b"who are you?", "what SERVER sent is no stream: who are you?", 2),
    "a broken network": (SAID % b'"network_error"' + DONE, "the provider broke its answer off: '4'", 2),
    "an end that turns out to be none": (
        SAID % b'"stop"' + REST.replace(b"stop", b"error") + DONE,
        "the provider broke its answer off: '42'",
        2,
    ),
    "a router's provider that broke off": (
        SAID % b'null, "native_finish_reason": "error"' + DONE,
        "the provider broke its answer off: '4'",
        2,
    ),
}


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", STREAMS)
def test_a_stream_is_read_as_real_servers_send_it(what: str, way: Any) -> None:
    with RawServer(_events(STREAMS[what])) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
        result = _played(way, model=model, rounds=1)
        assert (result.rewards, server.calls) == ([1.0], 1)
        assert result.episodes[0].get("finish_reason", "stop") == "stop"


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_has_ended_is_whole_though_its_connection_has_not(way: Any) -> None:
    with RawServer(_events(WHOLE + DONE).removesuffix(DONE)) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
        assert _played(way, model=model, rounds=1).rewards == [1.0]
        assert server.calls == 1


@pytest.mark.parametrize("kind", [b"Content-Type: text/plain\r\n", b""])
def test_a_stream_may_be_called_a_text_or_nothing(kind: bytes) -> None:
    with RawServer(answer(WHOLE + DONE).replace(b"Content-Type: application/json\r\n", kind)) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
        assert _played(improve, model=model, rounds=1).rewards == [1.0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_a_stream_that_fails_is_told_and_repeated_where_that_may_help(fault: str, way: Any) -> None:
    body, words, calls = STREAM_FAULTS[fault]
    with RawServer(_events(body)) as server:
        error = _error(way, f"http://{server.address}/v1", streaming=True)
        assert error.endswith(words.replace("SERVER", f"http://{server.address}"))
        assert server.calls == calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("message", ["", '"message": null, '])
def test_a_choice_without_a_message_that_has_ended_is_an_answer_without_text(message: str, stream: bool) -> None:
    choice = '{"choices": [{"index": 0, %s"finish_reason": "length"}], "usage": {"completion_tokens": 9}}'
    told = (choice % ("" if stream else message)).encode()
    with RawServer(_events(b"data: %b\n\n" % told) if stream else answer(told)) as server:
        error = _error(improve, f"http://{server.address}/v1", streaming=stream)
        assert "its 9 tokens hold no text" in error
        assert server.calls == 1


def test_why_a_stream_ended_and_of_which_model_it_was_counts_once() -> None:
    last = b'data: {"model": "large", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n'
    with RawServer(_events(SAID % b"null" + last * 3 + DONE)) as server:
        model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=True)
        prices: Any = {"large": {"input": 1.0, "output": 1.0}}
        result = _played(improve, model=model, rounds=1, prices=prices)
    assert (result.episodes[0]["finish_reason"], result.episodes[0]["cut"]) == ("length", True)
    assert result.usage["usd"] > 0


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
@pytest.mark.parametrize("stream", [False, True])
def test_an_address_at_which_no_chat_is_ends_the_run(stream: bool, way: Any) -> None:
    lm_studio = answer(b'{"error": "Unexpected endpoint or method. (POST /chat/completions)"}')
    moved = b"HTTP/1.1 301 Moved\r\nConnection: close\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    with RawServer(lm_studio) as server, pytest.raises(ModelError, match="404 - Unexpected endpoint or method"):
        _error(way, f"http://{server.address}", streaming=stream)
    sends = iter([moved, answer(b"no", status=405)])
    with RawServer(lambda request: [next(sends)]) as server:
        there = f"http://{server.address}"
        with pytest.raises(ModelError, match=f"{there}/v1/chat/completions has moved, to {there}/other"):
            _error(way, f"{there}/v1", streaming=stream)


@pytest.mark.parametrize("way", WAYS)
def test_certificates_that_are_not_there_are_named(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    assert "SSL_CERT_FILE='/no/such.pem'" in _error(way, "http://127.0.0.1:1/v1")


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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("way", WAYS)
def test_a_proxy_is_not_asked_for_a_server_of_this_machine(
    way: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answer(COMPLETION)) as server:
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        port = server.address.rpartition(":")[2]
        model = chat_model("openai:any", base_url=f"http://{host}:{port}/v1")
        assert _played(way, model=model, rounds=1).rewards == [1.0]


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
