"""The simulator's Java interface: one process, one thread, and calls in one order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from icrl_graph.environments.java import JVM, call_java
from icrl_graph.environments.scienceworld.tasks import Spec
from icrl_graph.environments.scienceworld.templates import allowed
from icrl_graph.errors import SimulatorError, missing_extra

PATIENCE = 60.0
"""Seconds that the simulator may take to start, and for one call; an action takes 0.02 on a quiet machine."""
UNKNOWN = "No known action matches that input."
"""The simulator's reply to a text that it can't read; nothing has happened then."""


class Snapshot(NamedTuple):
    """What the simulator shows after an action: score from 0 to 100, or -100; moves count its units of time."""

    observation: str
    score: int
    completed: bool
    moves: int
    look: str
    inventory: str
    objects: list[str]
    valid: list[str] | None


class Simulator:
    """The simulator in a separate JVM. To be used in one thread, but for `jvm.kill`.

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
        java = self._gateway.jvm  # each name looked up in here is a call
        self._server = call_java(lambda: java.scienceworld.runtime.pythonapi.PythonInterface())
        self._join = call_java(lambda: java.java.lang.String.join)

    def load(self, spec: Spec, valid: bool = False, gold: bool = False) -> Snapshot:
        """Begin an episode.

        Args:
            spec: which.
            valid: whether to list the valid actions.
            gold: whether to compute a solution, for up to a minute. A simulator that did so once does so again for
                whatever it loads later.
        """
        self.episodes += 1
        call_java(self._server.load, spec.task, spec.variation, spec.simplification, gold)
        if call_java(self._server.errorUnknownEnvironment):
            raise SimulatorError(f"the simulator can't load {spec}: {call_java(self._server.errorStr)}")
        return self._snapshot(None, 0, False, valid)  # its score is still the last episode's

    def step(self, action: str, valid: bool = False) -> Snapshot:
        """Act.

        Raises:
            SimulatorError: an exception within it; from then on it would report that whatever is done.
        """
        observation = str(call_java(self._server.step, action))
        score, completed = round(100 * call_java(self._server.getScore)), bool(call_java(self._server.getCompleted))
        snapshot = self._snapshot(observation, score, completed, valid)
        if snapshot.score < 0:
            inner = call_java(call_java(self._server.agentInterface).get)
            if call_java(inner.isInErrorState):
                raise SimulatorError(f"the simulator failed at {action!r}: {call_java(inner.getErrorStateMessage)}")
        return snapshot

    def valid(self) -> list[str]:
        """All valid actions. The call is part of the episode: random numbers are drawn for it."""
        return [*filter(allowed, self._read_list(self._server.getValidActionObjectCombinations))]

    def description(self) -> str:
        """The task in words."""
        return str(call_java(self._server.getTaskDescription))

    def gold(self) -> list[str]:
        """The solution, if the episode was loaded with one."""
        return self._read_list(self._server.getGoldActionSequence)

    def tasks(self) -> dict[str, int]:
        """All tasks, and how many variations each has."""
        return {
            name: int(call_java(self._server.getTaskMaxVariations, name))
            for name in self._read_list(self._server.getTaskNames)
        }

    def splits(self, task: str) -> tuple[list[int], list[int], list[int]]:
        """A task's variations for train, dev and test. `TASKS` is tested against these and `tasks`."""
        self.load(Spec(task, 0, ""))
        splits = (self._server.getVariationsTrain, self._server.getVariationsDev, self._server.getVariationsTest)
        train, dev, test = (json.loads(call_java(call_java(split).toString)) for split in splits)
        return train, dev, test

    def simplified(self) -> set[str]:
        """The simplifications of the episode, as the simulator parsed them."""
        return set(str(call_java(self._server.getSimplificationsUsed)).split(", ")) - {"", "<empty>"}

    def templates(self) -> list[str]:
        """The templates of the episode's actions, as the simulator lists them."""
        return self._read_list(self._server.getPossibleActions)

    def _snapshot(self, observation: str | None, score: int, completed: bool, valid: bool) -> Snapshot:
        """A snapshot. The order of the calls is part of the episode; see the package."""
        moves, look = int(call_java(self._server.getNumMoves)), str(call_java(self._server.freeActionLook))
        inventory, objects = (
            str(call_java(self._server.freeActionInventory)),
            self._read_list(self._server.getPossibleObjects),
        )
        shown = look if observation is None else observation
        actions = self.valid() if valid else None
        return Snapshot(shown, score, completed, moves, look, inventory, objects, actions)

    def _read_list(self, function: Callable[[], Any]) -> list[str]:
        """A list of Java's, in one round trip where py4j would make one for each entry."""
        entries = call_java(function)
        joined = str(call_java(self._join, "\n", entries))
        call_java(self._gateway.detach, entries)
        return joined.splitlines()


def capacity() -> int:
    """The number of simulators that this machine has processors and memory for (0.5 GB each)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // 2**29))
