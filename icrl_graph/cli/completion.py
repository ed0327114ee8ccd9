"""The names that a shell completes; each function imports what it needs only when it is called."""

from __future__ import annotations


def topology_names() -> list[str]:
    """Topologies, shipped and of installed packages."""
    from icrl_graph.state.choices import installed
    from icrl_graph.topologies.methods import TOPOLOGIES

    return [*TOPOLOGIES, *installed("topology")]


def benchmark_names() -> list[str]:
    """Benchmarks, shipped and of installed packages."""
    from icrl_graph.benchmarks.registry import BENCHMARKS
    from icrl_graph.state.choices import installed

    return [*BENCHMARKS, *installed("benchmark")]


def table_names() -> list[str]:
    """The tables that can be reproduced."""
    from icrl_graph.benchmarks.reproduction.presets import TABLES

    return [*TABLES]


def item_prefixes() -> list[str]:
    """Benchmarks, as an item begins."""
    return [f"{name}:" for name in benchmark_names()]


def model_names() -> list[str]:
    """Learners, the local model, and the providers that need no further package."""
    from icrl_graph.models.learners import LEARNERS

    return ["openai:", "local:smollm2", "local:icrl-smollm2", *(f"learner:{name}" for name in LEARNERS)]
