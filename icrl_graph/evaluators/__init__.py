"""Evaluators: the sources of rewards. Names are loaded when they are first used, as in `icrl_graph`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.evaluators.evaluator import BoundEvaluator, bind_evaluator
    from icrl_graph.evaluators.human import human_reward, reviewed
    from icrl_graph.evaluators.isolation import isolated
    from icrl_graph.evaluators.judge import llm_judge, pairwise_judge
    from icrl_graph.evaluators.likelihood import likelihood_judge
    from icrl_graph.state.reward import Reward

_HOME = {
    "BoundEvaluator": "evaluators.evaluator",
    "Reward": "state.reward",
    "bind_evaluator": "evaluators.evaluator",
    "human_reward": "evaluators.human",
    "isolated": "evaluators.isolation",
    "likelihood_judge": "evaluators.likelihood",
    "llm_judge": "evaluators.judge",
    "pairwise_judge": "evaluators.judge",
    "reviewed": "evaluators.human",
}

__all__ = [
    "BoundEvaluator",
    "Reward",
    "bind_evaluator",
    "human_reward",
    "isolated",
    "likelihood_judge",
    "llm_judge",
    "pairwise_judge",
    "reviewed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"icrl_graph.{_HOME[name]}"), name)
