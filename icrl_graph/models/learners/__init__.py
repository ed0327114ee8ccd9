"""In-context learners that ship with the package: small trained networks that answer prompts, in numpy.

`hidden_color.md` and `game24.md` in this folder describe them, their training and their limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any


def _hidden_color(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None) -> str:
    # numpy and the weights are loaded when they are first needed
    from icrl_graph.models.learners.hidden_color import reply

    return reply(messages, rng, temperature)


def _game24(strength: Any) -> Callable[..., str]:
    def reply(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None) -> str:
        from icrl_graph.models.learners import game24

        return game24.reply(strength)(messages, rng, temperature)

    return reply


def find_learner(name: str) -> Callable[..., str]:
    """The reply function of a learner.

    Raises:
        ValueError: there is no learner of that name.
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
"""Reply functions by name, for `models.registry.learner`. That of Game of 24 comes without a base policy, with a weak
one or with a strong one."""
