"""The base policies of Game of 24, in numpy: a small network that values what a move leaves, from the numbers alone.

It sums an encoding of each number (a learned one, and its size and remainders), and scores the sum. How good it is
depends on how many puzzles it was trained on; `icrl_graph.meta_rl.game24_base` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np

from icrl_graph.models.learners.layers import Array, Network

MODULI = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 24, 50)


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; stored with the weights."""

    numbers: int = 128
    """Each number below this has its own encoding; all others share one."""
    width: int = 48
    layers: int = 2


class Valuation(Network):
    """The stored network and its forward pass.

    Args:
        path: the file of its weights.
    """

    def __init__(self, path: Traversable) -> None:
        super().__init__(path)
        self.shape = Shape(**self.sizes)

    def values(self, states: Sequence[Sequence[int]]) -> Array:
        """How promising each state looks, as scores; all states hold as many numbers."""
        numbers = np.array(states)
        x = self.weights["number"][np.minimum(numbers, self.shape.numbers)] + self.linear("feature", features(numbers))
        x = (x + self.linear("mix", np.maximum(x, 0))).sum(axis=1)
        for i in range(self.shape.layers):
            x = x + self.feed_forward(str(i), self.norm(f"{i}.norm", x))
        scores: Array = self.head(x)[:, 0]
        return scores


def features(numbers: np.ndarray) -> Array:
    """Size and remainders of numbers, shape (..., 2 + 2 * len(MODULI))."""
    size = numbers.astype(np.float32)
    columns = [np.minimum(size / 24, 8), np.log(size + 1)]
    for modulus in MODULI:
        turn = 2 * np.pi * size / modulus
        columns += [np.sin(turn), np.cos(turn)]
    return np.stack(columns, axis=-1).astype(np.float32)
