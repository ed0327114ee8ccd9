"""A topology as a chat: messages in, messages out, as A2A, chat user interfaces and `RemoteGraph` speak it."""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import Field

from icrl_graph.state.episode import Output, answer_text
from icrl_graph.topologies.base import Graph


class ChatInput(MessagesState, total=False):
    """What a chat takes."""

    task_data: Annotated[dict[str, Any], Field(description="For the evaluator alone; stays until another is given.")]


class ChatOutput(MessagesState, Output):
    """What a chat gives."""


class ChatState(ChatInput, Output, total=False):
    """All that a chat's checkpoint holds beside the run, which is saved nested in it."""

    task: list[Any]


def as_chat(graph: Graph) -> StateGraph[ChatState, Any, ChatInput, ChatOutput]:
    """A graph that answers a conversation by a topology: each turn is a run, whose task is the conversation so far.

    The message that it says is the answer, with reward, usage and why the run ended in its
    `response_metadata["icrl"]`; without an answer it says why there is none. Settings come by
    `context={"rounds": 4}`, as for the topology itself. A run that waits for a person is gone on with by
    `Command(resume=...)`, one that broke off by `invoke(None, config)`.

    Args:
        graph: a topology, uncompiled.

    Returns:
        The graph, uncompiled; compiled with a checkpointer, a thread is a conversation.

    Raises:
        ValueError: it is not a topology of this package.
    """
    if not isinstance(graph, Graph):
        raise ValueError(f"a chat is made of a topology, uncompiled, such as create_icrl(...); got {graph!r:.80}")
    name = graph.parts.schema.namespace

    def ask(state: ChatState) -> dict[str, Any]:
        return {"task": state["messages"]}

    def say(state: ChatState) -> dict[str, Any]:
        told = {key: value for key, value in state.items() if key in Output.__annotations__ and key != "answer"}
        return {"messages": [AIMessage(answer_text(state), response_metadata={"icrl": told})]}

    chat = StateGraph(ChatState, graph.parts.schema, input_schema=ChatInput, output_schema=ChatOutput)
    chat.add_node("ask", ask)
    chat.add_node(name, graph.compile(name=name))
    chat.add_node("say", say)
    for step in ((START, "ask"), ("ask", name), (name, "say"), ("say", END)):
        chat.add_edge(*step)
    return chat
