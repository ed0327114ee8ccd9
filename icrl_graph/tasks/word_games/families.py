"""The families of games: which secrets there are, and what an answer earns under one.

A secret is a world that the rewards tell about. Each family draws one by `fitting`, which makes a world that agrees
with what has been seen: without anything seen it is the secret of a new game, with the rewards of a prompt it is a
sample of the exact posterior. `odds` has the same without a draw: how likely each answer is the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from random import Random
from typing import Any, NamedTuple

from icrl_graph.tasks.word_games.vocabularies import Words
from icrl_graph.tasks.word_games.wordings import Game, step_cost

Answer = tuple[str, ...]
"""Words of the options."""
World = tuple[Any, ...]
"""What is secret: the best answer; where each word pays its own amount, the amounts in the order of the options."""
Seen = Sequence[tuple[Answer, float]]
"""Answers, and the share of the highest reward that each earned."""
Odds = Mapping[Answer, float]
"""The probability of each answer that has one."""

AMOUNTS = tuple(tenth / 10 for tenth in range(11))
"""What a word may be worth; no two words of a game are worth the same."""


def answers(game: Game) -> list[Answer]:
    """All answers to a game."""
    return list(permutations(game.options, game.length))


def _agree(one: float, other: float) -> bool:
    """Whether two shares are the same, as far as a prompt tells."""
    return abs(one - other) < 1e-4


def _hit(options: Words, answer: Answer, world: World) -> float:
    return float(answer == world)


def _nearness(options: Words, answer: Answer, world: World) -> float:
    steps = abs(options.index(answer[0]) - options.index(world[0]))
    return round(1 - steps * step_cost(options), 2)


def _pairs_in_order(options: Words, answer: Answer, world: World) -> float:
    pairs = list(combinations(answer, 2))
    return round(sum(world.index(a) < world.index(b) for a, b in pairs) / len(pairs), 2)


def _places(options: Words, answer: Answer, world: World) -> float:
    right = [a for a, b in zip(answer, world, strict=True) if a == b]
    return round(len(right) / len(world), 2)


def _amount(options: Words, answer: Answer, world: World) -> float:
    return float(world[options.index(answer[0])])


def _itself(options: Words, world: World) -> Answer:
    return world


def _richest(options: Words, world: World) -> Answer:
    return (options[world.index(max(world))],)


def _fits(game: Game, seen: Seen) -> list[Answer]:
    """The answers that could be the secret, each as likely."""
    pay = FAMILIES[game.family].pay
    return [
        world
        for world in answers(game)
        if all(_agree(pay(game.options, answer, world), share) for answer, share in seen)
    ]


def _fitting_answer(game: Game, seen: Seen, rng: Random) -> World | None:
    fit = _fits(game, seen)
    return rng.choice(fit) if fit else None


def _odds_of_fits(game: Game, seen: Seen) -> Odds:
    fit = _fits(game, seen)
    return {answer: 1 / len(fit) for answer in fit}


def _known_amounts(seen: Seen) -> dict[str, float] | None:
    """The words whose amounts have been seen; None if no amounts agree with all that was."""
    shares = {(word, amount) for (word,), share in seen for amount in [_as_amount(share)]}
    known = {word: amount for word, amount in shares if amount is not None}
    return known if len(shares) == len(known) == len(set(known.values())) else None


def _fitting_amounts(game: Game, seen: Seen, rng: Random) -> World | None:
    """The amounts that are known, and for the other words a draw from those that are left."""
    known = _known_amounts(seen)
    if known is None:
        return None
    left = [amount for amount in AMOUNTS if amount not in known.values()]
    drawn = iter(rng.sample(left, len(game.options) - len(known)))
    return tuple(known[word] if word in known else next(drawn) for word in game.options)


def _odds_of_amounts(game: Game, seen: Seen) -> Odds:
    """The richest word that is known, unless one of the others has more; those are all alike."""
    known = _known_amounts(seen)
    if known is None:
        return {}
    others = [word for word in game.options if word not in known]
    richest = max(known, key=lambda word: known[word], default=None)
    least = -1.0 if richest is None else known[richest]
    poorer = sum(amount < least for amount in AMOUNTS) - len(known) + 1 if known else 0
    none_richer = math.comb(poorer, len(others)) / math.comb(len(AMOUNTS) - len(known), len(others))
    odds: dict[Answer, float] = {(word,): (1 - none_richer) / len(others) for word in others}
    return odds if richest is None else {(richest,): none_richer, **odds}


def _as_amount(share: float) -> float | None:
    return next((amount for amount in AMOUNTS if _agree(amount, share)), None)


class Family(NamedTuple):
    """One kind of games.

    Attributes:
        about: one line.
        pay: of the options, an answer and a world, what the answer earns: a share of the highest reward, 0 to 1.
        sizes: how many options there are.
        lengths: how many words an answer has.
        on_scale: whether the options are a part of a scale.
        fitting: of a game, what has been seen and a source of chance, a world that agrees; None if there is none.
        best: of the options and a world, the answer that earns most.
        odds: of a game and what has been seen, how likely each answer is the best; nothing if no world agrees.
    """

    about: str
    pay: Callable[[Words, Answer, World], float]
    sizes: Sequence[int] = (4, 5, 6)
    lengths: Sequence[int] = (1,)
    on_scale: bool = False
    fitting: Callable[[Game, Seen, Random], World | None] = _fitting_answer
    best: Callable[[Words, World], Answer] = _itself
    odds: Callable[[Game, Seen], Odds] = _odds_of_fits


FAMILIES: Mapping[str, Family] = {
    "prize": Family("one word of 4 to 6 hides a prize", _hit),
    "amounts": Family(
        "each word of 4 to 6 pays its own amount",
        _amount,
        fitting=_fitting_amounts,
        best=_richest,
        odds=_odds_of_amounts,
    ),
    "closeness": Family("a secret word on a scale of 5 to 11", _nearness, sizes=range(5, 12), on_scale=True),
    "order": Family("a secret order of 3 words; pairs count", _pairs_in_order, sizes=(3,), lengths=(3,)),
    "mastermind": Family("a secret code of 2 or 3 words out of 4 to 6; places count", _places, lengths=(2, 3)),
}
"""By name."""
