"""In-context learners that ship with the package: small trained networks that answer prompts, in numpy.

See `hidden_color.md` and `game24.md` beside this file for what they are and what they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any


def _hidden_color(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None) -> str:
    from icrl_graph.models.learners.hidden_color import (
        reply,  # numpy and the weights are loaded when they are first needed
    )

    return reply(messages, rng, temperature)


def _game24(strength: Any) -> Callable[..., str]:
    def reply(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None) -> str:
        from icrl_graph.models.learners import game24

        return game24.reply(strength)(messages, rng, temperature)

    return reply


def find_learner(name: str) -> Callable[..., str]:
    """The reply function of a learner.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in LEARNERS:
        raise ValueError(f"unknown learner {name!r}; choose one of {', '.join(map(repr, LEARNERS))}")
    return LEARNERS[name]


LEARNERS: Mapping[str, Callable[..., str]] = {
    "hidden-color": _hidden_color,
    "game24": _game24("none"),
    "game24-weak": _game24("weak"),
    "game24-strong": _game24("strong"),
}
"""Reply functions by name, for `models.registry.learner`. That of Game of 24 stands on no base policy, a weak one or
a strong one."""
