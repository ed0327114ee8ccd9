"""Cross-episode meta-RL: how models are trained to learn in their context.

`credit` turns the returns of the episodes of a trial into advantages, and `tabular` is the smallest learner by them:
both are numpy. The rest needs PyTorch (the extra `train`).

`training.fit` is the training loop of all recipes. Each shipped learner has a module with its recipe, its teacher and
its network (`hidden_color`, `game24`, `game24_base`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _hidden_color() -> dict[str, Any]:
    from icrl_graph.meta_rl.hidden_color import Recipe, train

    return {"hidden_color.npz": (Recipe(), train)}


def _game24() -> dict[str, Any]:
    from icrl_graph.meta_rl import game24, game24_base

    bases = {f"game24_{name}.npz": (recipe, game24_base.train) for name, recipe in game24_base.RECIPES.items()}
    return {"game24.npz": (game24.Recipe(), game24.train), **bases}


RECIPES: Mapping[str, Callable[[], dict[str, Any]]] = {"hidden-color": _hidden_color, "game24": _game24}
"""The weight files of each shipped learner, each with its recipe and the function that runs it."""
