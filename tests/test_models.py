import asyncio
from random import Random
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from icrl_graph.games.hidden_color import tasks
from icrl_graph.improvement import improve
from icrl_graph.models import FunctionModel, as_policy, chat_model, read_response
from icrl_graph.state import cost_of
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies import create_icrl
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


def test_structured_output_is_asked_for_over_http_and_becomes_the_answer() -> None:
    with OpenAIServer(lambda: '{"number": 42}') as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Find it.", lambda answer: float(answer["number"]), model=model, rounds=1, extract=_Guess)
    assert result.answer == {"number": 42}
    assert result.reward == 42
    assert result.episodes[0]["response"] == '{"number": 42}'
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


def test_the_same_loop_runs_against_an_openai_compatible_server() -> None:
    direct = play(create_icrl(climber, nearness, rounds=5))[1]
    with OpenAIServer(climber) as server:
        served = play(create_icrl(chat_model("openai:any", base_url=server.base_url), nearness, rounds=5), GAME)[1]
    assert [episode["response"] for episode in served] == [episode["response"] for episode in direct]
