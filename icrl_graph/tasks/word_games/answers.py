"""What an answer names, and what it earns: the evaluator of all word games."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from icrl_graph.state.plain import plain
from icrl_graph.state.reward import Reward
from icrl_graph.tasks.word_games.families import FAMILIES, Answer, World
from icrl_graph.tasks.word_games.vocabularies import Words
from icrl_graph.tasks.word_games.wordings import Game

_WORD = re.compile(r"[^\W_]+")


def read_answer(text: str, options: Words, length: int = 1) -> Answer | None:
    """The answer that a text gives: the options that it names, whatever other words, signs and cases there are.

    None if they are not as many different ones as an answer has: a text that names two words is no answer to a game
    that asks for one.
    """
    known = {option.casefold(): option for option in options}
    named = [known[word] for word in _WORD.findall(plain(text).casefold()) if word in known]
    answer = tuple(dict.fromkeys(named)) if length == 1 else tuple(named)
    return answer if len(answer) == len(set(answer)) == length else None


def write_answer(answer: Answer) -> str:
    """An answer as text, such as "cat" or "cat, dog"."""
    return ", ".join(answer)


def earned(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The evaluator: the value is what the answer earns; metric is 1.0 if no other answer earns more, else 0.0.

    What is no answer earns the lowest reward, and no feedback says why: the chat of a game is answers and numbers.

    Raises:
        ValueError: the task data are not those of a word game.
    """
    game, world = read_data(task_data)
    family, (low, high) = FAMILIES[game.family], game.scale
    answer = read_answer(response, game.options, game.length)
    if answer is None:
        return Reward(value=low, metric=0.0)
    share, most = (family.pay(game.options, given, world) for given in (answer, family.best(game.options, world)))
    return Reward(value=round(low + (high - low) * share, 4), metric=float(share == most))


def data(game: Game, world: World) -> dict[str, Any]:
    """The task data of a game."""
    return {**game._asdict(), "options": list(game.options), "scale": list(game.scale), "secret": list(world)}


def read_data(task_data: Mapping[str, Any]) -> tuple[Game, World]:
    """A game and its secret: the inverse of `data`.

    Raises:
        ValueError: the task data are not those of a word game.
    """
    try:
        options, (low, high) = tuple(task_data["options"]), task_data["scale"]
        game = Game(task_data["family"], options, task_data["length"], (low, high))
        world = tuple(task_data["secret"])
        FAMILIES[game.family].pay(options, FAMILIES[game.family].best(options, world), world)
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise ValueError(f"task_data must be those of a word game, got {dict(task_data)!r:.200}") from problem
    return game, world
