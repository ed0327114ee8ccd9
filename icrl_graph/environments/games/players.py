"""Players of games: from what was seen, in this episode and in earlier ones, to an action.

    graph = create_icrl(rollout(as_model(game("maze").references["across"]), Games), episode_return, rounds=3)

Each game has three of them as references. "random" does anything that is allowed. "within" learns from the
observations of its episode and forgets them at its end; "across" remembers the earlier episodes. The gap between the
last two is what there is to be gained by learning across episodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from typing import Any, NamedTuple

from icrl_graph.environments.games.game import Game, read_action
from icrl_graph.environments.players import read_episodes
from icrl_graph.prompts.templates import ACT, REACT
from icrl_graph.prompts.text import content_text
from icrl_graph.state.episode import Message


class Turn(NamedTuple):
    """An action, as the game read it, and what came of it, on one line."""

    action: str
    observation: str


class Seen(NamedTuple):
    """What a player knows."""

    first: str
    """The first observation of the episode."""
    turns: Sequence[Turn] = ()
    """Of this episode."""
    earlier: Sequence[Sequence[Turn]] = ()
    """Of each earlier episode."""

    @property
    def all_turns(self) -> Iterator[Turn]:
        """Those of all episodes, the latest last."""
        return chain(*self.earlier, self.turns)


Player = Callable[[Seen, Random], str]


def forgetful(player: Player) -> Player:
    """The player without its memory of earlier episodes."""
    return lambda seen, rng: player(seen._replace(earlier=()), rng)


def as_model(player: Player) -> Callable[..., str]:
    """A player as a model for `rollout`: it knows what the prompt shows."""

    def act(messages: Sequence[Message], rng: Random) -> str:
        return player(read_seen(messages), rng)

    return act


_HOW_TO_ANSWER = re.compile("|".join(map(re.escape, (ACT, REACT))))
_REWARD = re.compile(r"\n[^\n:]{1,60}: (?:unscored|[-+.\de]+)\Z")


def read_seen(messages: Sequence[Message]) -> Seen:
    """What a prompt of `rollout` shows of the episodes."""
    replies = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    opening = content_text(messages[replies[0] - 1 if replies else -1]["content"])
    first = _HOW_TO_ANSWER.split(opening)[-1]
    turns = [
        _turn(content_text(messages[at]["content"]), _REWARD.sub("", content_text(messages[at + 1]["content"])))
        for at in replies
    ]
    earlier = [[_turn(step.action, step.observation) for step in episode] for episode in read_episodes(messages)]
    return Seen(_line(first), turns, earlier)


def _turn(action: str, observation: str) -> Turn:
    return Turn(read_action(action), _line(observation))


def _line(text: str) -> str:
    return " ".join(text.split())


def play(game: Game, player: Player, task_data: Mapping[str, Any], episodes: int, rng: Random) -> list[bool]:
    """Play a trial without a graph; the first episodes of a graph's rounds have the same chance.

    Args:
        game: the game.
        player: chooses the actions.
        task_data: of the hidden instance.
        episodes: how many, of the same instance.
        rng: the player's.

    Returns:
        Whether each episode was a success.
    """
    earlier, successes = list[Sequence[Turn]](), list[bool]()
    for episode in range(episodes):
        first, turns, outcome = _line(game.reset(task_data, (episode, 0))), list[Turn](), None
        while outcome is None or not outcome.done:
            action = player(Seen(first, (*turns,), (*earlier,)), rng)
            outcome = game.step(action)
            turns.append(_turn(action, outcome.observation))
        earlier.append((*turns,))
        successes.append(outcome.success)
    return successes


def success_by_episode(
    game: Game, player: Player, instances: Sequence[Mapping[str, Any]], episodes: int, seed: int = 0
) -> list[float]:
    """The share of trials whose first episode is a success, whose second is, and so on.

    Args:
        game: the game.
        player: chooses the actions.
        instances: the task data of each trial.
        episodes: of each trial.
        seed: for the player's choices.
    """
    trials = [play(game, player, data, episodes, Random(f"{seed} {at}")) for at, data in enumerate(instances)]
    return [sum(successes) / len(trials) for successes in zip(*trials, strict=True)]
