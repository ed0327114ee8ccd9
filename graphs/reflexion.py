"""Reflexion on hidden color, as `icrl studio` serves it."""

from icrl_graph.topologies.studio_graphs import reflexion as graph

__all__ = ["graph"]
