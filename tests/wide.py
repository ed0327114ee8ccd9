"""A custom method with several attempts a round."""

from typing import Any

from icrl_graph.topologies import Graph


def create_wide(model: Any, evaluator: Any, *, width: int = 3, rounds: int = 4, **options: Any) -> Graph:
    """Several attempts a round, all from one history."""
    graph = Graph(model, evaluator, width=width, rounds=rounds, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph
