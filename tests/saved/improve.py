"""The runs that were saved by `improve`: what to call it with, and what is compared of what it gives."""

from typing import Any

from icrl_graph import FunctionModel, improve, llm_judge
from tests.saved import parts

TASK = "Find the number."


def run(topology: str, path: str) -> dict[str, Any]:
    """Run it, or what is left of it; gives its answer and its episodes without their costs."""
    judged = topology == "icrl"
    score: Any = llm_judge(FunctionModel(reply=parts.judge), "Is it near 42?") if judged else parts.nearness
    size: Any = {"n": 6} if topology == "best_of_n" else {"rounds": 6}
    own: Any = {"reward_label": "Points"} if judged else {}
    result = improve(TASK, score, model=parts.answer, topology=topology, seed=7, path=path, **size, **own)
    episodes = [{name: value for name, value in episode.items() if name != "costs"} for episode in result.episodes]
    calls = result.usage["calls"]
    return {
        "answer": result.answer,
        "reward": result.reward,
        "stopped": result.stopped,
        "calls": calls,
        "episodes": episodes,
    }
