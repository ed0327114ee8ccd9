"""ICRL as a chat, as `icrl studio` serves it."""

from icrl_graph.topologies.studio_graphs import chat as graph

__all__ = ["graph"]
