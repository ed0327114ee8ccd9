"""The shipped learner of Game of 24: reads a prompt, answers with its next attempt in the text form of the benchmark.

It reads the prompt that a chat model would get: the steps and rewards in it are all it knows. So every
memory, layout, ablation and topology acts on it as on any model. With a base policy, "weak" or "strong", it starts
from that policy's knowledge of the game; without one it knows no arithmetic but which steps are legal.

Its limits: it plays this one game and does not read English. See `game24.md` in this folder.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from random import Random
from typing import Literal

import numpy as np

from icrl_graph.models.learners.cross_attention import ALIVE, DEAD, NOT_SHOWN, CrossAttention, Token
from icrl_graph.models.learners.layers import Array, shipped, softmax
from icrl_graph.models.learners.valuation import Valuation
from icrl_graph.tasks.game24 import game as game24
from icrl_graph.tasks.game24.game import Base, Numbers, Reply, Scoring, Tried

Strength = Literal["none", "weak", "strong"]

BASE_TEMPERATURES: dict[Strength, float] = {"weak": 3.0, "strong": 1.0}
"""Sampling temperatures of the shipped base policies: the weak one is overconfident."""


@cache
def reply(strength: Strength = "none") -> Reply:
    """The learner on a base policy, as a function that answers prompts."""
    return game24.player(recall, base(strength))


@cache
def base(strength: Strength) -> Base:
    """A base policy: "weak" was trained on 5 puzzles, "strong" on 846; "none" takes any move alike."""
    if strength == "none":
        return game24.no_base
    valuation, temperature = Valuation(shipped(f"game24_{strength}.npz")), BASE_TEMPERATURES[strength]

    @cache
    def log_odds(options: tuple[Numbers, ...]) -> tuple[float, ...]:
        return tuple(np.log(softmax(valuation.values(options) / temperature) + 1e-9).tolist())

    return lambda options: log_odds(tuple(options))


@cache
def _network() -> CrossAttention:
    return CrossAttention(shipped("game24.npz"))


def recall(history: Sequence[Tried], rng: Random) -> Scoring:
    """The trained rule: the network's scores by the history."""
    network = _network()
    generator = np.random.default_rng(rng.getrandbits(64))
    codes: dict[Hashable, Array] = {}

    def code(state: Hashable) -> Array:
        if state not in codes:
            codes[state] = generator.standard_normal(network.shape.width, dtype=np.float32)
        return codes[state]

    scoring = network.read([Token(step.number, step.before, step.after, _sign(step.reward)) for step in history], code)
    return lambda number, options, odds: scoring(number, options, odds).tolist()


def _sign(reward: float | None) -> int:
    return NOT_SHOWN if reward is None else ALIVE if reward > 0 else DEAD
