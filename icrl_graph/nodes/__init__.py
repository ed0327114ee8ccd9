"""The nodes: prepare, build_context, generate, evaluate, reflect, select; each made by a factory from what it needs.

Every topology is a wiring of these. They work under `invoke` and `ainvoke` alike: those that pay are flows, performed
by the driver of `icrl_graph.driver`.
"""

from __future__ import annotations

from icrl_graph.nodes.answering import Stage, failure, generate, prompt
from icrl_graph.nodes.beginning import check_task, prepare
from icrl_graph.nodes.judging import evaluate
from icrl_graph.nodes.parts import (
    STATE_FORM,
    TRACED,
    Chooser,
    Complete,
    Extract,
    Parts,
    Straight,
    check_form,
    random_of,
    straight,
)
from icrl_graph.nodes.planning import build_context
from icrl_graph.nodes.reflecting import reflect
from icrl_graph.nodes.selecting import select

__all__ = [
    "STATE_FORM",
    "TRACED",
    "Chooser",
    "Complete",
    "Extract",
    "Parts",
    "Stage",
    "Straight",
    "build_context",
    "check_form",
    "check_task",
    "evaluate",
    "failure",
    "generate",
    "prepare",
    "prompt",
    "random_of",
    "reflect",
    "select",
    "straight",
]
