"""What a benchmark is: tasks, their evaluator, and what counts as solved; also read from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.models.policy import Policy
from icrl_graph.state.episode import plain
from icrl_graph.topologies.nodes import check_task

Inputs = Mapping[str, Any]
"""What goes into a graph: task and task_data."""


@dataclass(frozen=True)
class Benchmark:
    """Tasks, and how answers to them are judged."""

    about: str
    items: Callable[[], Sequence[str]]
    """The names of its held-out items, in their fixed order."""
    read: Callable[[str], Inputs]
    """Makes the inputs of an item's name, also of one that is not held out. Raises ValueError if there is none."""
    evaluator: Evaluator | None = None
    """The exact one, if there is one."""
    judged: Callable[[Any], Evaluator] | None = None
    """Makes an evaluator of a model that judges."""
    solved_at: float | None = 1.0
    """The metric from which a task counts as solved; None where nothing does."""
    model: str | None = None
    """The learner that plays it, where none is named."""
    player: Callable[[Any], Callable[..., Policy]] | None = None
    """Of a model, makes what makes policies of it, where a task is an episode of many turns; `thoughts=True` makes one
    that thinks aloud."""
    metric: Evaluator | None = None
    """What is reported, where it is not the reward."""
    rounds: int = 8
    """Attempts at a task, where nobody says how many."""
    limit: int | None = 50
    """Tasks, where nobody says how many; None for all."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else its protocol says, as options of a topology."""

    def choose(self, patterns: Sequence[str] = ()) -> list[str]:
        """The names of its items, or of those that are asked for.

        Args:
            patterns: names, also of items that are not held out, or patterns of names such as "find-*"; none for all
                that are held out.

        Raises:
            ValueError: there is no such item.
        """
        names = list(self.items())
        chosen = [name for pattern in patterns for name in self._named(pattern, names)]
        return list(dict.fromkeys(chosen)) if patterns else names

    def _named(self, pattern: str, names: Sequence[str]) -> list[str]:
        if pattern in names:
            return [pattern]
        if found := [name for name in names if fnmatchcase(name, pattern)]:
            return found
        if set(pattern) & set("*?"):
            raise ValueError(f"no task is named like {pattern!r}; they are {', '.join(names[:5])}, ...")
        self.read(pattern)
        return [pattern]


def from_file(path: Path) -> Benchmark:
    """Tasks of your own: a JSON object in each line, with `task` and, if you like, `task_data` and `id`.

    Raises:
        ValueError: the file or one of its lines can't be read; says which and why.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also split at signs within a text
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the tasks of {path} can't be read: {error}") from None
    items: dict[str, Inputs] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, inputs = _read_line(line, f"{path}, line {number}")
            name = str(number) if name is None else name
            if name in items:
                raise ValueError(f"{path}, line {number}: there is a task {name!r} already; ids must differ")
            items[name] = inputs
    if not items:
        raise ValueError(f"{path} holds no task")

    def read(text: str) -> Inputs:
        if text not in items:
            raise ValueError(f"{path} has no task {text!r}")
        return items[text]

    return Benchmark(about=f"the tasks of {path}", items=lambda: list(items), read=read, solved_at=None)


def _read_line(line: str, where: str) -> tuple[str | None, Inputs]:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: this is no JSON: {error}") from None
    if not isinstance(given, dict) or "task" not in given or (strange := given.keys() - {"id", "task", "task_data"}):
        told = f"unknown {', '.join(sorted(strange))}" if isinstance(given, dict) and "task" in given else "no task"
        raise ValueError(f"{where}: {told}; a line holds an object with task and, if you like, task_data and id")
    name, data = given.get("id"), given.get("task_data") or {}
    if not isinstance(data, dict):
        raise ValueError(f"{where}: task_data must be an object, got {data!r:.80}")
    try:
        inputs = {"task": check_task(given["task"]), "task_data": plain(data, "task_data")}
    except ValueError as wrong:
        raise ValueError(f"{where}: {wrong}") from None
    return None if name is None else str(name), inputs
