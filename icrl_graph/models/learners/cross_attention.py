"""The network of the shipped learner of Game of 24, in numpy: looks every move up among the steps that were tried.

A move is a query, a tried step with its shown reward is a key and a value, and two layers of cross-attention compute
how much better or worse than its base the move is. What a move leaves is encoded by a random code, drawn anew for every
attempt. So the network knows no arithmetic and can't have memorised a puzzle: that a code is the same as one in the
history is all there is to see, and all that it learns, it learns in the context.

`icrl_graph.meta_rl.game24` holds the same network in PyTorch, trains it, and writes the weights read here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np

from icrl_graph.models.learners.layers import Array, Network, attend, split_heads

DEAD, ALIVE, NOT_SHOWN = 0, 1, 2
"""What a prompt may show of a step."""
GAIN = 4.0
"""Weight of the network's output beside the base's log-probability."""
UNLIKELY = -8.0
"""Lower log-probabilities of a base count as this one."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; stored with the weights."""

    steps: int = 3
    """Steps of an attempt."""
    width: int = 64
    layers: int = 2
    heads: int = 4


class Token(NamedTuple):
    """A step that was tried."""

    number: int
    before: Hashable
    after: Hashable
    shown: int


class CrossAttention(Network):
    """The stored network and its forward pass.

    Args:
        path: the file of its weights.
    """

    def __init__(self, path: Traversable) -> None:
        super().__init__(path)
        self.shape = Shape(**self.sizes)

    def read(
        self, history: Sequence[Token], code: Callable[[Hashable], Array]
    ) -> Callable[[int, Sequence[Hashable], Sequence[float]], Array]:
        """Read a history; gives a function (number of the step, moves, their log-probabilities) -> scores.

        Args:
            history: the steps that were tried.
            code: the code of a state, shape (width,), the same for the same state.
        """
        w, shape = self.weights, self.shape
        tokens = w["none"][None]
        if history:
            number, before, after, shown = zip(*history, strict=True)
            tried = self._encode([*after, *before], code)
            step = w["shown"][list(shown)] + w["step"][list(number)]
            step = tried[: len(history)] + self.linear("before", tried[len(history) :]) + step
            tokens = np.concatenate([tokens, step])
        tokens = self.norm("token_norm", tokens)
        memory = [split_heads(self.linear(f"{i}.kv", tokens), shape.heads, 2) for i in range(shape.layers)]

        def scoring(number: int, options: Sequence[Hashable], base: Sequence[float]) -> Array:
            odds = np.maximum(np.array(base, dtype=np.float32), UNLIKELY)
            likely = np.stack([odds / 4, odds > -0.7], axis=-1).astype(np.float32)
            x = self._encode(options, code) + w["query_step"][number] + self.linear("base", likely)
            for i, (key, value) in enumerate(memory):
                (query,) = split_heads(self.linear(f"{i}.query", self.norm(f"{i}.norm1", x)), shape.heads)
                x = x + self.linear(f"{i}.out", attend(query, key, value))
                x = x + self.feed_forward(str(i), self.norm(f"{i}.norm2", x))
            scores: Array = odds + np.float32(GAIN) * self.head(x)[:, 0]
            return scores

        return scoring

    def _encode(self, states: Sequence[Hashable], code: Callable[[Hashable], Array]) -> Array:
        return self.norm("code_norm", self.linear("code", np.stack([code(state) for state in states])))
