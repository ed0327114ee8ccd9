"""Games of one hidden instance, for learning across episodes: the seven of ORBIT, and some that take no time.

    environment = game("mastermind").make()
    environment.reset({"seed": 7})                 # the code of seed 7, now and in every later episode
    environment.step("123")

The games of ORBIT (arXiv 2602.04089) follow their definition there: rock-paper-scissors, Minesweeper, hangman, a hidden
word and blackjack are its training games, maze and Mastermind are held out. All random numbers are an instance's own.
Differences: the mines of Minesweeper do not depend on the first reveal, the turns of blackjack are limited, and an
action that is not understood costs a turn and does not end the episode. The rest, hidden and safe arm, bandit and
key-door, are small enough for tables and for tests.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from icrl_graph.environments import Outcome
from icrl_graph.environments.games import arms, blackjack, grids, guessing, minesweeper
from icrl_graph.environments.games.game import SPLITS, Game, Split
from icrl_graph.environments.games.players import Player, forgetful
from icrl_graph.state.choices import pick


class Entry(NamedTuple):
    """A game and its reference players."""

    make: type[Game]
    references: Mapping[str, Player]
    """By name: "random"; "within", which learns within an episode and forgets; "across", which does not forget."""
    is_held_out: bool = False
    """Whether it is for tests alone, as in ORBIT."""


def _entry(
    make: type[Game], random: Player, across: Player, within: Player | None = None, *, is_held_out: bool = False
) -> Entry:
    return Entry(make, {"random": random, "within": within or forgetful(across), "across": across}, is_held_out)


GAMES: Mapping[str, Entry] = {
    entry.make.name: entry
    for entry in (
        _entry(arms.RockPaperScissors, arms.any_move, arms.beating_move),
        _entry(minesweeper.Minesweeper, minesweeper.any_hidden_cell, minesweeper.safest_cell),
        _entry(guessing.Hangman, guessing.any_letter, guessing.informative_letter),
        _entry(guessing.HiddenWord, guessing.any_word, guessing.fitting_word),
        _entry(blackjack.Blackjack, blackjack.any_card, blackjack.known_cards),
        _entry(grids.Maze, grids.any_path, grids.least_visited_path, is_held_out=True),
        _entry(guessing.Mastermind, guessing.any_code, guessing.fitting_code, is_held_out=True),
        _entry(arms.HiddenArm, arms.any_arm, arms.paying_arm),
        _entry(arms.SafeArm, arms.any_arm, arms.paying_arm, within=arms.safe_arm),
        _entry(arms.Bandit, arms.any_arm, arms.thompson),
        _entry(grids.KeyDoor, grids.any_step, grids.to_key_and_door),
    )
}


def game(name: str) -> Entry:
    """The game of a name.

    Raises:
        ValueError: there is none; lists the choices.
    """
    return pick("game", name, GAMES)


def task(name: str, seed: int, split: Split = "train", **params: Any) -> dict[str, Any]:
    """The input of a graph for one hidden instance.

    Raises:
        ValueError: there is no such game, or split, or the game has no such parameter.
    """
    make = game(name).make
    for parameter in params:
        pick(f"parameter of {name}", parameter, make.params)
    data = {"family": name, "split": pick("split", split, SPLITS), "seed": seed, **params}
    return {"task": make.rules, "task_data": data}


class Games:
    """Any of the games as an `Environment`: the task data names it as `family`, so that several share a pool."""

    _game: Game

    def reset(self, task_data: Mapping[str, Any], episode: Hashable = 0) -> str:
        """Begin an episode of the game that the task data names."""
        self._game = game(task_data.get("family", "")).make()
        return self._game.reset(task_data, episode)

    def step(self, action: str) -> Outcome:
        """Take a turn."""
        return self._game.step(action)

    def close(self) -> None:
        """Nothing to release."""
