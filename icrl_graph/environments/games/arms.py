"""Games of chance: rock-paper-scissors, and arms of which one pays, or each now and then."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

from icrl_graph.environments.games.game import Game, named
from icrl_graph.environments.games.players import Seen, Turn
from icrl_graph.environments.games.vocabulary import words

# ------------------------------------------------------------------------------------------------- rock-paper-scissors

MOVES = ("rock", "paper", "scissors")
"""Each is beaten by the next."""


class RockPaperScissors(Game):
    """Five rounds against an opponent with a favourite move; three wins are a success.

    The opponent's moves are drawn anew in each episode, from shares that stay the same: .4 + .6 Beta(2, 2) for the
    favourite, the rest split evenly at random between the others.
    """

    name = "rock_paper_scissors"
    rules = (
        "Play five rounds of rock-paper-scissors. Your opponent plays each move with a fixed probability. You succeed "
        "if you win at least three of the five rounds."
    )
    turns = 5
    form = "Say rock, paper or scissors."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the shares of the opponent's moves."""
        favourite, share, part = rng.randrange(3), 0.4 + 0.6 * rng.betavariate(2, 2), rng.random()
        self.shares = [(1 - share) * part, (1 - share) * (1 - part)]
        self.shares.insert(favourite, share)

    def begin(self) -> str:
        """No round was played."""
        self.wins = 0
        return "Round 1 of 5."

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Play a round; the opponent moves whatever is said."""
        (theirs,) = self.rng.choices(range(3), self.shares)
        move = named(action, MOVES)
        if move is None:
            return None
        result = (MOVES.index(move) - theirs) % 3
        self.wins += result == 1
        return ("You draw.", "You win.", "You lose.")[result], None

    def has_succeeded(self) -> bool:
        """Whether at least half of the rounds were won."""
        return 2 * self.wins >= self.turns

    def ending(self) -> str:
        """The score."""
        return f"You have won {self.wins} of {self.turns} rounds."


def any_move(seen: Seen, rng: Random) -> str:
    """Any move."""
    return rng.choice(MOVES)


def beating_move(seen: Seen, rng: Random) -> str:
    """What beats the move that the opponent has played most often."""
    counts = Counter(move for turn in seen.all_turns if (move := _their_move(turn)) is not None)
    most = max(counts.values(), default=0)
    return MOVES[(rng.choice([move for move in range(3) if counts[move] == most]) + 1) % 3]


def _their_move(turn: Turn) -> int | None:
    """The opponent's move, which follows from one's own and the result."""
    move, result = named(turn.action, MOVES), re.match("You (draw|win|lose)", turn.observation)
    if move is None or result is None:
        return None
    return (MOVES.index(move) - ("draw", "win", "lose").index(result[1])) % 3


# ---------------------------------------------------------------------------------------------------------------- arms


class Arms(Game):
    """One pull an episode of one of several arms, each named by a word; how they pay is hidden."""

    turns = 1
    form = "Say the name of one arm."
    arms: tuple[str, ...]

    def begin(self) -> str:
        """The names of the arms."""
        return f"The arms: {', '.join(self.arms)}."

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Pull an arm."""
        arm = named(action, self.arms)
        if arm is None:
            return None
        pays = self.pays(arm)
        return "It pays." if pays else "It pays nothing.", pays

    @abstractmethod
    def pays(self, arm: str) -> bool:
        """Whether a pull of that arm pays."""

    def draw_arms(self, rng: Random, count: Any) -> tuple[str, ...]:
        """The names of that many arms.

        Raises:
            ValueError: it is not a number of arms.
        """
        pool = words(3, self.split)
        if not isinstance(count, int) or not 2 <= count <= len(pool):
            raise ValueError(f"arms must be 2 to {len(pool)}, got {count!r}")
        return tuple(rng.sample(pool, count))


class HiddenArm(Arms):
    """One arm pays, always; the others never."""

    name = "hidden_arm"
    rules = "Each episode you pull one of several arms. One of them pays, always the same one; the others pay nothing."
    params: ClassVar = {"arms": 4}

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the arms and the one that pays."""
        self.arms = self.draw_arms(rng, params["arms"])
        self.paying = rng.choice(self.arms)

    def pays(self, arm: str) -> bool:
        """Whether it is the one."""
        return arm == self.paying


SAFE = "safe"


class SafeArm(HiddenArm):
    """A hidden arm, and one beside it that is known to pay now and then, which tells nothing of the others.

    Whoever takes it in the first episode earns more there and learns nothing, so this game tells credit across episodes
    from credit within one.
    """

    name = "safe_arm"
    rules = (
        "Each episode you pull one of several arms. One of them pays, always the same one; the others pay nothing. "
        "Instead you can pull the arm named safe, which pays now and then."
    )
    params: ClassVar = {"arms": 4, "safe": 0.4}

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the arms and the one that pays."""
        super().hide(rng, params)
        self.arms, self.share = (*self.arms, SAFE), float(params["safe"])

    def pays(self, arm: str) -> bool:
        """Whether it is the one, or the safe one pays."""
        return self.rng.random() < self.share if arm == SAFE else super().pays(arm)


class Bandit(Arms):
    """Two to five arms, each of which pays with a probability of its own, uniform from 0 to 1."""

    name = "bandit"
    rules = "Each episode you pull one of several arms. Each pays with a probability of its own, which never changes."
    params: ClassVar = {"arms": None}

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the arms and their probabilities."""
        count = rng.randint(2, 5)
        self.arms = self.draw_arms(rng, count if params["arms"] is None else params["arms"])
        self.shares = {arm: rng.random() for arm in self.arms}

    def pays(self, arm: str) -> bool:
        """Whether it pays this time."""
        return self.rng.random() < self.shares[arm]


def _arms(seen: Seen) -> list[str]:
    return seen.first.removeprefix("The arms: ").rstrip(".").split(", ")


def any_arm(seen: Seen, rng: Random) -> str:
    """Any arm."""
    return rng.choice(_arms(seen))


def safe_arm(seen: Seen, rng: Random) -> str:
    """The safe arm: what pays most where nothing is remembered."""
    return SAFE


def paying_arm(seen: Seen, rng: Random) -> str:
    """The arm that has paid; else one that was not pulled. Never the safe one."""
    arms = [arm for arm in _arms(seen) if arm != SAFE]
    pulled = {arm: turn.observation for turn in seen.all_turns if (arm := named(turn.action, arms))}
    paid = [arm for arm, observation in pulled.items() if observation == "It pays."]
    return paid[0] if paid else rng.choice([arm for arm in arms if arm not in pulled] or arms)


def thompson(seen: Seen, rng: Random) -> str:
    """The arm that is best in a draw from the posterior (Thompson sampling, uniform prior)."""
    arms = _arms(seen)
    pulls = Counter((named(turn.action, arms), turn.observation == "It pays.") for turn in seen.all_turns)
    return max(arms, key=lambda arm: rng.betavariate(1 + pulls[arm, True], 1 + pulls[arm, False]))
