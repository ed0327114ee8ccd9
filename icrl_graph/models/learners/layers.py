"""What the learners' networks share, in numpy: stored arrays, and the layers computed with them.

`icrl_graph.meta_rl.layers` holds the same in PyTorch. Nothing is learned here: the weights never change, whatever is
learned is learned in the context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def shipped(name: str) -> Traversable:
    """Where a shipped network is stored, such as "hidden_color.npz"."""
    return files("icrl_graph.models.learners") / name


def load(path: Traversable) -> tuple[dict[str, Any], dict[str, Array]]:
    """The shape and the arrays of a network that `icrl_graph.meta_rl.layers.export` wrote."""
    with path.open("rb") as file, np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(bytes(arrays.pop("shape"))), {name: array.astype(np.float32) for name, array in arrays.items()}


def linear(w: Mapping[str, Array], name: str, x: Array) -> Array:
    """A dense layer."""
    return x @ w[name] + w[f"{name}_bias"]


def norm(w: Mapping[str, Array], name: str, x: Array) -> Array:
    """Layer normalisation."""
    scale, shift = w[name]
    mean = x.mean(axis=-1, keepdims=True)
    centered = x - mean
    deviation = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    result: Array = centered / deviation * scale + shift
    return result


def feed_forward(w: Mapping[str, Array], name: str, x: Array) -> Array:
    """Two dense layers with a ReLU between them."""
    return linear(w, f"{name}.down", np.maximum(linear(w, f"{name}.up", x), 0))


def heads(x: Array, count: int, parts: int = 1) -> Any:
    """(positions, parts * width) -> `parts` arrays (heads, positions, width of a head)."""
    return x.reshape(len(x), parts, count, -1).transpose(1, 2, 0, 3)


def attend(query: Array, key: Array, value: Array, hidden: Array | None = None) -> Array:
    """Mix the values by how well their keys fit the queries; the heads side by side again: (positions, width).

    Args:
        query: (heads, positions, width of a head).
        key: (heads, positions to attend to, width of a head).
        value: as key.
        hidden: added to the scores, minus infinity where a query must not look.
    """
    scores = query @ key.transpose(0, 2, 1) / np.float32(query.shape[-1] ** 0.5)
    odds = softmax(scores if hidden is None else scores + hidden)
    return (odds @ value).transpose(1, 0, 2).reshape(query.shape[1], -1)


def softmax(scores: Array) -> Array:
    """Odds of the last axis, summing to 1."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Array = raised / raised.sum(axis=-1, keepdims=True)
    return result
