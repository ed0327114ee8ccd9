"""The layers of the shipped networks in numpy, over stored arrays; inference only.

`icrl_graph.meta_rl.layers` holds the same in PyTorch. Nothing is learned here: the weights never change, whatever is
learned is learned in the context.
"""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def shipped(name: str) -> Traversable:
    """Where a shipped network is stored, such as "hidden_color.npz"."""
    return files(__package__) / name


class Network:
    """The arrays of a network and the layers computed with them.

    Args:
        path: the file that `icrl_graph.meta_rl.layers.export` wrote.
    """

    def __init__(self, path: Traversable) -> None:
        with path.open("rb") as file, np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        self.sizes: dict[str, Any] = json.loads(bytes(arrays.pop("shape")))
        self.weights: dict[str, Array] = {name: array.astype(np.float32) for name, array in arrays.items()}

    def linear(self, name: str, x: Array) -> Array:
        """A dense layer."""
        return x @ self.weights[name] + self.weights[f"{name}_bias"]

    def norm(self, name: str, x: Array) -> Array:
        """Layer normalisation."""
        scale, shift = self.weights[name]
        centered = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + np.float32(1e-5))
        normalized: Array = centered / deviation * scale + shift
        return normalized

    def feed_forward(self, name: str, x: Array) -> Array:
        """Two dense layers with a ReLU between them."""
        return self.linear(f"{name}.down", np.maximum(self.linear(f"{name}.up", x), 0))

    def head(self, x: Array) -> Array:
        """The scores of the last axis: a layer normalisation and a dense layer."""
        return self.linear("head", self.norm("norm", x))


def split_heads(x: Array, count: int, parts: int = 1) -> Any:
    """(positions, parts * width) -> `parts` arrays (heads, positions, width of a head)."""
    return x.reshape(len(x), parts, count, -1).transpose(1, 2, 0, 3)


def attend(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Mix the values by attention and join the heads: (positions, width).

    Args:
        query: (heads, positions, width of a head).
        key: (heads, positions to attend to, width of a head).
        value: as key.
        mask: added to the scores, minus infinity where a query must not look.
    """
    scores = query @ key.transpose(0, 2, 1) / np.float32(query.shape[-1] ** 0.5)
    odds = softmax(scores if mask is None else scores + mask)
    return (odds @ value).transpose(1, 0, 2).reshape(query.shape[1], -1)


def softmax(scores: Array) -> Array:
    """Odds of the last axis, summing to 1."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Array = raised / raised.sum(axis=-1, keepdims=True)
    return result
