"""What the promises are tried over: methods, sync and async."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field

from icrl_graph import aimprove, improve
from icrl_graph.topologies import Graph, Settings
from icrl_graph.topologies.methods import TOPOLOGIES


class WideSettings(Settings):
    namespace: ClassVar[str] = "wide"
    width: int = Field(default=3, ge=1, description="Attempts a round, side by side.")


def create_wide(model: Any, evaluator: Any, *, width: int = 3, rounds: int = 4, **options: Any) -> Graph:
    """Several attempts a round, all from one history."""
    graph = Graph(model, evaluator, base=WideSettings, width=width, rounds=rounds, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph


METHODS: dict[str, Callable[..., Any]] = {**TOPOLOGIES, "wide": create_wide}
WAYS: dict[str, Callable[..., Any]] = {
    "sync": improve,
    "async": lambda *args, **options: asyncio.run(aimprove(*args, **options)),
}


def size(method: str, attempts: int) -> dict[str, int]:
    """The option that sets how many attempts a method makes, or rounds of three."""
    return {"n": attempts} if method == "best_of_n" else {"rounds": attempts}
