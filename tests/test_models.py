import asyncio
import inspect
import json
from collections.abc import Callable
from copy import copy
from random import Random
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import PydanticOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel, SecretStr
from typing_extensions import TypedDict

from icrl_graph.api import aimprove, improve
from icrl_graph.benchmarks.results import Cell
from icrl_graph.benchmarks.runner import _seed
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.http import async_client
from icrl_graph.models.openai import LeanChatOpenAI
from icrl_graph.models.policy import as_policy, same_model
from icrl_graph.models.registry import chat_model
from icrl_graph.models.responses import read_response
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.episode import cost_of
from icrl_graph.tasks.hidden_color import tasks
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from tests.bodies import BodyServer
from tests.helpers import GAME, climber, nearness, play


def test_a_function_gets_what_it_names() -> None:
    model = FunctionModel(reply=lambda messages, temperature: f"{messages[0]['content']} at {temperature}")
    assert model.invoke("hi", temperature=0.5).content == "hi at 0.5"
    assert asyncio.run(model.ainvoke([HumanMessage("hi")])).content == "hi at None"


def test_a_function_that_asks_for_more_is_refused() -> None:
    with pytest.raises(ValueError, match="'tools'.*messages, rng, temperature"):
        FunctionModel(reply=lambda tools: "")


def test_the_calls_seed_makes_a_functions_sample_repeatable() -> None:
    model = FunctionModel(reply=lambda rng: str(rng.random()))
    assert model.invoke("x", seed=3).content == model.invoke("x", seed=3).content == str(Random(3).random())
    assert model.invoke("x").content != model.invoke("x").content


@pytest.mark.parametrize("name", ["", "gpt-4", "openai:", ":gpt-4"])
def test_a_name_without_a_provider_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="provider:name"):
        chat_model(name)


def test_an_unknown_learner_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown learner 'chess'.*'hidden-color'"):
        chat_model("learner:chess")


def test_a_missing_key_is_told_with_the_ways_to_give_one() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY.*base_url"):
        chat_model("openai:gpt-4.1-mini")


def test_another_provider_without_langchain_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(ImportError, match=r"icrl-graph\[providers\]"):
        chat_model("anthropic:claude")


def test_an_openai_model_is_found_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(lambda messages: "42") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert chat_model("openai:any").invoke("x").content == "42"


def test_one_model_serves_several_event_loops_and_leaves_nothing_open() -> None:
    with OpenAIServer(lambda messages: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)

        async def four() -> list[Any]:
            return [reply.content for reply in await asyncio.gather(*(model.ainvoke("x") for _ in range(4)))]

        assert [asyncio.run(four()) for _ in range(3)] == [["42"] * 4] * 3


def test_calls_of_one_loop_share_connections() -> None:
    with OpenAIServer(lambda messages: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)

        async def in_turn() -> None:
            for _ in range(20):
                await model.ainvoke("x")

        asyncio.run(in_turn())
        assert server.counts["connections"] == 1


def test_a_function_model_has_its_name_in_saved_runs() -> None:
    models = (FunctionModel(reply=lambda: "x"), FunctionModel(reply=lambda: "x", name="mine"), as_policy(climber).part)
    assert [name_of_part(model) for model in models] == ["function", "mine", "climber"]


def test_usage_with_cached_tokens_stands_on_each_episode() -> None:
    with OpenAIServer(climber, cache_block=16) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        _, episodes = play(create_icrl(model, nearness, rounds=4))
    assert all(cost_of(episode)["input"] > 0 and cost_of(episode)["output"] > 0 for episode in episodes)
    assert cost_of(episodes[0])["cached"] == 0
    assert cost_of(episodes[-1])["cached"] > 0.6 * cost_of(episodes[-1])["input"]


def test_reasoning_tokens_are_counted() -> None:
    message = AIMessage(
        "10",
        usage_metadata={
            "input_tokens": 5,
            "output_tokens": 9,
            "total_tokens": 14,
            "output_token_details": {"reasoning": 7},
        },
    )
    _, episodes = play(create_icrl(ScriptedModel([message]), nearness, rounds=1))
    usage = cost_of(episodes[0])
    assert (usage["calls"], usage["input"], usage["cached"], usage["output"], usage["reasoning"]) == (1, 5, 0, 9, 7)


class _Messages(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def _agent(name: str = "agent") -> Any:
    graph = StateGraph(_Messages)
    graph.add_node("think", lambda state: {"messages": [AIMessage(str(len(state["messages"])))]})
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    return graph.compile(name=name)


def test_a_compiled_graph_can_stand_for_a_model_and_is_drawn_inside() -> None:
    graph = create_icrl(_agent(), nearness, rounds=3)
    _, episodes = play(graph)
    assert [episode["response"] for episode in episodes] == ["1", "3", "5"]
    assert "generate:think" in graph.compile().get_graph(xray=True).nodes


def test_a_graph_that_takes_no_messages_is_refused() -> None:
    class Other(TypedDict):
        text: str

    graph = StateGraph(Other)
    graph.add_node("think", lambda state: state)
    graph.add_edge(START, "think")
    with pytest.raises(ValueError, match="'messages'"):
        as_policy(graph.compile(name="other"))


def test_a_runnable_gets_the_messages() -> None:
    _, episodes = play(create_icrl(RunnableLambda(lambda messages: str(len(messages))), nearness, rounds=2))
    assert [episode["response"] for episode in episodes] == ["1", "3"]


def test_a_bound_chat_model_still_takes_sampling_parameters() -> None:
    assert as_policy(ScriptedModel(["a"]).bind(stop=["x"])).kind == "chat"


@pytest.mark.parametrize("wrong", [None, 3, ["a"]])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a model is"):
        create_icrl(wrong, nearness)


def test_sampling_parameters_go_with_their_instruction() -> None:
    seen: list[Any] = []

    def reply(messages: Any, temperature: float | None) -> str:
        seen.append(temperature)
        return "10"

    sampling = {"explore": {"temperature": 1.5}, "default": {"temperature": 0.1}}
    play(create_icrl(reply, nearness, rounds=3, sampling=sampling))
    assert seen == [1.5, 0.1, 1.5]


def test_sampling_parameters_for_what_takes_none_are_refused() -> None:
    with pytest.raises(ValueError, match="chat models only"):
        create_icrl(RunnableLambda(str), nearness, sampling={"default": {"temperature": 1}})


class _Guess(BaseModel):
    number: int


@pytest.mark.parametrize("said", ['{"number": 42}', 'Here it is:\n\n```json\n{\n  "number": 42\n}\n```\n'])
def test_structured_output_is_asked_for_over_http_and_becomes_the_answer(said: str) -> None:
    with OpenAIServer(lambda: said) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Find it.", lambda answer: float(answer["number"]), model=model, rounds=1, extract=_Guess)
    assert result.answer == {"number": 42}
    assert result.reward == 42
    assert result.episodes[0]["response"] == said
    assert result.usage["calls"] == 1
    assert result.usage["input"] > 0


def test_output_that_is_not_in_the_asked_for_form_is_unscored() -> None:
    with OpenAIServer(lambda: "no json") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Find it.", lambda answer: 1.0, model=model, rounds=1, extract=_Guess)
    assert result.rewards == [None]
    assert result.episodes[0].get("error")


def test_plain_words_in_place_of_a_structured_reply_are_unscored() -> None:
    class Tools(FunctionModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind()

    graph = create_icrl(Tools(reply=lambda: "I would say 42"), lambda answer: 1.0, rounds=2, extract=_Guess)
    output, episodes = play(graph)
    assert [episode["reward"]["value"] for episode in episodes] == [None, None]
    assert "in words of its own" in episodes[0]["error"]
    assert output["answer"] is None


def test_a_learner_takes_a_temperature_and_nothing_else() -> None:
    cold = chat_model("learner:hidden-color", temperature=0)
    prompt = tasks(1)[0]["task"]
    assert len({cold.invoke(prompt).content for _ in range(4)}) == 1
    with pytest.raises(ValueError, match="top_p"):
        chat_model("learner:hidden-color", top_p=1)
    with pytest.raises(ValueError, match="base_url"):
        chat_model("learner:hidden-color", base_url="http://127.0.0.1:1/v1")


def test_an_async_function_is_no_model() -> None:
    async def reply() -> str:
        return "a"

    with pytest.raises(ValueError, match="RunnableLambda"):
        create_icrl(reply, nearness)


def test_an_async_runnable_answers_in_a_sync_run_too() -> None:
    async def reply(messages: Any) -> str:
        return "42"

    assert play(create_icrl(RunnableLambda(reply), nearness, rounds=1))[0]["reward"] == 1.0


def test_the_tokens_of_an_agent_count() -> None:
    def think(state: Any) -> Any:
        usage: Any = {"input_tokens": 60, "output_tokens": 40, "total_tokens": 100}
        return {"messages": [AIMessage("10", usage_metadata=usage)]}

    graph = StateGraph(_Messages)
    graph.add_node("think", think)
    graph.add_edge(START, "think")
    output, _ = play(create_icrl(graph.compile(), nearness, rounds=9, max_tokens=150))
    assert (output["stopped"], output["rounds_done"]) == ("tokens", 2)


def test_empty_refused_and_filtered_replies_are_data() -> None:
    assert "empty" in read_response("  ")["error"]
    assert "refused" in read_response(AIMessage("", additional_kwargs={"refusal": "no"}))["error"]
    assert "filter" in read_response(AIMessage("x", response_metadata={"finish_reason": "content_filter"}))["error"]
    with pytest.raises(ValueError, match="text or a message"):
        read_response(3)


class _Object(BaseModel):
    number: int
    why: str = "für"


def _given(form: str) -> Any:
    """A Runnable that gives an object, and what it is as JSON values."""
    if form == "langchain":
        return ScriptedModel(['{"number": 42}'] * 2) | PydanticOutputParser(pydantic_object=_Object)
    given: Any = {"pydantic": _Object(number=42), "dictionary": dict(_Object(number=42))}.get(form)
    if form == "agent":
        given = {"messages": [AIMessage("Returning structured response")], "structured_response": _Object(number=42)}
    return RunnableLambda(lambda messages: given)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("form", ["pydantic", "dictionary", "langchain", "agent"])
def test_an_object_that_a_runnable_gives_is_its_answer(form: str, is_async: bool) -> None:
    given: Any = {"model": _given(form), "rounds": 2}

    def score(answer: Any, response: str) -> float:
        return float(answer["number"]) if answer == json.loads(response) else 0.0

    result = asyncio.run(aimprove("x", score, **given)) if is_async else improve("x", score, **given)
    assert (result.rewards, result.answer) == ([42.0, 42.0], {"number": 42, "why": "für"})
    assert result.episodes[0]["response"] == '{"number": 42, "why": "für"}'


def test_a_runnable_that_gives_nothing_has_given_an_empty_answer() -> None:
    result = improve("x", lambda: 1.0, model=RunnableLambda(lambda messages: None), rounds=4)
    assert (result.stopped, {episode["error_kind"] for episode in result.episodes}) == ("rounds", {"reply"})


@pytest.mark.parametrize(
    ("metadata", "error", "cut"),
    [
        ({"finish_reason": "stop"}, None, None),
        ({"stop_reason": "end_turn"}, None, None),
        ({"done_reason": "stop", "finish_reason": None}, None, None),
        ({"incomplete_details": None}, None, None),
        ({"finish_reason": "length"}, None, True),
        ({"finish_reason": "MAX_TOKENS"}, None, True),
        ({"stop_reason": "max_tokens"}, None, True),
        ({"stopReason": "max_tokens"}, None, True),
        ({"done_reason": "length"}, None, True),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, None, True),
        ({"finish_reason": "content_filter"}, "filter", None),
        ({"incomplete_details": {"reason": "content_filter"}}, "filter", None),
        ({"finish_reason": "SAFETY"}, "filter", None),
        ({"stopReason": "guardrail_intervened"}, "filter", None),
        ({"stop_reason": "refusal"}, "refused", None),
    ],
)
def test_how_an_answer_ended_is_read_in_the_words_of_each_provider(metadata: Any, error: str | None, cut: Any) -> None:
    reply = read_response(AIMessage("half a", response_metadata=metadata))
    assert (reply.get("response"), reply.get("cut")) == (None if error else "half a", cut)
    assert (error or "") in reply.get("error", "")


def test_the_same_loop_runs_against_an_openai_compatible_server() -> None:
    direct = play(create_icrl(climber, nearness, rounds=5))[1]
    with OpenAIServer(climber) as server:
        served = play(create_icrl(chat_model("openai:any", base_url=server.base_url), nearness, rounds=5), GAME)[1]
    assert [episode["response"] for episode in served] == [episode["response"] for episode in direct]


# ----------------------------------------------------------------------------------------- the lean client for OpenAI


TOOL_CALL: Any = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PROMPTS: Any = {
    "text": "x",
    "turns": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
    ],
    "marks": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "c"},
            ],
        }
    ],
    "names": [{"role": "user", "name": "Ann", "content": "a"}, {"role": "assistant", "name": "Bob", "content": "b"}],
    "tools": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": "42"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": ""},
    ],
    "objects": [HumanMessage("a", name=""), AIMessage("b", additional_kwargs={"refusal": "no"}), HumanMessage("c")],
}
OPTIONS: Any = {
    "plain": {},
    "sampling": {"temperature": 0.5, "seed": 7, "max_tokens": 5, "stop": ["x"]},
    "extra body": {"extra_body": {"top_k": 3}},
    "o-series": {"model": "o3"},
    "responses": {"use_responses_api": True},
}


def _how(how: str) -> Callable[[Any, Any], Any]:
    async def stream(model: Any, prompt: Any) -> Any:
        return [chunk async for chunk in model.astream(prompt)]

    ways: dict[str, Callable[[Any, Any], Any]] = {
        "invoke": lambda model, prompt: model.invoke(prompt),
        "ainvoke": lambda model, prompt: asyncio.run(model.ainvoke(prompt)),
        "stream": lambda model, prompt: list(model.stream(prompt)),
        "astream": lambda model, prompt: asyncio.run(stream(model, prompt)),
        "structured": lambda model, prompt: model.with_structured_output(_Guess, include_raw=True).invoke(prompt),
        "tools": lambda model, prompt: model.bind_tools([_Guess]).invoke(prompt, seed=3),
        "bound": lambda model, prompt: model.bind(stop=["y"]).invoke(prompt),
    }
    return ways[how]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream", "structured", "tools", "bound"])
def test_the_lean_client_sends_what_the_plain_one_sends(how: str) -> None:
    """To the byte, over HTTP, for every kind of message and option; a limit it sends under both names."""
    with BodyServer(lambda: '{"number": 42}') as server:
        for options in (OPTIONS["plain"], OPTIONS["sampling"], OPTIONS["extra body"], OPTIONS["o-series"]):
            common = {"model": "any", "base_url": server.base_url, "use_responses_api": False, **options}
            limit = {"extra_body": {"max_tokens": options["max_tokens"]}} if "max_tokens" in options else {}
            asks: Any = {"stream_usage": True, "http_async_client": async_client(), **common, **limit}
            plain = ChatOpenAI(api_key=SecretStr("none"), **asks)
            lean = chat_model(f"openai:{common.pop('model')}", api_key="none", **common)
            for name, prompt in PROMPTS.items():
                said = [_how(how)(model, prompt) for model in (plain, lean)]
                bodies = server.raw[-2:]
                assert bodies[0] == bodies[1], name
                assert type(said[0]) is type(said[1])


def test_the_lean_client_leaves_the_other_protocol_alone() -> None:
    plain = ChatOpenAI(model="any", api_key=SecretStr("k"), use_responses_api=True)
    lean = chat_model("openai:any", api_key="k", use_responses_api=True)
    hook = "_get_request_payload"
    assert getattr(lean, hook)(PROMPTS["turns"]) == getattr(plain, hook)(PROMPTS["turns"])
    assert "input" in getattr(lean, hook)(PROMPTS["turns"])


def test_the_private_hook_of_the_lean_client_is_what_it_was() -> None:
    """Should this fail, langchain-openai has changed: see whether `LeanChatOpenAI` still pays and sends the same.

    Without the hook it is a plain `ChatOpenAI`: slower, and right.
    """
    hook = "_get_request_payload"
    parameters = inspect.signature(getattr(ChatOpenAI, hook)).parameters
    assert list(parameters) == ["self", "input_", "stop", "kwargs"]
    payload = getattr(chat_model("openai:any", base_url="http://127.0.0.1:1/v1"), hook)(PROMPTS["turns"])
    assert payload["messages"] == []
    assert payload["extra_body"] == {"messages": PROMPTS["turns"]}
    source = inspect.getsource(BaseChatOpenAI)
    assert source.count(f"self.{hook}(messages, stop=stop, **kwargs)") >= 4  # sync and async, streaming and not


def test_a_lean_client_without_its_hook_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(LeanChatOpenAI, "_get_request_payload")
    with BodyServer(lambda: "42") as server:
        assert chat_model("openai:any", base_url=server.base_url).invoke(PROMPTS["turns"]).content == "42"
    assert server.bodies[0]["messages"] == PROMPTS["turns"]


def test_who_listens_to_a_lean_client_sees_the_prompt() -> None:
    class Ear(BaseCallbackHandler):
        heard: Any = None

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.heard = [(message.type, message.content) for message in messages[0]]

    ear = Ear()
    with OpenAIServer(lambda: "42") as server:
        chat_model("openai:any", base_url=server.base_url).invoke(PROMPTS["turns"], {"callbacks": [ear]})
    assert ear.heard == [("system", "Be brief."), ("human", "a"), ("ai", "b"), ("human", "c")]


def test_a_lean_client_passes_for_the_model_that_it_stands_for() -> None:
    lean = chat_model("openai:any", api_key="k")
    assert isinstance(lean, ChatOpenAI)
    assert json.loads(dumps(lean))["id"][-1] == "ChatOpenAI"
    assert same_model(lean, chat_model("openai:any", api_key="other"))
    assert not same_model(lean, chat_model("openai:other", api_key="k"))
    assert name_of_part(lean.bind(stop=["x"])) == "any"
    assert copy(lean).model_dump() == lean.model_dump()
    cell = Cell("a", "b", 0)
    assert _seed(lean, cell) == _seed(ChatOpenAI(model="any", api_key=SecretStr("k")), cell) is not None
