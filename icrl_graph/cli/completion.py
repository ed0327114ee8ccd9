"""What a shell completes names with; each function imports what it needs only when it is called."""

from __future__ import annotations


def complete_topology() -> list[str]:
    """Names of topologies."""
    from icrl_graph.state.choices import installed
    from icrl_graph.topologies.methods import TOPOLOGIES

    return [*TOPOLOGIES, *installed("topology")]


def complete_benchmark() -> list[str]:
    """Names of benchmarks."""
    from icrl_graph.benchmarks.registry import BENCHMARKS
    from icrl_graph.state.choices import installed

    return [*BENCHMARKS, *installed("benchmark")]


def complete_item() -> list[str]:
    """The beginnings of items of benchmarks."""
    return [f"{name}:" for name in complete_benchmark()]


def complete_model() -> list[str]:
    """Learners, and the beginnings of other models' names."""
    from icrl_graph.models.learners import LEARNERS

    return ["openai:", *(f"learner:{name}" for name in LEARNERS)]
