"""Self-Refine on hidden color, as `icrl studio` serves it."""

from icrl_graph.topologies.studio_graphs import self_refine as graph

__all__ = ["graph"]
