"""In a larger graph, with its checkpointer: Best-of-N as a node that writes a draft, ICRL as a tool of an agent."""

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from icrl_graph import create_best_of_n, create_icrl
from icrl_graph.state.episode import Input, Output
from icrl_graph.tasks.hidden_color import closeness, tasks
from icrl_graph.topologies.tool import as_tool

MODEL = "learner:hidden-color"  # a language model instead: MODEL = "openai:gpt-4.1-mini"
game = tasks(1, seed=7)[0]  # its task and task_data
solve = as_tool(create_icrl(MODEL, closeness, seed=0), "solve", "Solves a task well.", task_data=game["task_data"])


class State(MessagesState, Input, Output):
    """The messages, and the keys that the larger graph shares with a topology as its node: task, answer, reward, ..."""


def agent(state: State) -> dict[str, Any]:
    """Takes the place of a chat model with `bind_tools([solve])`: calls the tool if the draft is not good enough."""
    result = state["messages"][-1].text if state["messages"] else None
    if result or (state["reward"] or 0.0) >= 0.9:
        return {"messages": [AIMessage(f"The draft was {state['answer']}; I say {result or state['answer']}.")]}
    return {"messages": [AIMessage("", tool_calls=[{"name": "solve", "args": {"task": state["task"]}, "id": "1"}])]}


chat = StateGraph(State).add_node("draft", create_best_of_n(MODEL, closeness, n=4, seed=1).compile()).add_node(agent)
chat.add_node("tools", ToolNode([solve])).add_edge(START, "draft").add_edge("draft", "agent").add_edge("tools", "agent")
compiled: Any = chat.add_conditional_edges("agent", tools_condition).compile(checkpointer=InMemorySaver())
config = {"configurable": {"thread_id": "1"}}
for namespace, event in compiled.stream(game, config, stream_mode="custom", subgraphs=True):
    if event["type"] == "episode":
        print(namespace[0].partition(":")[0], event["round"], event["response"], event["reward"])
print(compiled.get_state(config).values["messages"][-1].text)
