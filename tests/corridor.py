"""A small world for tests: rooms in a row, a treasure at one end, a trap at the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icrl_graph.environments import EnvironmentLost, Outcome


class Corridor:
    """Start in the middle; `left` and `right` walk, the treasure lies at the right end (+1), a trap at the left (-1).

    Attributes:
        log: what was done in all worlds that share it, with resets.
        dies_at: the number of the step, counted over all of them, at which the world dies.
    """

    def __init__(self, log: list[str] | None = None, dies_at: int | None = None) -> None:
        self.log, self.dies_at = [] if log is None else log, dies_at
        self.at, self.length = 0, 0

    def reset(self, task_data: Mapping[str, Any]) -> str | Outcome:
        self.length = int(task_data.get("length", 2))
        self.at = 0
        self.log.append("reset")
        return f"You are in room {self.at}."

    def step(self, action: str) -> Outcome:
        self.log.append(action)
        if self.dies_at is not None and sum(each != "reset" for each in self.log) == self.dies_at:
            raise EnvironmentLost("it died")
        moved = {"left": -1, "right": 1}.get(action)
        if moved is None:
            return Outcome("No known action matches that input.")
        self.at += moved
        if abs(self.at) == self.length:
            won = self.at > 0
            return Outcome("A treasure!" if won else "A trap!", 1.0 if won else -1.0, True, won, {"at": self.at})
        return Outcome(f"You are in room {self.at}.", 0.1 if moved > 0 else 0.0)

    def close(self) -> None: ...
