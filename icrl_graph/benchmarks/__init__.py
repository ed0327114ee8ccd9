"""Benchmarks, arms, comparisons and reports. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.benchmarks.api import Comparison, compare
    from icrl_graph.benchmarks.arms import Arm, read_arms
    from icrl_graph.benchmarks.benchmark import Benchmark, from_data, from_file
    from icrl_graph.benchmarks.registry import BENCHMARKS, find_benchmark
    from icrl_graph.benchmarks.reproduction import reproduce

_MODULES = {
    "Arm": "arms",
    "BENCHMARKS": "registry",
    "Benchmark": "benchmark",
    "Comparison": "api",
    "compare": "api",
    "find_benchmark": "registry",
    "from_data": "benchmark",
    "from_file": "benchmark",
    "read_arms": "arms",
    "reproduce": "reproduction",
}
__all__ = [
    "BENCHMARKS",
    "Arm",
    "Benchmark",
    "Comparison",
    "compare",
    "find_benchmark",
    "from_data",
    "from_file",
    "read_arms",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
