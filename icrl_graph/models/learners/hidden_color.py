"""The shipped learner of hidden color: reads a prompt, answers with its next guess.

It reads the prompt that a chat model would get, through `parse`: the guesses and rewards in it are all it
knows. So every memory, layout, ablation and topology acts on it as on any model.

Its limits: it plays this one game and does not read English. It shows the mechanics of in-context reinforcement
learning, and shows nothing about how a language model reasons. It reads the last seven attempts in a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

from icrl_graph.errors import UnknownTask
from icrl_graph.models.learners.layers import shipped
from icrl_graph.models.learners.transformer import Transformer
from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.templates import HIDDEN_COLOR_TASK
from icrl_graph.tasks.hidden_color import SPREAD, read_color, write_color


@cache
def _network() -> Transformer:
    return Transformer(shipped("hidden_color.npz"))


def reply(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None = None) -> str:
    """The next guess, such as "#3b9".

    Args:
        messages: the prompt, in OpenAI's format.
        rng: source of the sampling.
        temperature: default 1, as trained; 0 takes the likeliest digits.

    Raises:
        UnknownTask: the prompt is not about hidden color.
    """
    prompt = parse(messages)
    if prompt.task != HIDDEN_COLOR_TASK:
        raise UnknownTask(
            "the learner 'hidden-color' plays one game only, the tasks of icrl_graph.tasks.hidden_color, and "
            f"reads no other text; the task is {prompt.task[:80]!r}. For other tasks use a language model, such as "
            "'openai:gpt-4.1-mini'"
        )
    history = []
    for attempt in prompt.attempts:
        guess = read_color(attempt.response)
        if guess is not None:
            history.append((guess, None if attempt.value is None else _level(attempt.value)))
    return write_color(_network().guess(history, rng, 1.0 if temperature is None else temperature))


def _level(reward: float) -> int:
    """The reward in twentieths; rewards outside [0, 1] count as the nearest end."""
    return round(min(1.0, max(0.0, reward)) * SPREAD)
