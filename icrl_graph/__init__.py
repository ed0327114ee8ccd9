"""Reward-driven self-improvement of language models at inference time, as LangGraph graphs.

    from icrl_graph import improve

    result = improve(task, score, model="openai:gpt-4.1-mini", rounds=8)

`create_icrl` and its siblings give the graphs themselves. Names are loaded when they are first used, so importing the
package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.api import Result, aimprove, improve
    from icrl_graph.benchmarks.api import compare
    from icrl_graph.benchmarks.judges import judge_game24
    from icrl_graph.errors import BudgetExceeded, IcrlError, MissingExtra, ModelError, ThreadMismatch, UnknownTask
    from icrl_graph.evaluators.judge import llm_judge, pairwise_judge
    from icrl_graph.execution.journal import Journal
    from icrl_graph.execution.rate_limit import RateLimit
    from icrl_graph.execution.sql_journals import SqliteJournal
    from icrl_graph.models.function import FunctionModel
    from icrl_graph.models.registry import chat_model
    from icrl_graph.prompts.ablations import shuffled
    from icrl_graph.prompts.layouts import parse, render
    from icrl_graph.state.episode import Episode
    from icrl_graph.state.events import EpisodeEvent
    from icrl_graph.state.reward import Reward
    from icrl_graph.state.selection import best
    from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion, create_self_refine
    from icrl_graph.topologies.settings import Settings

__version__ = "0.1.0"

_HOME = {
    "BudgetExceeded": "errors",
    "Episode": "state.episode",
    "EpisodeEvent": "state.events",
    "FunctionModel": "models.function",
    "IcrlError": "errors",
    "Journal": "execution.journal",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "RateLimit": "execution.rate_limit",
    "Result": "api",
    "Reward": "state.reward",
    "Settings": "topologies.settings",
    "SqliteJournal": "execution.sql_journals",
    "ThreadMismatch": "errors",
    "UnknownTask": "errors",
    "aimprove": "api",
    "best": "state.selection",
    "chat_model": "models.registry",
    "compare": "benchmarks.api",
    "create_best_of_n": "topologies.methods",
    "create_icrl": "topologies.methods",
    "create_reflexion": "topologies.methods",
    "create_self_refine": "topologies.methods",
    "improve": "api",
    "judge_game24": "benchmarks.judges",
    "llm_judge": "evaluators.judge",
    "pairwise_judge": "evaluators.judge",
    "parse": "prompts.layouts",
    "render": "prompts.layouts",
    "shuffled": "prompts.ablations",
}

__all__ = [
    "BudgetExceeded",
    "Episode",
    "EpisodeEvent",
    "FunctionModel",
    "IcrlError",
    "Journal",
    "MissingExtra",
    "ModelError",
    "RateLimit",
    "Result",
    "Reward",
    "Settings",
    "SqliteJournal",
    "ThreadMismatch",
    "UnknownTask",
    "aimprove",
    "best",
    "chat_model",
    "compare",
    "create_best_of_n",
    "create_icrl",
    "create_reflexion",
    "create_self_refine",
    "improve",
    "judge_game24",
    "llm_judge",
    "pairwise_judge",
    "parse",
    "render",
    "shuffled",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
