"""Reference players: functions that read a prompt and answer it, by name as `module:name`.

They read prompts through `parse` alone, so every memory, layout and ablation acts on them as on any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from icrl_graph.prompts.layouts import Attempt, Prompt, parse
from icrl_graph.tasks.word_games.answers import read_answer, write_answer
from icrl_graph.tasks.word_games.families import FAMILIES, Odds, Seen, answers
from icrl_graph.tasks.word_games.wordings import Game, read

Messages = Sequence[Mapping[str, Any]]


def uniform(messages: Messages, rng: Random) -> str:
    """Reference policy: any of the answers to the game, whatever was rewarded."""
    game = game_of(parse(messages))
    return write_answer(rng.choice(answers(game)))


def within(messages: Messages, rng: Random) -> str:
    """Reference policy: adapts within an episode alone. In these games an episode is one answer, so it is `uniform`."""
    return uniform(messages, rng)


def posterior(messages: Messages, rng: Random) -> str:
    """Reference policy and teacher: draws a secret that fits every reward in the prompt, and answers what is best then.

    The draw is of the exact posterior. Where no secret fits, as where rewards are shuffled, it is `uniform`.
    """
    prompt = parse(messages)
    game = game_of(prompt)
    family = FAMILIES[game.family]
    world = family.fitting(game, _seen(game, prompt.attempts), rng)
    return uniform(messages, rng) if world is None else write_answer(family.best(game.options, world))


def posterior_odds(messages: Messages) -> Odds:
    """How likely each answer is `posterior`'s; where no secret fits, all are alike."""
    prompt = parse(messages)
    game = game_of(prompt)
    odds = FAMILIES[game.family].odds(game, _seen(game, prompt.attempts))
    return odds or {answer: 1 / len(every) for every in [answers(game)] for answer in every}


def game_of(prompt: Prompt) -> Game:
    """The game of a prompt; what other methods add to the task, as reflections, follows an empty line."""
    return read(prompt.task.partition("\n\n")[0])


def _seen(game: Game, attempts: Sequence[Attempt]) -> Seen:
    """The answers in a prompt with the share of the highest reward that each earned, as far as it is shown."""
    low, high = game.scale
    given = ((read_answer(attempt.response, game.options, game.length), attempt.value) for attempt in attempts)
    return [(answer, (value - low) / (high - low)) for answer, value in given if answer and value is not None]
