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
    from icrl_graph.ablations import shuffled
    from icrl_graph.context import parse, render
    from icrl_graph.errors import BudgetExceeded, IcrlError, MissingExtra, ModelError, ThreadMismatch, UnknownTask
    from icrl_graph.events import EpisodeEvent
    from icrl_graph.improvement import Result, aimprove, improve
    from icrl_graph.journal import Journal
    from icrl_graph.judge import judge_game24, llm_judge, pairwise_judge
    from icrl_graph.models import FunctionModel, chat_model
    from icrl_graph.pace import Pace
    from icrl_graph.rewards import Reward
    from icrl_graph.settings import Settings
    from icrl_graph.state import Episode, best
    from icrl_graph.tables import SqliteJournal
    from icrl_graph.topologies import create_best_of_n, create_icrl, create_reflexion, create_self_refine

__version__ = "0.1.0"

_HOME = {
    "BudgetExceeded": "errors",
    "Episode": "state",
    "EpisodeEvent": "events",
    "FunctionModel": "models",
    "IcrlError": "errors",
    "Journal": "journal",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "Pace": "pace",
    "Result": "improvement",
    "Reward": "rewards",
    "Settings": "settings",
    "SqliteJournal": "tables",
    "ThreadMismatch": "errors",
    "UnknownTask": "errors",
    "aimprove": "improvement",
    "best": "state",
    "chat_model": "models",
    "create_best_of_n": "topologies",
    "create_icrl": "topologies",
    "create_reflexion": "topologies",
    "create_self_refine": "topologies",
    "improve": "improvement",
    "judge_game24": "judge",
    "llm_judge": "judge",
    "pairwise_judge": "judge",
    "parse": "context",
    "render": "context",
    "shuffled": "ablations",
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
    "Pace",
    "Result",
    "Reward",
    "Settings",
    "SqliteJournal",
    "ThreadMismatch",
    "UnknownTask",
    "aimprove",
    "best",
    "chat_model",
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
