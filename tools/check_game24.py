"""The verifier of Game of 24 as a LangChain tool, for the node `evaluate` and for agents."""

from langchain_core.tools import tool as as_tool

from icrl_graph.state.reward import Reward
from icrl_graph.tasks.game24.verifier import grade


@as_tool("check_game24")
def tool(response: str, task_data: dict[str, list[int]]) -> Reward:
    """Check an answer to Game of 24 exactly.

    Args:
        response: the answer: steps and an expression, or an expression alone.
        task_data: the puzzle, such as {"numbers": [4, 5, 6, 10]}.
    """
    return grade(response, task_data)
