"""What the client for long histories hands on is what LangChain's own does: answers, refusals, prompts, bodies."""

import asyncio
import functools
import json
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration
from langchain_openai import ChatOpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from icrl_graph.models.http import async_client, sync_client
from icrl_graph.models.lean_completions import AsyncLeanCompletions, LeanCompletions
from icrl_graph.models.registry import chat_model
from icrl_graph.testing import OpenAIServer
from tests.bodies import BodyServer
from tests.raw_http import COMPLETION, RawServer, answer

PROMPT: list[BaseMessage] = [HumanMessage("hi")]
SAID: dict[str, Any] = json.loads(COMPLETION)
CHOICE = SAID["choices"][0]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOKEN = {"token": "4", "logprob": -1, "bytes": [52], "top_logprobs": [{"token": "5", "logprob": -2.5, "bytes": None}]}


def _saying(**message: Any) -> dict[str, Any]:
    return {**SAID, "choices": [{**CHOICE, "message": {"role": "assistant", "content": None, **message}}]}


ANSWERS: dict[str, dict[str, Any]] = {
    "a text": SAID,
    "a refusal": _saying(refusal="no"),
    "calls of tools": _saying(tool_calls=[CALL, {**CALL, "id": "2", "index": 1}]),
    "a call without a type": _saying(tool_calls=[{key: CALL[key] for key in ("id", "function")}]),
    "parts": _saying(content=[{"type": "text", "text": "42"}]),
    "log probabilities": {**SAID, "choices": [{**CHOICE, "logprobs": {"content": [TOKEN]}}]},
    "an unknown end": {**SAID, "choices": [{**CHOICE, "finish_reason": "eos"}]},
    "several": {**SAID, "choices": [CHOICE, {**CHOICE, "index": 1}]},
    "details of usage": {
        **SAID,
        "usage": {**SAID["usage"], "prompt_tokens_details": {"cached_tokens": 1}, "cost": 0.1},
    },
    "no usage": {key: SAID[key] for key in ("id", "choices")},
    "fields of its own": {**SAID, "provider": {"name": "x"}, "created": 1.5, "system_fingerprint": "fp"},
    "a tier": {**SAID, "service_tier": "flex", "object": "other"},
}


def _both(url: str) -> list[ChatOpenAI]:
    own: Any = {"http_client": sync_client(), "http_async_client": async_client(), "http_socket_options": ()}
    plain = ChatOpenAI(model="any", base_url=url, api_key=SecretStr("none"), use_responses_api=False, **own)
    lean = chat_model("openai:any", base_url=url, api_key="none")
    assert isinstance(lean, ChatOpenAI)
    return [plain, lean]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
@pytest.mark.parametrize("told", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_read_as_langchains_own_client_reads_it(told: dict[str, Any], asynchronous: bool) -> None:
    with RawServer(answer(json.dumps(told).encode())) as server:
        results = [
            asyncio.run(model.agenerate([PROMPT])) if asynchronous else model.generate([PROMPT])
            for model in _both(f"http://{server.address}/v1")
        ]
    for result in results:
        for generation in result.generations[0]:
            assert isinstance(generation, ChatGeneration)
            generation.message.id = None  # that of LangChain's run
    plain, lean = results
    assert lean.generations == plain.generations
    assert lean.llm_output == plain.llm_output


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
def test_options_of_a_call_are_the_sdks(asynchronous: bool) -> None:
    def call(model: Any, **options: Any) -> Any:
        return asyncio.run(model.ainvoke("hi", **options)) if asynchronous else model.invoke("hi", **options)

    with BodyServer(lambda: "42") as server:
        plain, lean = _both(server.base_url)
        for options in ({"seed": 10**30}, {"extra_query": {"a": "b"}}, {"extra_headers": {"A": "b"}}, {"timeout": 5.0}):
            assert call(lean, **options).content == "42"
            call(plain, **options)
            assert server.raw[-1] == server.raw[-2]
        for options, error in (({"topk": 3}, TypeError), ({"temperature": float("nan")}, ValueError)):
            with pytest.raises(error) as plainly:
                call(plain, **options)
            with pytest.raises(error) as refused:
                call(lean, **options)
            assert str(refused.value) == str(plainly.value)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
def test_every_character_is_written_as_the_sdk_writes_it(asynchronous: bool) -> None:
    text = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x10400)]))
    history = [*_history(40), {"role": "user", "content": text}]
    with BodyServer(lambda: "42") as server:
        for model in _both(server.base_url):
            _ = asyncio.run(model.ainvoke(history)) if asynchronous else model.invoke(history)
    assert server.raw[0] == server.raw[1]


def test_it_stands_on_what_the_sdk_offers() -> None:
    """Should this fail, the SDK has changed: see whether `LeanCompletions` still pays and sends the same."""
    lean: Any = chat_model("openai:any", api_key="k")
    assert type(lean.client) is LeanCompletions
    assert type(lean.async_client) is AsyncLeanCompletions
    for mine, of_sdk in ((LeanCompletions, Completions), (AsyncLeanCompletions, AsyncCompletions)):
        assert issubclass(mine, of_sdk)
        assert hasattr(of_sdk(lean.root_client), "_post")
    with OpenAIServer(lambda: "42") as server:
        lean = chat_model("openai:any", base_url=server.base_url)
        read = lean.client.with_raw_response.create(model="any", messages=[{"role": "user", "content": "x"}]).parse()
    assert type(read) is not ChatCompletion  # else the SDK has made it value by value
    assert isinstance(read, ChatCompletion)


def _history(turns: int) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} {i}"} for i in range(turns) for role in ("user", "assistant")]


def test_a_long_history_is_sent_as_it_is_now() -> None:
    history = _history(100)
    with BodyServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        model.invoke(history)
        history[3]["content"] = "another"
        history[4]["role"] = "assistant"
        model.invoke([*history, {"role": "user", "content": "\ud800 and \0"}])
    assert server.bodies[1]["messages"] == [*history, {"role": "user", "content": "\ufffd and \ufffd"}]


def test_a_callback_that_changes_a_long_prompt_changes_that_of_its_call() -> None:
    class Censor(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            for at, message in enumerate(messages[0]):
                if at % 2:
                    message.content = "-"
                else:
                    message.name = "Ann"

    history = _history(100)
    with BodyServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        model.invoke(history)
        model.invoke(history, {"callbacks": [Censor()]})
        model.invoke(history)
    sent = [body["messages"] for body in server.bodies]
    assert sent[0] == sent[2] == history
    assert sent[1] != history


def test_who_listens_hears_a_long_prompt_as_langchain_makes_it() -> None:
    class Ear(BaseCallbackHandler):
        heard: Any = None

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.heard = messages

    ears = [Ear(), Ear()]
    with OpenAIServer(lambda: "42") as server:
        for ear, model in zip(ears, _both(server.base_url), strict=True):
            model.invoke(_history(100), {"callbacks": [ear]})
    assert ears[0].heard == ears[1].heard
    assert isinstance(ears[1].heard[0][1], AIMessage)


def test_a_text_about_streams_asks_for_none() -> None:
    with BodyServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        assert model.invoke('{"stream": true}').content == "42"


@pytest.mark.parametrize("kind", [Completions, AsyncCompletions])
def test_a_tracer_that_wraps_the_sdks_create_sees_the_calls(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, create = list[Any](), kind.create

    @functools.wraps(create)
    def traced(self: Any, **fields: Any) -> Any:
        seen.append(fields["model"])
        return create(self, **fields)

    monkeypatch.setattr(kind, "create", traced)
    with OpenAIServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url, api_key="none")
        said = model.invoke("hi") if kind is Completions else asyncio.run(model.ainvoke("hi"))
    assert (said.text, seen) == ("42", ["any"])
