"""Games by family, split and number, each made from these alone by a source of chance of its own.

The splits: "train" for training; to evaluate, "seeds", other games of the same words and wordings; "words", of words
that were never seen; "wordings", of words and wordings that were never seen. A family that is left out of training is a
test of its own.

A family with few games, as `closeness` on ten digits, may have the same secret in "train" and in "seeds"; words and
wordings are never the same across the other splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from icrl_graph.tasks.word_games import vocabularies, wordings
from icrl_graph.tasks.word_games.answers import data
from icrl_graph.tasks.word_games.families import FAMILIES, World
from icrl_graph.tasks.word_games.vocabularies import Vocabulary
from icrl_graph.tasks.word_games.wordings import UNIT, Game, Scale

Split = Literal["train", "seeds", "words", "wordings"]
SPLITS: tuple[Split, ...] = ("train", "seeds", "words", "wordings")
HELD_OUT: tuple[Split, ...] = SPLITS[1:]
"""Those to evaluate on."""
GAMES = 256
"""Of each family in each split, how many the benchmark has."""


class Instance(NamedTuple):
    """One game with its secret.

    Attributes:
        game: what a player is told.
        task: in which words.
        secret: what the rewards tell about.
    """

    game: Game
    task: str
    secret: World

    def inputs(self) -> dict[str, Any]:
        """The input of a graph."""
        return {"task": self.task, "task_data": data(self.game, self.secret)}


def instance(
    family: str,
    split: Split = "train",
    seed: int = 0,
    *,
    scale: Scale = UNIT,
    sizes: Sequence[int] = (),
    is_mixed: bool = False,
) -> Instance:
    """A game, the same for the same arguments.

    Args:
        family: one of `FAMILIES`.
        split: see the top of this module.
        seed: its number, from 0.
        scale: the lowest and the highest reward, such as (0, 100) or (-1, 1); for training with other ranges.
        sizes: numbers of options to choose from, in place of the family's; for training with fewer or more.
        is_mixed: whether the options are of no one category (`vocabularies.mixed`); for training of families without
            a scale.

    Raises:
        ValueError: there is no such family or split, the scale is empty, or mixed options are none of this game.
    """
    _check(family, split, scale)
    if is_mixed and (FAMILIES[family].on_scale or split != "train"):
        raise ValueError(f"mixed options are for training of families without a scale, got {family!r}, {split!r}")
    kind, rng = FAMILIES[family], Random(f"{family}/{split}/{seed}")
    vocabulary = _vocabulary(split, kind.on_scale)
    thing = rng.choice(list(vocabulary))
    words = vocabulary[thing]
    possible = [size for size in sizes or kind.sizes if size <= len(words)]
    if not possible or min(possible) < max(2, *kind.lengths):
        raise ValueError(f"{family!r} has from {max(2, *kind.lengths)} to {len(words)} options, got {list(sizes)}")
    size = rng.choice(possible)
    if kind.on_scale:
        start = rng.randrange(len(words) - size + 1)
        options = words[start : start + size]
    elif is_mixed:
        thing, options = rng.choice(vocabularies.MIXED_NOUNS), vocabularies.mixed(size, rng)
    else:
        options = tuple(rng.sample(words, size))
    game = Game(family, options, rng.choice(kind.lengths), (float(scale[0]), float(scale[1])))
    secret = kind.fitting(game, (), rng)
    assert secret is not None
    held_out = split == "wordings"
    wording = rng.choice((wordings.HELD_OUT if held_out else wordings.TRAINING)[family])
    same = rng.choice(wordings.HELD_OUT_SAME if held_out else wordings.TRAINING_SAME)
    return Instance(game, wordings.write(game, wording, thing, same), secret)


def _vocabulary(split: Split, on_scale: bool) -> Vocabulary:
    if split in ("train", "seeds"):
        return vocabularies.TRAINING_SCALES if on_scale else vocabularies.TRAINING
    return vocabularies.HELD_OUT_SCALES if on_scale else vocabularies.HELD_OUT


def _check(family: str, split: str, scale: Scale) -> None:
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not -math.inf < scale[0] < scale[1] < math.inf:
        raise ValueError(f"a scale goes from its lowest to its highest reward, got {scale}")


def items() -> list[str]:
    """The names of the games to evaluate on; any first part of them has about as many of each family and split."""
    return [f"{family}:{split}:{seed}" for seed in range(GAMES) for split in HELD_OUT for family in FAMILIES]


def read_item(text: str) -> Instance:
    """The game of a name such as "prize:words:17", also one of training.

    Raises:
        ValueError: it is not written like that, or there is no such game.
    """
    family, _, rest = text.strip().partition(":")
    split, _, seed = rest.partition(":")
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 9):
        raise ValueError(f"a word game is written like 'prize:words:17', got {text!r}")
    return instance(family, split, int(seed))  # type: ignore[arg-type]
