"""What replies have used is counted once, whoever reports it and where; what nobody reports is estimated, and told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from icrl_graph import RateLimit, chat_model, create_icrl
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution import usage as reading
from icrl_graph.execution.prices import cost
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.chats import USAGE, Answers, ChatServer, refused, says, streamed, whole
from tests.command_line import icrl
from tests.promises.ways import METHODS, WAYS, size

PRICES: Any = {"policy": {"input": 2.0, "output": 8.0}}
TEXT = "word " * 40
SILENT: dict[str, Any] = {
    "no usage": {},
    "null": {"usage": None},
    "empty": {"usage": {}},
    "zeros": {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
    "nulls": {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}},
    "negative": {"usage": {"prompt_tokens": -5, "completion_tokens": -5, "total_tokens": -10}},
    "more than there can be": {"usage": {"prompt_tokens": 10**30, "completion_tokens": 10**12, "total_tokens": 1}},
    "a total alone": {"usage": {"total_tokens": 24}},
}


class Word(BaseModel):
    word: str


def _model(server: ChatServer, **options: Any) -> Any:
    return chat_model("openai:policy", base_url=server.base_url, **options)


def _played(server: ChatServer, way: str = "sync", **options: Any) -> Any:
    given: Any = {"model": _model(server), "rounds": 1, "rate_limit": RateLimit(max_attempts=1), **options}
    return WAYS[way]("Say it.", lambda: 1.0, **given)


def _bytes(text: str) -> int:
    return -(-len(text.encode()) // 4)


def _sizes(server: ChatServer, text: str = TEXT) -> list[dict[str, int]]:
    """What each call has used by the rule of an estimate."""
    return [
        {"input": sum(_bytes(message["content"]) for message in body["messages"]), "output": _bytes(text)}
        for body in server.bodies
    ]


def _amount(cap: str, used: Any) -> float:
    """What a cap counts of a call."""
    tokens: int = used["input"] + used["output"]
    return tokens if cap == "max_tokens" else cost("policy", used, PRICES) or 0.0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("cap", "method"), [*(("max_tokens", method) for method in METHODS), ("max_usd", "icrl")])
def test_caps_hold_by_the_estimate_where_a_server_reports_no_usage(cap: str, method: str, way: str) -> None:
    with ChatServer(says(TEXT)) as server:
        given: Any = {**size(method, 40), "prices": PRICES}
        limit = {"max_tokens": 400, "max_usd": 0.0015}[cap]
        result = WAYS[way](
            "Say it.", lambda: 1.0, model=_model(server), topology=METHODS[method], **{**given, cap: limit}
        )
        used: Any = _sizes(server)
    amounts = [_amount(cap, each) for each in used]
    in_flight = 3 if method == "wide" else 1
    assert result.stopped == {"max_tokens": "tokens", "max_usd": "usd"}[cap]
    assert sum(amounts) < limit + in_flight * max(amounts)
    assert result.usage["calls"] == result.usage["estimated"] == len(used)
    assert result.usage["input"] + result.usage["output"] == sum(each["input"] + each["output"] for each in used)


@pytest.mark.parametrize("silent", SILENT)
def test_usage_that_says_nothing_is_no_usage(silent: str) -> None:
    with ChatServer(says(TEXT, **SILENT[silent])) as server:
        usage = _played(server).usage
        (used,) = _sizes(server)
    assert {**used, "estimated": 1}.items() <= usage.items()


@pytest.mark.parametrize("number", [-3, 10**30, 1e300])
def test_details_that_cannot_be_count_nothing(number: float) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": number}}
    details |= {"completion_tokens_details": {"reasoning_tokens": number}}
    with ChatServer(says(TEXT, usage={**USAGE, **details})) as server:
        usage = _played(server).usage
    assert (usage["input"], usage["cached"], usage["output"], usage["reasoning"]) == (20, 0, 4, 0)


def test_of_usage_that_is_half_reported_the_other_half_is_estimated() -> None:
    with ChatServer(says(TEXT, usage={"prompt_tokens": 20})) as server:
        usage = _played(server).usage
    assert (usage["input"], usage["output"], usage["estimated"]) == (20, 50, 1)


@pytest.mark.parametrize("way", WAYS)
def test_usage_that_is_reported_is_not_estimated(way: str) -> None:
    with ChatServer(says(TEXT, usage=USAGE)) as server:
        usage = _played(server, way, rounds=2).usage
    assert (usage["input"], usage["output"]) == (40, 8)
    assert "estimated" not in usage


@pytest.mark.parametrize("text", ["", "Ich weiß es nicht.", "答案是四十二", "\ud83d"])
def test_an_estimate_is_a_token_for_every_four_bytes(text: str) -> None:
    with ChatServer(says(text)) as server:
        usage = _played(server).usage
        (used,) = _sizes(server, text.encode("utf-8", "replace").decode())
    assert {**used, "estimated": 1}.items() <= usage.items()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["answer", "verdict"])
def test_a_structured_reply_that_can_not_be_read_is_estimated_too(form: str, way: str) -> None:
    with ChatServer(says('{"word": "cut')) as server:
        if form == "answer":
            result = _played(server, way, extract=Word, rounds=9, max_tokens=300)
        else:
            score = llm_judge(_model(server), "Good?")
            result = WAYS[way]("Say it.", score, model=lambda: "word", rounds=9, max_tokens=300)
        calls = len(server.bodies)
    assert result.stopped == "tokens"
    assert result.usage["estimated"] == calls
    assert result.reward is None


def test_of_functions_nothing_is_estimated() -> None:
    for model in (lambda: "word", ScriptedModel(lambda: "word"), lambda: AIMessage("word")):
        result = WAYS["sync"]("Say it.", lambda: 1.0, model=model, rounds=3, max_tokens=1)
        assert result.stopped == "rounds"
        assert not result.usage.keys() & {"input", "estimated"}


# ----------------------------------------------------------------------------------------------------------- streams


async def _aplay(compiled: Any) -> list[Any]:
    return [event async for event in compiled.astream({"task": "Say it."}, stream_mode=["messages", "values"])]


def _streamed(graph: Any, way: str) -> tuple[dict[str, Any], str]:
    """The output of a graph whose tokens are streamed, and the tokens."""
    compiled = graph.compile()
    if way == "async":
        events = asyncio.run(_aplay(compiled))
    else:
        events = list(compiled.stream({"task": "Say it."}, stream_mode=["messages", "values"]))
    tokens = "".join(str(event[0].content) for mode, event in events if mode == "messages")
    return next(event for mode, event in reversed(events) if mode == "values"), tokens


def _counts_at_the_end(body: dict[str, Any]) -> bytes:
    """A server that reports usage where it is asked to."""
    asked = (body.get("stream_options") or {}).get("include_usage")
    return streamed(body, TEXT, last=USAGE if asked else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("silent", [False, True], ids=["usage at the end", "no usage"])
@pytest.mark.parametrize("cap", ["max_tokens", "max_usd"])
def test_caps_hold_where_tokens_are_streamed(cap: str, silent: bool, way: str) -> None:
    with ChatServer(says(TEXT) if silent else _counts_at_the_end) as server:
        limit: Any = {"max_tokens": 120, "max_usd": 0.0006}
        graph = create_icrl(_model(server), lambda: 1.0, rounds=20, prices=PRICES, **{cap: limit[cap]})
        output, tokens = _streamed(graph, way)
        used = _sizes(server) if silent else [{"input": 20, "output": 4}] * len(server.bodies)
    assert all(body["stream"] and body["stream_options"] == {"include_usage": True} for body in server.bodies)
    assert tokens.startswith(TEXT)
    assert output["stopped"] == cap.removeprefix("max_")
    assert output["usage"]["input"] == sum(each["input"] for each in used)
    assert output["usage"]["output"] == sum(each["output"] for each in used)
    assert output["usage"].get("estimated", 0) == (len(used) if silent else 0)
    assert 1 < len(used) < 20 or silent


@pytest.mark.parametrize("way", WAYS)
def test_usage_of_streams_is_not_asked_for_where_that_is_turned_off(way: str) -> None:
    with ChatServer(_counts_at_the_end) as server:
        output, _ = _streamed(create_icrl(_model(server, stream_usage=False), lambda: 1.0, rounds=1), way)
    assert "stream_options" not in server.bodies[0]
    assert output["usage"]["estimated"] == 1


def _used(input: int, output: int) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": input // 2}}
    return {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output, **details}


REPEATED: dict[str, Any] = {
    "growing": {"usages": [_used(20, 1), _used(20, 3), _used(20, 4)]},
    "the same in all": {"usages": [_used(20, 4)] * 3},
    "growing, and at the end": {"usages": [_used(20, 2), _used(20, 4), _used(20, 4)], "last": _used(20, 4)},
    "twice at the end": {"usages": [None, None, _used(20, 4)], "last": _used(20, 4)},
    "first zeros": {"usages": [_used(0, 0), _used(20, 0), _used(20, 4)]},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", REPEATED)
def test_usage_that_a_stream_repeats_is_counted_once(how: str, way: str) -> None:
    with ChatServer(lambda body: streamed(body, TEXT, **REPEATED[how])) as server:
        usage = _streamed(create_icrl(_model(server), lambda: 1.0, rounds=1), way)[0]["usage"]
    assert (usage["input"], usage["cached"], usage["output"]) == (20, 10, 4)
    assert "estimated" not in usage


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("way", WAYS)
def test_what_the_client_could_not_read_was_paid(way: str) -> None:
    """By OpenAI's client, which parses structured output for a Runnable of the user's own, and raises."""
    with ChatServer(says('{"word": "cut', "length", usage=USAGE)) as server:
        hidden = _model(server).with_structured_output(Word, method="json_schema")
        usage = _played(server, way, model=hidden | (lambda word: word.word), max_failures=1).usage
    assert (usage["input"], usage["output"]) == (20, 4)
    assert "estimated" not in usage


@pytest.mark.parametrize("way", WAYS)
def test_what_the_client_could_not_read_is_estimated_without_usage(way: str) -> None:
    with ChatServer(says('{"word": "cut', "length")) as server:
        hidden = _model(server).with_structured_output(Word, method="json_schema")
        usage = _played(server, way, model=hidden | (lambda word: word.word), max_failures=1).usage
        (used,) = _sizes(server, '{"word": "cut')
    assert {**used, "estimated": 1}.items() <= usage.items()


HALF: dict[str, Answers] = {
    "an error with usage": lambda body: refused({"error": {"message": "broke down"}, "usage": USAGE}, status=500),
    "half of an answer": lambda body: whole(body, "half", "error", usage=USAGE),
    "an error within a 200": lambda body: refused({"error": {"code": 502}, "usage": USAGE}, status=200),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("half", HALF)
def test_what_an_error_carries_is_counted_at_each_attempt(half: str, way: str) -> None:
    with ChatServer(HALF[half]) as server:
        limit = RateLimit(max_attempts=3, max_backoff=0.001)
        usage = _played(server, way, rate_limit=limit, max_failures=1).usage
    assert (len(server.bodies), usage["input"], usage["output"]) == (3, 60, 12)


@pytest.mark.parametrize("way", WAYS)
def test_of_a_stream_that_broke_off_what_came_is_estimated(way: str) -> None:
    with ChatServer(lambda body: streamed(body, TEXT, end=False)) as server:
        output, _ = _streamed(
            create_icrl(_model(server), lambda: 1.0, rounds=1, max_failures=1, rate_limit=RateLimit(max_attempts=1)),
            way,
        )
        (used,) = _sizes(server, TEXT[: len(TEXT) // 2])
    assert {**used, "estimated": 1}.items() <= output["usage"].items()


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_call_that_was_refused_has_used_nothing(status: int) -> None:
    with ChatServer(lambda body: refused({"error": {"message": "no"}}, status=status)) as server:
        usage = _played(server, max_failures=1).usage
    assert not usage.keys() & {"input", "estimated"}


# -------------------------------------------------------------------------------------------------------------- told


def test_an_estimate_is_told_once_in_the_log(caplog: Any) -> None:
    reading._tell_estimated.cache_clear()
    with ChatServer(says(TEXT)) as server:
        for _ in range(2):
            _played(server, rounds=3)
    told = [record.message for record in caplog.records if "usage" in record.message]
    assert told == [
        "policy: its server reports no usage, or one that can't be; tokens are estimated, one for every 4 bytes of "
        "text, and caps of tokens and dollars hold by that"
    ]


def test_an_estimate_is_told_wherever_a_cost_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "3 replies without usage, estimated"
    with ChatServer(says(TEXT)) as server:
        result = _played(server, rounds=3)
        assert told in repr(result)
        assert told in result._repr_html_()
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        folder, mine = str(tmp_path / "run"), tmp_path / "mine.py"
        mine.write_text("def score(response):\n    return 1.0\n")
        common = ("--model", "openai:policy", "--evaluator", f"{mine}:score", "--rounds", "3", "--out")
        assert told in icrl("run", "Say it.", *common, folder).stdout
    page = Path(json.loads(icrl("report", folder, "--json").stdout)[0])
    assert "Of 3 replies the server reported no usage" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("way", WAYS)
def test_an_estimate_is_saved_with_its_run(way: str, tmp_path: Path) -> None:
    with ChatServer(says(TEXT)) as server:
        first, again = (_played(server, way, rounds=2, path=tmp_path / "run.sqlite") for _ in range(2))
    assert first.usage == again.usage
    assert again.usage["estimated"] == len(server.bodies) == 2


def test_a_reply_under_a_name_without_a_price_has_the_price_of_the_model_that_was_asked() -> None:
    """Some servers name the file that they have loaded."""
    with ChatServer(lambda body: whole({"model": "/models/q4.gguf"}, TEXT, usage=USAGE)) as server:
        result = _played(server, prices=PRICES, max_usd=1.0, rounds=2)
    assert result.stopped == "rounds"
    assert result.usage["usd"] == pytest.approx(2 * (20 * 2 + 4 * 8) / 1e6)


def test_the_estimate_of_a_prompt_is_near_what_a_server_counts() -> None:
    with OpenAIServer(lambda: TEXT) as counting, ChatServer(says(TEXT)) as silent:
        counted, estimated = (_played(server, rounds=8).usage for server in (counting, silent))  # type: ignore[arg-type]
    assert estimated["input"] == pytest.approx(counted["input"], rel=0.2)
