"""ICRL with episodes of many turns, as `icrl studio` serves it."""

from icrl_graph.topologies.studio_graphs import rollout as graph

__all__ = ["graph"]
