"""What the promises are tried over: methods, sync and async."""

import asyncio
from collections.abc import Callable
from typing import Any

from icrl_graph import aimprove, improve
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.wide import create_wide

METHODS: dict[str, Callable[..., Any]] = {**TOPOLOGIES, "wide": create_wide}
WAYS: dict[str, Callable[..., Any]] = {
    "sync": improve,
    "async": lambda *args, **options: asyncio.run(aimprove(*args, **options)),
}


def size(method: str, attempts: int) -> dict[str, int]:
    """The option that sets how many attempts a method makes, or rounds of three."""
    return {"n": attempts} if method == "best_of_n" else {"rounds": attempts}
