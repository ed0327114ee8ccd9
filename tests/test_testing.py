"""The public fakes."""

import asyncio
import socket
from contextlib import suppress
from functools import reduce
from operator import add
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage

from icrl_graph.api import improve
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.learners import LEARNERS
from icrl_graph.models.registry import chat_model
from icrl_graph.tasks import hidden_color
from icrl_graph.testing import DIALECTS, OpenAIServer, ScriptedModel


def test_a_scripted_model_gives_its_replies_and_records_its_prompts() -> None:
    model = ScriptedModel(
        ["a", AIMessage("b"), ValueError("c")], usage={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    )
    reply = model.invoke("hi")
    assert (reply.content, reply.usage_metadata) == ("a", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})
    assert model.invoke("ho").content == "b"
    with pytest.raises(ValueError, match="c"):
        model.invoke("hu")
    with pytest.raises(RuntimeError, match="all of its 3 replies"):
        model.invoke("he")
    assert [prompt[0]["content"] for prompt in model.prompts] == ["hi", "ho", "hu", "he"]


def test_the_server_serves_the_shipped_learner() -> None:
    game = hidden_color.tasks(1)[0]
    direct = improve(**game, score=hidden_color.closeness, model="learner:hidden-color", seed=3)
    with OpenAIServer(LEARNERS["hidden-color"]) as server:
        model = chat_model("openai:learner", base_url=server.base_url)
        served = improve(**game, score=hidden_color.closeness, model=model, seed=3)
    assert [e["response"] for e in served.episodes] == [e["response"] for e in direct.episodes]
    assert served.usage["input"] > 0


def test_the_servers_prefix_cache_counts_whole_blocks_seen_before() -> None:
    with OpenAIServer(lambda: "ok", cache_block=4) as server:
        model = chat_model("openai:any", base_url=server.base_url)

        def cached(text: str) -> Any:
            usage: Any = model.invoke(text)
            return usage.usage_metadata["input_token_details"]["cache_read"]

        assert cached("a" * 100) == 0
        assert cached("a" * 100) == 24  # "<user>" and 100 letters are 26 tokens and a half: six blocks of four
        assert cached("a" * 100 + "b" * 100) == 24
        assert cached("b" + "a" * 100) == 0


def test_the_server_can_stream() -> None:
    with OpenAIServer(lambda: "a reply of some length, in pieces") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        pieces = [str(piece.content) for piece in model.stream("x")]
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == "a reply of some length, in pieces"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_server_sends_calls_of_tools(dialect: str, streamed: bool) -> None:
    calls: Any = [
        {"name": "look", "args": {"place": "the cellar, behind the barrels"}, "id": "1", "type": "tool_call"},
        {"name": "wait", "args": {}, "id": "2", "type": "tool_call"},
    ]
    with OpenAIServer(lambda: AIMessage("", tool_calls=calls), dialect=dialect) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        said: Any = reduce(add, model.stream("x")) if streamed else model.invoke("x")
    assert said.tool_calls == calls
    assert said.response_metadata["finish_reason"] == "tool_calls"
    assert server.reported[0]["completion_tokens"] > 0


def test_a_function_as_a_model_says_what_takes_tools() -> None:
    with pytest.raises(NotImplementedError, match="takes_tools=True"):
        FunctionModel(reply=lambda: "x").bind_tools([])


def test_the_server_answers_many_at_once() -> None:
    with OpenAIServer(lambda: "ok", latency=0.05) as server:
        model = chat_model("openai:any", base_url=server.base_url)

        async def many() -> Any:
            return await asyncio.gather(*(model.ainvoke("x") for _ in range(50)))

        assert len(asyncio.run(many())) == server.counts["answered"] == 50


def test_async_replies_are_made_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def reply() -> str:
        await both.wait()
        return "ok"

    async def two() -> list[str]:
        return [answer.text for answer in await asyncio.gather(model.ainvoke("x"), model.ainvoke("x"))]

    with OpenAIServer(reply) as server:
        model = chat_model("openai:any", base_url=server.base_url, timeout=20)
        assert asyncio.run(two()) == ["ok", "ok"]


def test_a_server_that_ends_closes_the_connections_that_have_just_come() -> None:
    with OpenAIServer(lambda: "ok") as server:
        address = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        clients = [socket.create_connection((address[0], int(address[1])), timeout=20) for _ in range(4)]
    for client in clients:
        with client, suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError), OpenAIServer(lambda: "x", port=taken.getsockname()[1]):
            pass


def test_a_task_that_a_learner_does_not_know_is_refused_with_its_message() -> None:
    with (
        OpenAIServer(LEARNERS["game24"]) as server,
        pytest.raises(openai.BadRequestError, match="Game of 24 only"),
    ):
        chat_model("openai:any", base_url=server.base_url, max_retries=0).invoke("What is love?")


@pytest.mark.parametrize(("given", "listed"), [({}, "local"), ({"model": "game24"}, "game24")])
def test_the_list_of_models_has_the_name_of_the_one_that_is_served(given: Any, listed: str) -> None:
    with OpenAIServer(lambda: "42", **given) as server:
        models = openai.OpenAI(base_url=server.base_url, api_key="none").models.list()
    assert [model.id for model in models] == [listed]
