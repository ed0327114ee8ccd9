"""A text game in three rooms: fetch the key, unlock the cellar, open the chest. Small, exact, and nothing to install.

For examples, tests and a first look at multi-turn episodes; `players.explore` learns to play it from its rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icrl_graph.environments import Outcome
from icrl_graph.environments.players import VALID

TASK = "You are in a small house. Open the chest in its cellar. Nobody knows what is in the bottle."

_NO_EFFECT = {
    "ring bell": "It rings. Nobody comes.",
    "look around": "Dust, and a spider.",
    "light candle": "It is brighter now.",
}
"""Actions that change nothing, with their observations."""


class Cellar:
    """The game as an `Environment`. Rewards: the key and the open cellar 0.3 each, the chest 0.4, the bottle -1."""

    def __init__(self) -> None:
        self._room, self._has_key = "hall", False

    def reset(self, task_data: Mapping[str, Any]) -> Outcome:
        """Begin in the hall, without the key."""
        self._room, self._has_key = "hall", False
        return Outcome("You are in the hall. Doors lead to the kitchen and to the cellar.", hint=self._hint())

    def step(self, action: str) -> Outcome:
        """Act."""
        observation, reward, done = self._act(action.strip().lower())
        hint = "" if done else self._hint()
        return Outcome(observation, reward, done, done and reward > 0, {"room": self._room}, hint)

    def close(self) -> None:
        """Nothing to release."""

    def _act(self, action: str) -> tuple[str, float, bool]:
        if action not in self._valid():
            return "That does nothing here.", 0.0, False
        match action:
            case "go to cellar" if not self._has_key:
                return "The door to the cellar is locked.", 0.0, False
            case "go to cellar":
                self._room = "cellar"
                return "You unlock the door and go down. Here is a chest.", 0.3, False
            case "go to kitchen" | "go to hall":
                self._room = action.removeprefix("go to ")
                return f"You are in the {self._room}.", 0.0, False
            case "take key":
                self._has_key = True
                return "You have the key.", 0.3, False
            case "drink from bottle":
                return "That was no water.", -1.0, True
            case "open chest":
                return "The chest is full of old letters.", 0.4, True
        return _NO_EFFECT[action], 0.0, False

    def _valid(self) -> list[str]:
        actions = {
            "hall": ["go to kitchen", "go to cellar", "ring bell"],
            "kitchen": ["go to hall", *(["take key"] if not self._has_key else []), "drink from bottle", "look around"],
            "cellar": ["open chest", "light candle"],
        }
        return actions[self._room]

    def _hint(self) -> str:
        return VALID + ", ".join(self._valid())
