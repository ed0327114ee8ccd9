"""The nodes: prepare, build_context, generate, evaluate, reflect, select; each made by a factory from what it needs.

Every topology is a wiring of these. They work under `invoke` and `ainvoke` alike: those that pay are flows, performed
by the driver of `icrl_graph.execution.driver`.
"""

from __future__ import annotations

from icrl_graph.topologies.nodes.build_context import build_context_node
from icrl_graph.topologies.nodes.evaluate import evaluate_node
from icrl_graph.topologies.nodes.generate import generate_node, prompt
from icrl_graph.topologies.nodes.parts import (
    SCHEMA_VERSION,
    Chooser,
    Complete,
    Extract,
    Parts,
    check_schema_version,
    random_of,
)
from icrl_graph.topologies.nodes.prepare import check_task, check_task_data, prepare_node
from icrl_graph.topologies.nodes.reflect import reflect_node
from icrl_graph.topologies.nodes.select import select_node

__all__ = [
    "SCHEMA_VERSION",
    "Chooser",
    "Complete",
    "Extract",
    "Parts",
    "build_context_node",
    "check_schema_version",
    "check_task",
    "check_task_data",
    "evaluate_node",
    "generate_node",
    "prepare_node",
    "prompt",
    "random_of",
    "reflect_node",
    "select_node",
]
