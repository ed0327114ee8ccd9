"""The methods, each one wiring of the same nodes, and what custom ones are made of.

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.topologies.base import Graph, send_attempts
    from icrl_graph.topologies.methods import (
        TOPOLOGIES,
        build,
        create_best_of_n,
        create_icrl,
        create_reflexion,
        create_self_refine,
        find_topology,
    )
    from icrl_graph.topologies.programs import Host, foreign
    from icrl_graph.topologies.revision import arevise, revise
    from icrl_graph.topologies.settings import BestOfNSettings, RunSettings, Settings
    from icrl_graph.topologies.tool import as_tool

_HOME = {
    "BestOfNSettings": "settings",
    "Graph": "base",
    "Host": "programs",
    "RunSettings": "settings",
    "Settings": "settings",
    "TOPOLOGIES": "methods",
    "arevise": "revision",
    "as_tool": "tool",
    "build": "methods",
    "create_best_of_n": "methods",
    "create_icrl": "methods",
    "create_reflexion": "methods",
    "create_self_refine": "methods",
    "find_topology": "methods",
    "foreign": "programs",
    "revise": "revision",
    "send_attempts": "base",
}

__all__ = [
    "TOPOLOGIES",
    "BestOfNSettings",
    "Graph",
    "Host",
    "RunSettings",
    "Settings",
    "arevise",
    "as_tool",
    "build",
    "create_best_of_n",
    "create_icrl",
    "create_reflexion",
    "create_self_refine",
    "find_topology",
    "foreign",
    "revise",
    "send_attempts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
