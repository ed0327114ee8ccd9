"""Best-of-N on hidden color, as `icrl studio` serves it."""

from icrl_graph.topologies.studio_graphs import best_of_n as graph

__all__ = ["graph"]
