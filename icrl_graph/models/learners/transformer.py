"""The network of the shipped learner of hidden color, in numpy: reads guesses and rewards, samples the next guess.

A pre-LN causal transformer. Every digit of every guess is one position, whose input is the sum of five embeddings: the
digit before it in this guess, the digit at the same place in the guess before, the reward of the guess before, its
place, and its round. So one position sees what was tried, its reward, and what is being tried now. The history is read
in one pass, then the digits of the new guess follow one at a time over cached keys and values.

`icrl_graph.meta_rl.hidden_color` holds the same network in PyTorch, trains it, and writes the weights read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from random import Random

import numpy as np

from icrl_graph.models.learners.layers import Array, Network, attend, split_heads

Attempt = tuple[Sequence[int], int | None]
"""The digits of a guess and its reward level, None if none was shown."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; stored with the weights."""

    places: int = 3
    """Digits of a guess."""
    digits: int = 16
    """Values of a digit; index `digits` means "none"."""
    levels: int = 21
    """Reward levels; index `levels` means "none"."""
    rounds: int = 8
    """Guesses in one window: `rounds` - 1 that were made, and the next one."""
    width: int = 64
    layers: int = 3
    heads: int = 4


class Transformer(Network):
    """The stored network and its forward pass.

    Args:
        path: the file of its weights.
    """

    def __init__(self, path: Traversable) -> None:
        super().__init__(path)
        self.shape = Shape(**self.sizes)

    def guess(self, history: Sequence[Attempt], rng: Random, temperature: float = 1.0) -> list[int]:
        """Sample the next guess; of a history longer than the window, the last part is read.

        Args:
            history: earlier guesses in the order shown, each with its reward level.
            rng: source of the sampling.
            temperature: 0 takes the likeliest digit, 1 samples as trained.
        """
        chosen: list[int] = []
        cache: list[tuple[Array, Array]] = []
        inputs = self._inputs(history[-(self.shape.rounds - 1) :])
        for place in range(self.shape.places):
            logits = self._forward(inputs, cache)
            chosen.append(_sample(logits, rng, temperature))
            if place + 1 < self.shape.places:
                inputs = self._next_input(history, chosen)
        return chosen

    def logits(self, history: Sequence[Attempt], chosen: Sequence[int] = ()) -> Array:
        """Scores of the next digit, shape (digits,), for a guess whose first digits are already chosen."""
        cache: list[tuple[Array, Array]] = []
        scores = self._forward(self._inputs(history[-(self.shape.rounds - 1) :]), cache)
        for place in range(len(chosen)):
            scores = self._forward(self._next_input(history, chosen[: place + 1]), cache)
        return scores

    def _inputs(self, history: Sequence[Attempt]) -> Array:
        """Inputs of all positions of the history and of the first digit of the next guess: (positions, width)."""
        s = self.shape
        none = ([s.digits] * s.places, None)
        rows = []
        for number, (before, current) in enumerate(zip([none, *history], [*history, none], strict=True)):
            digits = [s.digits, *current[0][:-1]]
            places = s.places if number < len(history) else 1
            rows += [self._embed(digits[i], before, i, number) for i in range(places)]
        return np.stack(rows)

    def _next_input(self, history: Sequence[Attempt], chosen: Sequence[int]) -> Array:
        window = history[-(self.shape.rounds - 1) :]
        before: Attempt = window[-1] if window else ([self.shape.digits] * self.shape.places, None)
        return self._embed(chosen[-1], before, len(chosen), len(window))[None]

    def _embed(self, digit: int, before: Attempt, place: int, number: int) -> Array:
        w, (guess, reward) = self.weights, before
        total: Array = (
            w["digit"][digit]
            + w["before"][guess[place]]
            + w["reward"][self.shape.levels if reward is None else reward]
            + w["place"][place]
            + w["round"][number]
        )
        return total

    def _forward(self, x: Array, cache: list[tuple[Array, Array]]) -> Array:
        """Pass new positions (positions, width) through all layers, extending the cache; scores of the last one."""
        shape = self.shape
        past = cache[0][0].shape[1] if cache else 0
        mask = np.triu(np.full((len(x), past + len(x)), -np.inf, dtype=np.float32), k=past + 1)
        for i in range(shape.layers):
            q, k, v = split_heads(self.linear(f"{i}.qkv", self.norm(f"{i}.norm1", x)), shape.heads, 3)
            if len(cache) > i:
                k, v = np.concatenate([cache[i][0], k], axis=1), np.concatenate([cache[i][1], v], axis=1)
                cache[i] = k, v
            else:
                cache.append((k, v))
            x = x + self.linear(f"{i}.out", attend(q, k, v, mask))
            x = x + self.feed_forward(str(i), self.norm(f"{i}.norm2", x))
        return self.head(x[-1])


def _sample(logits: Array, rng: Random, temperature: float) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    odds = np.exp((logits - logits.max()) / temperature)
    return rng.choices(range(len(odds)), weights=odds.tolist())[0]
