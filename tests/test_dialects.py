"""Every topology against a server in every dialect, over real HTTP: runs end, and what is refused is told.

The server is `icrl_graph.testing.OpenAIServer`; `icrl_graph/testing/dialects.py` says where its dialects are from.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from icrl_graph import ModelError, RateLimit, aimprove, chat_model, improve
from icrl_graph.cli.shared import app
from icrl_graph.models.turns import in_turns
from icrl_graph.testing import DIALECTS, OpenAIServer
from icrl_graph.topologies.methods import TOPOLOGIES, size_option
from tests.helpers import GAME, nearness

WAYS = [improve, aimprove]
EXAMPLES = [{"role": "user", "content": "Find the number. (It is 7.)"}, {"role": "assistant", "content": "7"}]
QUICK = RateLimit(max_attempts=3, max_backoff=0.01)
STRICT = [name for name, dialect in DIALECTS.items() if "roles" in dialect.refusals]


def _each(*names: str) -> list[Any]:
    """Dialects, by default all, each with one of the two ways in turn: every topology above is played in both."""
    return [pytest.param(name, WAYS[at % 2], id=name) for at, name in enumerate(names or DIALECTS)]


def _model(server: OpenAIServer, **options: Any) -> Any:
    return chat_model("openai:any", base_url=server.base_url, **options)


def _played(way: Any, server: OpenAIServer, *, task: Any = "Find the number.", **options: Any) -> Any:
    model, score = options.pop("model", None) or _model(server), options.pop("score", lambda: 0.5)
    played = way(task, score, model=model, **{"rounds": 3, "rate_limit": QUICK, **options})
    return asyncio.run(played) if asyncio.iscoroutine(played) else played


def _asked(server: OpenAIServer, **fields: Any) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    body = {"model": "any", "messages": [{"role": "user", "content": "?"}], **fields}
    request = Request(f"{server.base_url}/chat/completions", json.dumps(body).encode())
    try:
        with urlopen(request) as answer:
            return answer.status, answer.read()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read()


# ----------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module", params=DIALECTS)
def shared(request: Any) -> Iterator[tuple[OpenAIServer, Any]]:
    """A server and its model, for many runs."""
    with OpenAIServer(lambda: "40", dialect=request.param) as server:
        yield server, _model(server)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_runs_to_its_end_and_counts_what_the_server_counts(shared: Any, topology: str, way: str) -> None:
    (server, model), create = shared, TOPOLOGIES[topology]
    server.counts.clear()
    server.reported.clear()
    graph = create(model, nearness, system="Be brief.", examples=EXAMPLES, **{size_option(create): 2}).compile()
    out = graph.invoke(GAME) if way == "invoke" else asyncio.run(graph.ainvoke(GAME))
    assert (out["answer"], out["reward"]) == ("40", 0.98)
    assert out["usage"]["calls"] == server.counts["answered"] == server.counts["calls"] >= 2
    assert out["usage"]["input"] == sum(each["prompt_tokens"] for each in server.reported)


@pytest.mark.parametrize(("dialect", "way"), _each())
def test_a_history_that_outgrows_the_context_is_shortened(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "1" * 400, context=450, dialect=dialect) as server:
        result = _played(way, server, rounds=5)
        assert (result.rewards, result.stopped) == ([0.5] * 5, "rounds")
        assert server.counts["overflow"] <= 2  # by half each time, so not in every round
        assert (server.counts["overflow"] > 0) == ("overflow" in DIALECTS[dialect].refusals)
        assert all(each["prompt_tokens"] <= 450 for each in server.reported)


class Answer(BaseModel):
    number: int


@pytest.mark.parametrize(("dialect", "way"), _each())
def test_structured_answers_are_had_from_every_server(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: '{"number": 42}', dialect=dialect) as server:
        result = _played(way, server, extract=Answer, score=lambda answer: answer["number"] / 42)
        assert result.rewards == [1.0] * 3


@pytest.mark.parametrize(("dialect", "way"), _each()[1:])
def test_thoughts_are_no_part_of_an_answer_nor_of_later_prompts(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "<think>Is it 41?</think>\n42", dialect=dialect) as server:
        result = _played(way, server, score=lambda response: float(response == "42"))
        assert result.rewards == [1.0] * 3
        assert "Is it 41?" not in json.dumps(server.prompts)


@pytest.mark.parametrize(("dialect", "way"), _each()[1:])
def test_answers_end_at_the_limit_that_they_are_given(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "1" * 400, dialect=dialect) as server:
        result = _played(way, server, model=_model(server, max_tokens=5))
        assert (result.rewards, result.usage["output"]) == ([0.5] * 3, 15)


@pytest.mark.parametrize(("dialect", "way"), _each()[1:])
def test_a_stream_is_counted_as_the_server_counts_it(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "40", dialect=dialect) as server:
        result = _played(way, server, model=_model(server, streaming=True))
        assert result.usage["input"] == sum(each["prompt_tokens"] for each in server.reported)
        assert result.usage["output"] == sum(each["completion_tokens"] for each in server.reported)


@pytest.mark.parametrize("way", WAYS)
def test_usage_that_each_chunk_repeats_is_counted_once(way: Any) -> None:
    with OpenAIServer(lambda: "1" * 64, dialect=replace(DIALECTS["vllm"], usage="each")) as server:
        result = _played(way, server, model=_model(server, streaming=True))
        assert result.usage["output"] == 48


@pytest.mark.parametrize(("dialect", "way"), _each()[1:])
def test_a_seed_is_sent_where_it_is_taken(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda rng: str(rng.randrange(100)), dialect=dialect) as server:
        assert _played(way, server, seed=1).rewards == [0.5] * 3


# ------------------------------------------------------------------------------------------------ refusals and failures

KEY = {
    "openai": "injected fault 401",
    "llama.cpp": "Invalid API Key",
    "vllm": "Unauthorized",
    "sglang": "Unauthorized",
    "tgi": "401",
    "ollama": "unauthorized",
    "openrouter": "No auth credentials found",
    "mistral": "Unauthorized",
    "deepseek": "Your api key: ****1234 is invalid",
    "azure": "Access denied due to invalid subscription key",
}
NAME = {
    "openai": "The model `any` does not exist",
    "vllm": "The model `any` does not exist",
    "ollama": "model 'any' not found",
    "openrouter": "any is not a valid model ID",
    "mistral": "Invalid model: any",
    "deepseek": "Model Not Exist",
    "azure": "The API deployment for this resource does not exist",
}
FILTER = {
    "openrouter": "Input was flagged",
    "azure": "content management policy",
    **dict.fromkeys(
        ["openai", "llama.cpp", "vllm", "sglang", "tgi", "ollama", "mistral", "deepseek"],
        "the provider's content filter",
    ),
}
REFUSED = {
    (dialect, fault): words
    for fault, told in (("401", KEY), ("404", NAME), ("filtered", FILTER))
    for dialect, words in told.items()
}


@pytest.mark.parametrize(("dialect", "fault", "way"), [(*case, WAYS[at % 2]) for at, case in enumerate(REFUSED)])
def test_a_refusal_is_told_in_the_servers_words_and_not_repeated(dialect: str, fault: Any, way: Any) -> None:
    with OpenAIServer(lambda: "40", dialect=dialect, faults={1: fault}) as server:
        try:
            told = str(_played(way, server, rounds=1).episodes[0]["error"])
        except ModelError as error:
            told = str(error)
        assert REFUSED[dialect, fault] in told
        assert server.counts["calls"] == 1


@pytest.mark.parametrize(("dialect", "way"), _each())
def test_what_may_pass_is_repeated(dialect: str, way: Any) -> None:
    with OpenAIServer(
        lambda: "40" * 9, dialect=dialect, faults={1: "429", 2: "500", 3: "reset", 5: "aborted"}
    ) as server:
        result = _played(way, server, rate_limit=RateLimit(max_attempts=4, max_backoff=0.01))
        assert [episode["response"] for episode in result.episodes] == ["40" * 9] * 3
        assert server.counts["calls"] == 7


@pytest.mark.parametrize(("dialect", "way"), _each())
def test_a_stream_that_breaks_off_is_repeated(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "40" * 9, dialect=dialect, faults={1: "429", 2: "aborted"}) as server:
        result = _played(way, server, model=_model(server, streaming=True), rounds=1)
        assert [episode["response"] for episode in result.episodes] == ["40" * 9]
        assert server.counts["calls"] == 3


# ---------------------------------------------------------------------------------------------------------------- roles

CHAT = [
    {"role": "system", "content": "Play a game."},
    {"role": "user", "content": "I think of a number."},
    {"role": "user", "content": "Find it."},
    {"role": "system", "content": "Be brief."},
]
NO_SYSTEM: Any = {"": frozenset({"user"}), "user": frozenset({"assistant", ""}), "assistant": frozenset({"user"})}


@pytest.mark.parametrize(("dialect", "way"), _each(*STRICT))
def test_a_chat_that_a_server_refuses_for_its_roles_is_sent_in_turns_from_then_on(dialect: str, way: Any) -> None:
    with OpenAIServer(lambda: "40", dialect=dialect) as server:
        result = _played(way, server, task=CHAT)
        assert result.rewards == [0.5] * 3
        assert (server.counts["calls"], server.counts["roles"]) == ((3, 0) if dialect == "mistral" else (4, 1))


@pytest.mark.parametrize("way", WAYS)
def test_a_system_prompt_opens_the_users_turn_where_the_template_knows_none(way: Any) -> None:
    with OpenAIServer(lambda: "40", dialect=replace(DIALECTS["llama.cpp"], order=NO_SYSTEM)) as server:
        assert _played(way, server, system="Be brief.", rounds=2).rewards == [0.5] * 2
        assert server.prompts[-1][0]["role"] == "user"
        assert server.prompts[-1][0]["content"].startswith("Be brief.\n\nFind the number.")
        assert server.counts["roles"] == 2  # as it is, and in turns


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("way", WAYS)
def test_roles_that_a_server_never_takes_are_told_and_not_repeated(way: Any, status: int) -> None:
    llama = DIALECTS["llama.cpp"]
    refusals = {"roles": replace(llama.refusals["roles"], status=status)}
    with OpenAIServer(lambda: "40", dialect=replace(llama, order={}, refusals=refusals)) as server:
        (episode,) = _played(way, server, rounds=1).episodes
        assert "Conversation roles must alternate" in episode["error"]
        assert server.counts["calls"] <= 2  # as it is, and in turns


def test_turns_keep_every_text_and_its_order() -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": "Look."}]}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    messages: list[Any] = [CHAT[0], CHAT[3], CHAT[1], asked, CHAT[3], call, call, {"role": "tool", "content": "?"}]
    first, second, *rest = in_turns(messages)
    assert first == {"role": "system", "content": "Play a game.\n\nBe brief."}
    assert [part["text"] for part in second["content"]] == ["I think of a number.", "Look.", "Be brief."]
    assert rest == messages[5:]


# ----------------------------------------------------------------------------------------------------------- the server

PLACES: Mapping[str, Any] = {
    "reasoning_content": {"content": "42", "reasoning_content": "Is it 41?"},
    "reasoning": {"content": "42", "reasoning": "Is it 41?"},
    "content": {"content": "<think>Is it 41?</think>42"},
    "hidden": {"content": "42"},
    "parts": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Is it 41?"}]},
            {"type": "text", "text": "42"},
        ]
    },
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_thoughts_stand_where_the_dialect_has_them(dialect: str) -> None:
    with OpenAIServer(lambda: "<think>Is it 41?</think>42", dialect=dialect) as server:
        message = json.loads(_asked(server)[1])["choices"][0]["message"]
        assert message == {"role": "assistant", **PLACES[DIALECTS[dialect].reasoning]}


def test_an_unknown_dialect_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown dialect 'klingon'; choose one of 'openai', 'llama.cpp', 'vllm'"):
        OpenAIServer(lambda: "", dialect="klingon")
    done = CliRunner().invoke(app, ["serve", "--port", "0", "--dialect", "klingon"])
    assert (done.exit_code, "choose one of 'openai'" in " ".join(done.output.split())) == (2, True)


def test_mistral_tells_all_fields_that_it_does_not_know() -> None:
    with OpenAIServer(lambda: "40", dialect="mistral") as server:
        status, body = _asked(server, seed=1, stream=True, stream_options={"include_usage": True})
        details = json.loads(body)["message"]["detail"]
        assert status == 422
        assert [each["loc"] for each in details] == [["body", "seed"], ["body", "stream_options", "include_usage"]]


def test_ollama_drops_the_oldest_turns_of_a_long_prompt_and_reports_what_is_left() -> None:
    turns = [{"role": "user", "content": "1" * 400}, {"role": "assistant", "content": "2" * 400}] * 5
    messages = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "?"}]
    with OpenAIServer(lambda messages: messages[-2:][0]["content"], dialect="ollama", context=250) as server:
        answer = json.loads(_asked(server, messages=messages)[1])
        assert answer["choices"][0]["message"]["content"] == "2" * 400
        assert answer["usage"]["prompt_tokens"] == 211
        assert (
            json.loads(_asked(server, messages=[{"role": "user", "content": "1" * 4000}])[1])["usage"]["prompt_tokens"]
            == 127
        )


@pytest.mark.parametrize(("asked", "finish"), [(20, "length"), (50, "model_length")])
def test_an_answer_ends_at_its_limit_or_where_the_context_is_full(asked: int, finish: str) -> None:
    with OpenAIServer(lambda: "1" * 400, dialect="mistral", context=40) as server:
        (choice,) = json.loads(_asked(server, max_tokens=asked)[1])["choices"]
        assert (choice["finish_reason"], len(choice["message"]["content"])) == (finish, 4 * min(asked, 38))


def test_what_a_server_leaves_out_can_be_chosen() -> None:
    silent = replace(DIALECTS["vllm"], usage="never", adds={"model": None})
    with OpenAIServer(lambda: "40", dialect=silent) as server:
        assert json.loads(_asked(server)[1]).keys().isdisjoint({"usage", "model"})
        assert b"usage" not in _asked(server, stream=True, stream_options={"include_usage": True})[1]


def test_bad_requests_are_refused_and_models_are_listed() -> None:
    with OpenAIServer(lambda: "40") as server:
        assert _asked(server, messages=[])[0] == 400
        with urlopen(f"{server.base_url}/models") as listed:
            assert json.loads(listed.read())["data"][0]["object"] == "model"
    with pytest.raises(ValueError, match="65535, got 99999"), OpenAIServer(lambda: "40", port=99_999):
        pass
