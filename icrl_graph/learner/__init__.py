"""In-context learners that ship with the package: small trained networks that answer prompts, in numpy.

See `MODEL_CARD.md` beside this file for what they are and what they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any


def _hidden_color(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None) -> str:
    from icrl_graph.learner.hidden_color import reply  # numpy and the weights are loaded when they are first needed

    return reply(messages, rng, temperature)


LEARNERS: Mapping[str, Callable[..., str]] = {"hidden-color": _hidden_color}
"""Reply functions by name, for `icrl_graph.models.learner`."""
