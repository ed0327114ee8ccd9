"""The verifier of creative writing as a LangChain tool, for the node `evaluate` and for agents."""

from langchain_core.tools import tool as as_tool

from icrl_graph.state.reward import Reward
from icrl_graph.tasks.writing.verifier import endings


@as_tool("check_paragraphs")
def tool(response: str, task_data: dict[str, list[str]]) -> Reward:
    """Check exactly that each paragraph ends with its sentence.

    Args:
        response: the paragraphs, separated by empty lines.
        task_data: the sentences in the order of their paragraphs, such as {"endings": ["It rained.", "He left."]}.
    """
    return endings(response, task_data)
