"""A topology as a chat: in this process, and behind the real `langgraph dev`, to which A2A and `RemoteGraph` speak."""

import asyncio
import json
import os
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command

from icrl_graph.evaluators.human import human_reward
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.chat import as_chat
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from tests.helpers import climber, thread

ASKED: Any = {"messages": [("user", "Do it.")]}


def length(response: str) -> float:
    return len(response) / 3


def said(output: Any) -> list[str]:
    return [message.text for message in output["messages"]]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_message_is_answered_by_the_best_attempt_with_its_reward_and_cost(is_async: bool) -> None:
    chat = as_chat(create_icrl(ScriptedModel(["a", "abc", "ab"]), length, rounds=3)).compile()
    output = asyncio.run(chat.ainvoke(ASKED)) if is_async else chat.invoke(ASKED)
    assert said(output) == ["Do it.", "abc"]
    told = output["messages"][-1].response_metadata["icrl"]
    assert (told["reward"], told["stopped"], told["usage"]["calls"]) == (1.0, "rounds", 3)
    assert (output["answer"], output["reward"]) == ("abc", 1.0)


def test_a_turn_is_a_run_whose_task_is_the_conversation_and_settings_come_by_the_context() -> None:
    model = ScriptedModel(["a", "abc", "x", "xy"])
    chat = as_chat(create_icrl(model, length, rounds=2)).compile(checkpointer=InMemorySaver())
    chat.invoke(ASKED, thread())
    again: Any = {"messages": [("user", "Again.")]}
    output = chat.invoke(again, thread(), context={"rounds": 1})
    assert said(output) == ["Do it.", "abc", "Again.", "x"]
    assert [message["role"] for message in model.prompts[2]] == ["user", "assistant", "user"]
    assert output["rounds_done"] == 1


def test_a_person_is_asked_within_a_turn() -> None:
    chat = as_chat(create_icrl(lambda: "abc", human_reward(bounds=(0, 1)), rounds=1)).compile(InMemorySaver())
    (question,) = chat.invoke(ASKED, thread())["__interrupt__"]
    assert question.value["response"] == "abc"
    output = chat.invoke(Command(resume=0.3), thread())
    assert (said(output)[-1], output["rewarded_by"]) == ("abc", "human")


def test_a_turn_that_broke_off_goes_on_inside_its_run() -> None:
    def act() -> str:
        if len(model.prompts) == 2:
            raise KeyboardInterrupt
        return "abc"

    model = ScriptedModel(act)
    chat = as_chat(create_icrl(model, length, rounds=3)).compile(checkpointer=InMemorySaver())
    with pytest.raises(KeyboardInterrupt):
        chat.invoke(ASKED, thread(), durability="sync")
    assert said(chat.invoke(None, thread())) == ["Do it.", "abc"]
    assert len(model.prompts) == 4  # one was in flight


def test_without_an_answer_it_says_why() -> None:
    def fails() -> str:
        raise RuntimeError("no")

    chat = as_chat(create_icrl(fails, length, rounds=2)).compile()
    assert said(chat.invoke(ASKED))[-1] == "No answer was found; it ended by: failures."


def test_events_stream_through_it_and_any_topology_can_talk() -> None:
    chat = as_chat(create_best_of_n(ScriptedModel(["a", "abc"]), length, n=2)).compile()
    parts: Any = chat.stream(ASKED, stream_mode="custom", subgraphs=True)
    told = [event["type"] for _, event in parts]
    assert told == ["round", "response", "response", "episode", "episode", "done"]


@pytest.mark.parametrize("wrong", [create_icrl(climber, length).compile(), climber, None])
def test_only_a_topology_that_is_not_compiled_becomes_a_chat(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a topology, uncompiled"):
        as_chat(wrong)


# ------------------------------------------------------------------------------------------------- behind langgraph dev


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if find_spec("langgraph_api") is None and not os.environ.get("CI"):
        pytest.skip("langgraph dev is not installed: pip install 'icrl-graph[studio]'")
    from tests.test_studio import Studio, listed

    with Studio(listed(tmp_path_factory.mktemp("chat"), "talking", "rated")) as started:
        yield started


def id_of(server: Any, graph: str) -> str:
    with server.client as client:
        (found,) = client.assistants.search(graph_id=graph, metadata={"created_by": "system"})
    return str(found["assistant_id"])


def posted(server: Any, path: str, body: Any, accept: str = "application/json") -> str:
    headers = {"Accept": accept, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def a2a(server: Any, graph: str, method: str, text: str, **place: str) -> list[Any]:
    """What the server says to a message by A2A: one result, or those of a stream."""
    message = {"role": "user", "parts": [{"kind": "text", "text": text}], "messageId": str(uuid4()), **place}
    body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": {"message": message}}
    kind = "text/event-stream" if method == "message/stream" else "application/json"
    answer = posted(server, f"/a2a/{id_of(server, graph)}", body, kind)
    if method == "message/send":
        return [json.loads(answer)["result"]]
    return [
        json.loads(line.removeprefix("data:"))["result"] for line in answer.splitlines() if line.startswith("data:")
    ]


def texts(result: Any) -> list[str]:
    return [part["text"] for artifact in result["artifacts"] for part in artifact["parts"] if "text" in part]


def test_a2a_sends_a_message_and_a_second_one_in_the_same_conversation(server: Any) -> None:
    (first,) = a2a(server, "talking", "message/send", "Say it.")
    assert (first["status"]["state"], texts(first)) == ("completed", ["turn 1!!"])
    (second,) = a2a(server, "talking", "message/send", "Say it again.", contextId=first["contextId"])
    assert texts(second) == ["turn 2!!"]


def test_a2a_streams_the_state_of_a_turn_and_its_answer(server: Any) -> None:
    told = a2a(server, "talking", "message/stream", "Say it.")
    states = [each["status"]["state"] for each in told if each["kind"] == "status-update"]
    assert (states[-1], told[-1]["final"]) == ("completed", True)
    assert "turn 1!!" in json.dumps([each for each in told if each["kind"] == "artifact-update"])


def test_a2a_asks_for_the_reward_of_a_person_and_goes_on_with_it(server: Any) -> None:
    (waits,) = a2a(server, "rated", "message/send", "Say it.")
    assert waits["status"]["state"] == "input-required"
    assert "Hello." in json.dumps(waits["artifacts"])
    place = {"contextId": waits["contextId"], "taskId": waits["id"]}
    (done,) = a2a(server, "rated", "message/send", "0.5", **place)
    assert (done["status"]["state"], texts(done)) == ("completed", ["Hello."])


def test_the_cards_and_tools_of_the_server_say_what_the_graphs_are_for(server: Any) -> None:
    from tests.test_studio import GRAPHS

    card = f"{server.url}/.well-known/agent-card.json?assistant_id={id_of(server, 'chat')}"
    with urllib.request.urlopen(card, timeout=60) as answer:
        assert json.load(answer)["description"] == GRAPHS["chat"]["description"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    answer = posted(server, "/mcp", body, "application/json, text/event-stream")
    tools = {each["name"]: each for each in json.loads(answer)["result"]["tools"]}
    assert {name: tools[name]["description"] for name in GRAPHS} == {n: g["description"] for n, g in GRAPHS.items()}
    assert all(field["description"] for field in tools["icrl"]["inputSchema"]["properties"].values())


def test_a_remote_graph_is_invoked_like_a_local_one(server: Any) -> None:
    with server.client as client:
        remote = RemoteGraph("talking", sync_client=client)
        output = remote.invoke({"messages": [{"role": "user", "content": "Say it."}]})
    assert [message["content"] for message in output["messages"]] == ["Say it.", "turn 1!!"]
    assert output["messages"][-1]["response_metadata"]["icrl"]["reward"] == pytest.approx(0.2)


def test_the_shipped_chat_plays_a_game_and_says_the_color(server: Any) -> None:
    (told,) = a2a(server, "chat", "message/send", "Play.")
    (color,) = texts(told)
    assert (len(color), color[0]) == (4, "#")
