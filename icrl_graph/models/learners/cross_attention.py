"""The network of the shipped learner of Game of 24, in numpy: looks every move up among the steps that were tried.

A move is a query, a tried step with its shown reward is a key and a value, and two layers of cross-attention say how
much better or worse than its base the move has become. What a move leaves is known to the network by a random code that
is drawn anew for every attempt. So it knows no arithmetic and can't have memorised a puzzle: that a code is the same
as one in the history is all there is to see, and all that it learns, it learns in the context.

`icrl_graph.meta_rl.game24` holds the same network in PyTorch, trains it, and writes the weights read here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np

from icrl_graph.models.learners.layers import Array, attend, feed_forward, heads, linear, load, norm

DEAD, ALIVE, NOT_SHOWN = 0, 1, 2
"""What a prompt may show of a step."""
GAIN = 4.0
"""How much the network's word counts beside the base's log-probability."""
UNLIKELY = -8.0
"""The least log-probability of a base that the network is told."""


@dataclass(frozen=True)
class Shape:
    """What the arrays of the network measure; stored with the weights."""

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


class CrossAttention:
    """Frozen weights and the forward pass.

    Args:
        path: the stored network; see `icrl_graph.models.learners.layers`.
    """

    def __init__(self, path: Traversable) -> None:
        shape, self.weights = load(path)
        self.shape = Shape(**shape)

    def read(
        self, history: Sequence[Token], code: Callable[[Hashable], Array]
    ) -> Callable[[int, Sequence[Hashable], Sequence[float]], Array]:
        """Read a history; gives a function (number of the step, moves, their log-probabilities) -> scores.

        Args:
            history: the steps that were tried.
            code: the code of a state, shape (width,), the same for the same state.
        """
        w, s = self.weights, self.shape
        tokens = w["none"][None]
        if history:
            number, before, after, shown = zip(*history, strict=True)
            tried = self._encode([*after, *before], code)
            told = w["shown"][list(shown)] + w["step"][list(number)]
            step = tried[: len(history)] + linear(w, "before", tried[len(history) :]) + told
            tokens = np.concatenate([tokens, step])
        tokens = norm(w, "token_norm", tokens)
        memory = [heads(linear(w, f"{i}.kv", tokens), s.heads, 2) for i in range(s.layers)]

        def scoring(number: int, options: Sequence[Hashable], base: Sequence[float]) -> Array:
            odds = np.maximum(np.array(base, dtype=np.float32), UNLIKELY)
            likely = np.stack([odds / 4, odds > -0.7], axis=-1).astype(np.float32)
            x = self._encode(options, code) + w["query_step"][number] + linear(w, "base", likely)
            for i, (key, value) in enumerate(memory):
                (query,) = heads(linear(w, f"{i}.query", norm(w, f"{i}.norm1", x)), s.heads)
                x = x + linear(w, f"{i}.out", attend(query, key, value))
                x = x + feed_forward(w, str(i), norm(w, f"{i}.norm2", x))
            scores: Array = odds + np.float32(GAIN) * linear(w, "head", norm(w, "norm", x))[:, 0]
            return scores

        return scoring

    def _encode(self, states: Sequence[Hashable], code: Callable[[Hashable], Array]) -> Array:
        return norm(self.weights, "code_norm", linear(self.weights, "code", np.stack([code(s) for s in states])))
