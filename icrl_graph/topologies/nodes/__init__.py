"""The nodes: prepare, build_context, generate, evaluate, reflect, select; each made by a factory from what it needs.

Every topology is a wiring of these. They work under `invoke` and `ainvoke` alike: those that pay are flows, performed
by the driver of `icrl_graph.execution.driver`.
"""

from __future__ import annotations

from icrl_graph.environments.rollout import Stage
from icrl_graph.execution.node import TRACED, Straight, straight
from icrl_graph.models.responses import failure
from icrl_graph.topologies.nodes.build_context import build_context
from icrl_graph.topologies.nodes.evaluate import evaluate
from icrl_graph.topologies.nodes.generate import generate, prompt
from icrl_graph.topologies.nodes.parts import STATE_FORM, Chooser, Complete, Extract, Parts, check_form, random_of
from icrl_graph.topologies.nodes.prepare import check_task, prepare
from icrl_graph.topologies.nodes.reflect import reflect
from icrl_graph.topologies.nodes.select import select

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
