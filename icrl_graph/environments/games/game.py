"""What the games share: an instance that is fixed by its task data, turns, and how an action is read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping
from random import Random
from typing import Any, ClassVar, Literal

from icrl_graph.environments import Outcome
from icrl_graph.state.choices import pick
from icrl_graph.state.plain import plain

Split = Literal["train", "test"]
SPLITS: Mapping[str, Split] = {"train": "train", "test": "test"}


class Game(ABC):
    """An `Environment` whose hidden instance follows from the task data: `seed`, `split` (train or test), `params`.

    Every reset with the same task data restores it, also after other episodes. What is chance within an episode is
    drawn from the instance and from which episode it is. A turn pays nothing, but the one with which an episode
    succeeds, 1. An action that is not understood costs its turn.
    """

    name: ClassVar[str]
    rules: ClassVar[str]
    """The task, for the model."""
    turns: ClassVar[int]
    """Actions in an episode at most."""
    form: ClassVar[str]
    """How an action is said; the answer to one that is not understood."""
    params: ClassVar[Mapping[str, Any]] = {}
    """What the task data may set of the instance, with the defaults."""

    rng: Random
    """For chance within the episode."""
    split: Split
    turn: int
    """Turns that were taken, with the one that is being taken."""
    _hidden: tuple[str, Mapping[str, Any]] | None = None

    def reset(self, task_data: Mapping[str, Any], episode: Hashable = 0) -> str:
        """Begin an episode.

        Raises:
            ValueError: there is no seed, or no such split.
        """
        if "seed" not in task_data:
            raise ValueError(f"the task data of {self.name!r} must have a 'seed', got {dict(task_data)!r:.200}")
        self.split = pick("split", task_data.get("split", "train"), SPLITS)
        instance = f"{self.name} {self.split} {task_data['seed']}"
        self.turn, self.rng = 0, Random(f"{instance} {episode}")
        params = {name: task_data.get(name, value) for name, value in self.params.items()}
        if (instance, params) != self._hidden:  # drawn once for all its episodes: none of them changes it
            self.hide(Random(instance), params)
            self._hidden = instance, params
        return self.begin()

    def step(self, action: str) -> Outcome:
        """Take a turn."""
        self.turn += 1
        said = self.act(read_action(action))
        observation, success = said if said is not None else (f"That is not understood. {self.form}", None)
        if success is None and self.turn >= self.turns:
            success = self.has_succeeded()
            observation = f"{observation} {self.ending()}".rstrip()
        return Outcome(observation, float(bool(success)), success is not None, bool(success))

    def close(self) -> None:  # noqa: B027
        """Nothing to release."""

    @abstractmethod
    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the instance: what stays the same in all episodes."""

    @abstractmethod
    def begin(self) -> str:
        """Begin an episode; returns its first observation."""

    @abstractmethod
    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Do an action.

        Returns:
            What is observed, and whether the episode has ended so: with success (True), without (False) or not yet
            (None). None alone: the action is not understood.
        """

    def has_succeeded(self) -> bool:
        """Whether an episode that has used all its turns is a success."""
        return False

    def ending(self) -> str:
        """What is said once all turns are used."""
        return "That was the last turn."


_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(r"\b(?:action|answer|guess|move)\s*:\s*(.*)|<action>(.*?)(?:</action>|$)", re.I)
_DRESS = re.compile(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}")


def read_action(text: str) -> str:
    r"""The action in a text, in lower case: in the last `\boxed{}`, behind "Action:", in `<action>`, or all of it."""
    shown = plain(text)
    boxed, said = _BOXED.findall(shown), _SAID.search(shown)
    action = boxed[-1] if boxed else (said[1] or said[2] or "") if said else shown
    return " ".join(_DRESS.sub(r"\1", action).lower().split()).strip(" .!?\"'`*_$[](){}")


def named(action: str, names: Collection[str]) -> str | None:
    """The one of these names that an action holds; None if it holds none, or several."""
    found = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", action)]
    return found[0] if len(found) == 1 else None


def spelled(action: str) -> str:
    """The word that an action says: the last of several, or letters one by one."""
    words: list[str] = re.findall(r"[^\W\d_]+", action)
    return "".join(words) if all(len(word) == 1 for word in words) else words[-1]
