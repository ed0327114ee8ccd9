"""The games of one hidden instance as a benchmark: each attempt is an episode of the same instance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from icrl_graph.environments.games import GAMES, Games, task
from icrl_graph.environments.rollouts import rollout
from icrl_graph.models.policy import Policy

INSTANCES = 256
"""Of each game."""
LONGEST = max(entry.make.turns for entry in GAMES.values())


def items() -> list[str]:
    """The instances to evaluate on; any first part of them has about as many of each game."""
    return [f"{name}:test:{seed}" for seed in range(INSTANCES) for name in GAMES]


def read_item(text: str) -> dict[str, Any]:
    """The input of a graph for an instance such as "maze:test:17", also one of training.

    Raises:
        ValueError: it is not written like that, or there is no such game or split.
    """
    name, _, rest = text.strip().partition(":")
    split, _, seed = rest.partition(":")
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 9):
        raise ValueError(f"an instance of a game is written like 'maze:test:17', got {text!r}")
    return task(name, int(seed), split)  # type: ignore[arg-type]


def player(model: Any) -> Callable[..., Policy]:
    """What makes policies that play an episode; each game ends its own."""
    return partial(rollout, model, Games, max_steps=LONGEST)
