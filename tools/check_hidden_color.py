"""The verifier of hidden color as a LangChain tool, for the node `evaluate` and for agents."""

from langchain_core.tools import tool as as_tool

from icrl_graph.state.reward import Reward
from icrl_graph.tasks.hidden_color import closeness


@as_tool("check_hidden_color")
def tool(response: str, task_data: dict[str, str]) -> Reward:
    """Say how close a guess is to the hidden color.

    Args:
        response: the guess, such as "#3b9".
        task_data: the game, such as {"secret": "#4a8"}.
    """
    return closeness(response, task_data)
