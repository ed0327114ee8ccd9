"""The methods, each one wiring of the same nodes."""

from icrl_graph.topologies.methods import (
    TOPOLOGIES,
    Graph,
    create_best_of_n,
    create_icrl,
    create_reflexion,
    create_self_refine,
)

__all__ = ["TOPOLOGIES", "Graph", "create_best_of_n", "create_icrl", "create_reflexion", "create_self_refine"]
