"""LangGraph's reflection loop, as its tutorial has it.

https://langchain-ai.github.io/langgraph/tutorials/reflection/reflection/

The package langgraph-reflection (0.0.1, of 2025) is the same loop around two graphs; it is not used, as it needs mypy
where it runs and LangGraph 0.x. The tutorial's prompts are about essays; these ask for the same of any task.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from icrl_graph.state.selection import last_answered
from icrl_graph.topologies.programs import Host, foreign

ANSWER = (
    "Answer the user's request as well as you can. If the user responds with criticism, answer with a revised version "
    "of your previous attempt, and nothing else."
)
CRITICISE = (
    "You review answers. Criticise the answer to the request in detail, and recommend what to change to make it better."
)


@foreign("langgraph", calls=lambda rounds: 2 * rounds - 1, otherwise=last_answered)
def create_langgraph_reflection(host: Host) -> str:
    """LangGraph's reflection loop: the model criticises its answer and writes it anew; it sees no reward."""
    model = host.chat_model()

    def generate(state: MessagesState) -> dict[str, Any]:
        answer = model.invoke([SystemMessage(ANSWER), *state["messages"]])
        host.judge(answer.text)  # the loop does not see it
        return {"messages": [answer]}

    def reflect(state: MessagesState) -> dict[str, Any]:
        request, *turns = state["messages"]
        swapped = [(AIMessage if turn.type == "human" else HumanMessage)(turn.text) for turn in turns]
        criticism = model.invoke([SystemMessage(CRITICISE), request, *swapped])
        return {"messages": [HumanMessage(criticism.text)]}

    def is_enough(state: MessagesState) -> str:
        return END if len(state["messages"]) >= 2 * host.rounds else "reflect"

    graph = StateGraph(MessagesState)
    graph.add_node("generate", generate)
    graph.add_node("reflect", reflect)
    graph.add_edge(START, "generate")
    graph.add_conditional_edges("generate", is_enough, ["reflect", END])
    graph.add_edge("reflect", "generate")
    asked: Any = {"messages": [HumanMessage(host.task)]}
    state = graph.compile().invoke(asked, {"recursion_limit": 4 * host.rounds})
    answer: str = state["messages"][-1].text
    return answer
