"""Hidden color: guess a color from nothing but how close each guess was.

A color `#rgb` (three hexadecimal digits, 4096 in all) is hidden; the reward of a guess is its closeness. One guess
tells little, so a player that gets better over the rounds must have read the rewards of the earlier guesses. 1000 of
the 4096 colors are held out: the shipped learner was never trained on a game that hides one of them.

Everything here is exact and seeded by a separate `random.Random`. There are two reference policies: `uniform` guesses
blindly, `posterior` samples from the colors that fit every reward seen so far (exact Bayesian posterior
sampling, the teacher of the shipped learner).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from random import Random
from typing import Any, Literal

from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.templates import HIDDEN_COLOR_TASK
from icrl_graph.state.plain import plain
from icrl_graph.state.reward import Reward

DIGITS = 16
"""Values of one channel, 0 to 15, written as one hexadecimal digit."""
SPREAD = 20
"""Summed distance of the channels at which the reward reaches 0; rewards are multiples of 1/20."""
HELD_OUT = 1000
"""Colors that are never hidden in training."""

Color = tuple[int, int, int]
Split = Literal["train", "test"]

_DIGIT = "([0-9a-f])"
_COLOR = re.compile(rf"#{_DIGIT}(?:{_DIGIT}{_DIGIT}|\1{_DIGIT}\4{_DIGIT}\5)(?![0-9a-z])", re.I)


def read_color(text: str) -> Color | None:
    """The last `#rgb` in a text, or None; each digit may be written twice, as in CSS."""
    matches = _COLOR.findall(plain(text))
    if not matches:
        return None
    red, green, blue = (int(digit, 16) for digit in matches[-1] if digit)
    return red, green, blue


def write_color(color: Sequence[int]) -> str:
    """The color as text, such as `#3b9`."""
    return "#" + "".join(f"{digit:x}" for digit in color)


def level(guess: Sequence[int], secret: Sequence[int]) -> int:
    """Closeness in twentieths, 0 to 20; 20 is the secret itself."""
    return max(0, SPREAD - sum(abs(g - s) for g, s in zip(guess, secret, strict=True)))


def closeness(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The evaluator: value in [0, 1] is the closeness, metric is 1.0 for the secret itself and else 0.0.

    A response without a color is as wrong as can be: 0.0, and the feedback says why.
    """
    secret = read_color(str(task_data.get("secret", "")))
    if secret is None:
        raise ValueError(f"task_data['secret'] must be a color such as '#3b9', got {task_data.get('secret')!r}")
    guess = read_color(response)
    if guess is None:
        return Reward(value=0.0, metric=0.0, feedback="The response holds no color such as #3b9.")
    return Reward(value=level(guess, secret) / SPREAD, metric=float(guess == secret))


@cache
def colors(split: Split) -> tuple[Color, ...]:
    """The colors of a split, in a fixed shuffled order; the splits are disjoint."""
    every: list[Color] = [(r, g, b) for r, g, b in product(range(DIGITS), repeat=3)]
    Random(0).shuffle(every)
    return tuple(every[:HELD_OUT] if split == "test" else every[HELD_OUT:])


def task(secret: Sequence[int]) -> dict[str, Any]:
    """The input of a graph for one hidden color."""
    return {"task": HIDDEN_COLOR_TASK, "task_data": {"secret": write_color(secret)}}


def drawn(state: Mapping[str, Any], rng: Random) -> dict[str, Any]:
    """The input of a graph, completed where it is empty: by the task, and by a held-out color as the secret."""
    default = task(rng.choice(colors("test")))
    return {name: state[name] or default[name] for name in default}


def tasks(count: int, *, split: Split = "test", seed: int = 0) -> list[dict[str, Any]]:
    """`count` different games of a split, the same for the same seed.

    Raises:
        ValueError: the count is less than 1, or more than the split holds.
    """
    pool = colors(split)
    if not 1 <= count <= len(pool):
        raise ValueError(f"count must be 1 to {len(pool)} for the split {split!r}, got {count}")
    return [task(secret) for secret in Random(seed).sample(pool, count)]


def uniform(messages: Sequence[Mapping[str, Any]], rng: Random) -> str:
    """Reference policy: any of the 4096 colors, whatever the prompt says."""
    return write_color([rng.randrange(DIGITS) for _ in range(3)])


def posterior(messages: Sequence[Mapping[str, Any]], rng: Random) -> str:
    """Reference policy: a color that fits every reward in the prompt; uniform if none does."""
    seen = [(read_color(a.response), a.value) for a in parse(messages).attempts]
    known = [(guess, round(value * SPREAD)) for guess, value in seen if guess is not None and value is not None]
    fitting = [c for c in colors("train") + colors("test") if all(level(guess, c) == shown for guess, shown in known)]
    return write_color(rng.choice(fitting)) if fitting else uniform(messages, rng)
