"""The simulator, called by its own names: one process, one thread, and calls in one order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from icrl_graph.environments.java import JVM, asked
from icrl_graph.environments.scienceworld.tasks import Spec
from icrl_graph.environments.scienceworld.templates import allowed
from icrl_graph.errors import SimulatorError, missing_extra

PATIENCE = 60.0
"""Seconds that the simulator may take to start, and for one call; an action takes 0.02 on a quiet machine."""
UNKNOWN = "No known action matches that input."
"""What the simulator says to a text that it can't read; nothing has happened then."""


class Seen(NamedTuple):
    """What the simulator shows after an action: score from 0 to 100, or -100; moves are its own units of time."""

    observation: str
    score: int
    completed: bool
    moves: int
    look: str
    inventory: str
    objects: list[str]
    valid: list[str] | None


class Simulator:
    """The simulator in a JVM of its own. To be used in one thread, but for `jvm.kill`.

    Args:
        patience: seconds for its start, and for one call.
        java: the command.

    Raises:
        MissingExtra: the package is not installed.
        SimulatorUnavailable: there is no Java.
    """

    def __init__(self, patience: float = PATIENCE, java: str = "java") -> None:
        try:
            from scienceworld.constants import JAR_PATH
        except ImportError:
            raise missing_extra("scienceworld", "scienceworld") from None
        self.jvm = JVM(JAR_PATH, patience, java)
        self.episodes = 0
        self._gateway: Any = None
        self._server: Any = None
        self._join: Any = None

    def connect(self) -> None:
        """Wait until it has started.

        Raises:
            SimulatorUnavailable: it does not start.
            SimulatorDied: it has started, and is gone.
        """
        self._gateway = self.jvm.connect()
        java = self._gateway.jvm  # a name that is looked up in here is asked for
        self._server = asked(lambda: java.scienceworld.runtime.pythonapi.PythonInterface())
        self._join = asked(lambda: java.java.lang.String.join)

    def load(self, spec: Spec, valid: bool = False, gold: bool = False) -> Seen:
        """Begin an episode.

        Args:
            spec: which.
            valid: whether to list the valid actions.
            gold: whether to work out a solution, for up to a minute. The simulator never forgets that it was asked,
                and does so again for whatever it loads later.
        """
        self.episodes += 1
        asked(self._server.load, spec.task, spec.variation, spec.simplification, gold)
        if asked(self._server.errorUnknownEnvironment):
            raise SimulatorError(f"the simulator can't load {spec}: {asked(self._server.errorStr)}")
        return self._seen(None, 0, False, valid)  # what it says of the score is the last episode's

    def step(self, action: str, valid: bool = False) -> Seen:
        """Act.

        Raises:
            SimulatorError: it fails by itself; from then on it would say so whatever is done.
        """
        observation = str(asked(self._server.step, action))
        score, completed = round(100 * asked(self._server.getScore)), bool(asked(self._server.getCompleted))
        seen = self._seen(observation, score, completed, valid)
        if seen.score < 0:
            inner = asked(asked(self._server.agentInterface).get)
            if asked(inner.isInErrorState):
                raise SimulatorError(f"the simulator failed at {action!r}: {asked(inner.getErrorStateMessage)}")
        return seen

    def valid(self) -> list[str]:
        """All that can be done now. To ask is part of what an episode is: random numbers are drawn for it."""
        return [*filter(allowed, self._listed(self._server.getValidActionObjectCombinations))]

    def description(self) -> str:
        """The task in words."""
        return str(asked(self._server.getTaskDescription))

    def gold(self) -> list[str]:
        """The solution, if the episode was loaded with one."""
        return self._listed(self._server.getGoldActionSequence)

    def tasks(self) -> dict[str, int]:
        """All tasks, and how many variations each has."""
        return {
            name: int(asked(self._server.getTaskMaxVariations, name))
            for name in self._listed(self._server.getTaskNames)
        }

    def splits(self, task: str) -> tuple[list[int], list[int], list[int]]:
        """A task's variations for train, dev and test; with `tasks`, what `TASKS` was made of and is tested against."""
        self.load(Spec(task, 0, ""))
        splits = (self._server.getVariationsTrain, self._server.getVariationsDev, self._server.getVariationsTest)
        train, dev, test = (json.loads(asked(asked(split).toString)) for split in splits)
        return train, dev, test

    def simplified(self) -> set[str]:
        """The simplifications of the episode, as it understood them."""
        return set(str(asked(self._server.getSimplificationsUsed)).split(", ")) - {"", "<empty>"}

    def templates(self) -> list[str]:
        """The actions of the episode, as it would list them itself."""
        return self._listed(self._server.getPossibleActions)

    def _seen(self, observation: str | None, score: int, completed: bool, valid: bool) -> Seen:
        """What there is to see. The order of the calls is part of what an episode is; see the module."""
        moves, look = int(asked(self._server.getNumMoves)), str(asked(self._server.freeActionLook))
        inventory, objects = str(asked(self._server.freeActionInventory)), self._listed(self._server.getPossibleObjects)
        said = look if observation is None else observation
        listed = self.valid() if valid else None
        return Seen(said, score, completed, moves, look, inventory, objects, listed)

    def _listed(self, function: Callable[[], Any]) -> list[str]:
        """A list of Java's, in one round trip where py4j would make one for each entry."""
        entries = asked(function)
        told = str(asked(self._join, "\n", entries))
        asked(self._gateway.detach, entries)
        return told.splitlines()
