"""A topology as a tool in somebody's agent."""

import asyncio
import operator
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from typing_extensions import TypedDict

from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.tool import as_tool
from tests.helpers import climber, nearness, thread

SECRET: Any = {"secret": 42}


class Chat(TypedDict):
    """The agent's state. Its keys have names of ours, and nothing to do with them."""

    messages: Annotated[list[AnyMessage], operator.add]
    episodes: list[str]
    task: str


def agent_with(tool: Any, *calls: dict[str, Any]) -> Any:
    """Calls the tool with these arguments, all at once, then answers with what it has heard."""

    def act(state: Chat) -> Any:
        if isinstance(state["messages"][-1], ToolMessage):
            heard = [message.text for message in state["messages"] if isinstance(message, ToolMessage)]
            return {"messages": [AIMessage(", ".join(heard))]}
        asked = [{"name": tool.name, "args": args, "id": f"call {at}"} for at, args in enumerate(calls)]
        return {"messages": [AIMessage("", tool_calls=asked)]}

    agent = StateGraph(Chat)
    agent.add_node("act", act)
    agent.add_node("tools", ToolNode([tool]))
    agent.add_edge(START, "act")
    agent.add_conditional_edges("act", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    agent.add_edge("tools", "act")
    return agent


ASKED: Any = {"messages": [HumanMessage("Find the number.")], "episodes": ["mine"], "task": "mine"}
FIND = {"task": "Find the number."}


@pytest.mark.parametrize("is_async", [False, True])
def test_an_agent_calls_a_topology_as_a_tool_and_keeps_its_own_state(is_async: bool) -> None:
    tool = as_tool(create_icrl(climber, nearness, rounds=3), "solve", "Solves a task well.", task_data=SECRET)
    agent = agent_with(tool, FIND).compile(checkpointer=InMemorySaver())
    output = asyncio.run(agent.ainvoke(ASKED, thread())) if is_async else agent.invoke(ASKED, thread())
    assert output["messages"][-1].text == "42"
    assert (output["episodes"], output["task"]) == (["mine"], "mine")
    (heard,) = (message for message in output["messages"] if isinstance(message, ToolMessage))
    assert (heard.artifact["reward"], heard.artifact["rounds_done"]) == (1.0, 3)


def test_it_is_called_alone_like_any_tool() -> None:
    tool = as_tool(create_icrl(climber, nearness, rounds=3), "solve", "Solves.", task_data=SECRET)
    assert tool.invoke(FIND) == "42"
    assert asyncio.run(tool.ainvoke(FIND)) == "42"
    assert set(tool.args) == {"task", "max_calls"}


@pytest.mark.parametrize(
    ("own", "context", "asked", "paid"),
    [
        ({}, None, None, 8),
        ({}, None, 3, 3),
        ({"max_calls": 2}, None, 3, 2),
        ({}, {"icrl": {"max_calls": 4}}, 5, 4),
        ({"max_calls": 2}, {"icrl": {"max_calls": 4}}, None, 4),
        ({}, {"icrl": {"rounds": 3}}, None, 3),
    ],
)
def test_the_budget_is_the_lower_of_what_the_agent_asks_for_and_what_its_graph_allows(
    own: Any, context: Any, asked: Any, paid: int
) -> None:
    model = ScriptedModel(lambda: "1")
    tool = as_tool(create_icrl(model, nearness, **own), "solve", "Solves.", task_data=SECRET)
    agent = agent_with(tool, {**FIND, **({"max_calls": asked} if asked else {})}).compile()
    agent.invoke(ASKED, context=context)
    assert len(model.prompts) == paid


def test_the_episodes_stream_through_the_agents_graph() -> None:
    tool = as_tool(create_icrl(climber, nearness, rounds=2), "solve", "Solves.", task_data=SECRET)
    agent = agent_with(tool, FIND).compile()
    events = [event for _, event in agent.stream(ASKED, stream_mode="custom", subgraphs=True)]
    assert [event["round"] for event in events if event["type"] == "episode"] == [0, 1]


def test_a_tool_that_broke_off_goes_on_inside_its_run_and_pays_for_nothing_twice() -> None:
    def act() -> str:
        if len(model.prompts) == 3:
            raise KeyboardInterrupt
        return str(len(model.prompts))

    model = ScriptedModel(act)
    tool = as_tool(create_icrl(model, nearness, rounds=4), "solve", "Solves.", task_data=SECRET)
    agent = agent_with(tool, FIND).compile(checkpointer=InMemorySaver())
    with pytest.raises(KeyboardInterrupt):
        agent.invoke(ASKED, thread(), durability="sync")
    output = agent.invoke(None, thread(), durability="sync")
    assert output["messages"][-1].text == "5"
    assert len(model.prompts) == 5  # one was in flight


def test_an_agent_that_is_killed_within_its_tool_goes_on_inside_the_run(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "agent_child.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([*command, "3"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    done = subprocess.run([*command, "99"], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("6\n", "")
    assert len((tmp_path / "paid.log").read_text().splitlines()) == 6  # five rounds, and the call in flight


def test_two_calls_at_once_are_two_runs() -> None:
    tool = as_tool(create_icrl(climber, nearness, rounds=3), "solve", "Solves.", task_data=SECRET)
    agent = agent_with(tool, FIND, {"task": "Find it, the other one."}).compile(checkpointer=InMemorySaver())
    assert agent.invoke(ASKED, thread())["messages"][-1].text == "42, 42"


def test_without_an_answer_the_agent_is_told_why() -> None:
    def fails() -> str:
        raise RuntimeError("no")

    tool = as_tool(create_icrl(fails, nearness, rounds=2), "solve", "Solves.", task_data=SECRET)
    assert "No answer was found; it ended by: failures." in tool.invoke(FIND)


@pytest.mark.parametrize("wrong", [create_icrl(climber, nearness).compile(), climber, None])
def test_only_a_topology_that_is_not_compiled_becomes_a_tool(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a topology, uncompiled"):
        as_tool(wrong, "solve", "Solves.")


@pytest.mark.parametrize("wrong", [{}, {"task": ""}, {"task": "x", "max_calls": 0}])
def test_a_wrong_call_is_told(wrong: Any) -> None:
    tool = as_tool(create_icrl(climber, nearness), "solve", "Solves.", task_data=SECRET)
    with pytest.raises(ValueError, match="task|max_calls"):
        tool.invoke(wrong)
