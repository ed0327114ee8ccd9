"""The base policies of Game of 24, in numpy: a small network that values what a move leaves, from the numbers alone.

It sums an encoding of each number (a learned one, and its size and remainders), and says how promising the sum looks.
How good it is depends on how many puzzles it was trained on; `icrl_graph.meta_rl.game24_base` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np

from icrl_graph.models.learners.layers import Array, feed_forward, linear, load, norm

MODULI = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 24, 50)


@dataclass(frozen=True)
class Shape:
    """What the arrays of the network measure; stored with the weights."""

    numbers: int = 128
    """Numbers below this have an encoding of their own, all others share one."""
    width: int = 48
    layers: int = 2


class Valuation:
    """Frozen weights and the forward pass.

    Args:
        path: the stored network; see `icrl_graph.models.learners.layers`.
    """

    def __init__(self, path: Traversable) -> None:
        shape, self.weights = load(path)
        self.shape = Shape(**shape)

    def values(self, states: Sequence[Sequence[int]]) -> Array:
        """How promising each state looks, as scores; all states hold as many numbers."""
        w, s = self.weights, self.shape
        numbers = np.array(states)
        x = w["number"][np.minimum(numbers, s.numbers)] + linear(w, "feature", features(numbers))
        x = (x + linear(w, "mix", np.maximum(x, 0))).sum(axis=1)
        for i in range(s.layers):
            x = x + feed_forward(w, str(i), norm(w, f"{i}.norm", x))
        result: Array = linear(w, "head", norm(w, "norm", x))[:, 0]
        return result


def features(numbers: np.ndarray) -> Array:
    """Size and remainders of numbers, shape (..., 2 + 2 * len(MODULI))."""
    size = numbers.astype(np.float32)
    told = [np.minimum(size / 24, 8), np.log(size + 1)]
    for modulus in MODULI:
        turn = 2 * np.pi * size / modulus
        told += [np.sin(turn), np.cos(turn)]
    return np.stack(told, axis=-1).astype(np.float32)
