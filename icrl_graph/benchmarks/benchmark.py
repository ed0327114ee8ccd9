"""A benchmark: tasks, their evaluator, and what counts as solved; also read from a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from icrl_graph.benchmarks.datasets import HUB, Fields, Row, entry_of, read_rows
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.models.policy import Policy
from icrl_graph.state.episode import plain
from icrl_graph.state.unicode import cleaned
from icrl_graph.topologies.nodes import check_task

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Any]
"""The input of a graph: task and task_data."""


@dataclass(frozen=True)
class Benchmark:
    """Tasks, and how answers to them are judged.

    Attributes:
        about: one line for a list of benchmarks.
        items: gives the names of its held-out tasks, in their fixed order.
        read: makes the input of a graph, `task` and `task_data`, from the name of a task, also of one that is not held
            out. Raises ValueError if there is none of that name.
        evaluator: the exact one, or None: then each comparison names one, or a judge.
        judged: makes an evaluator from a model that judges, or None.
        rubric: what makes an answer good, for a judge that compares two of them, or None.
        solved_at: the metric from which a task counts as solved; None where nothing counts as solved.
        model: the name of the learner that plays it, where a comparison names no model.
        player: where a task is an episode of many turns: makes, from a model, a function that makes policies;
            `thoughts=True` makes one that thinks ahead of each action.
        metric: what is reported, where it is not the reward.
        rounds: attempts at each task, where a comparison sets no number.
        limit: number of tasks, where a comparison sets none; None for all.
        options: the rest of its protocol, as options of a topology.
        own: reads its tasks, by their names, from a user's copy of the published data (`find_benchmark`).

    Examples:
        >>> SUMS = {"small": ("What is 2 + 3?", 5), "large": ("What is 278 + 355?", 633)}
        >>> benchmark = Benchmark(
        ...     about="two sums",
        ...     items=lambda: list(SUMS),
        ...     read=lambda name: {"task": SUMS[name][0], "task_data": {"sum": SUMS[name][1]}},
        ...     evaluator=lambda response, task_data: float(str(task_data["sum"]) in response),
        ... )
        >>> benchmark.choose(["l*"])
        ['large']
    """

    about: str
    items: Callable[[], Sequence[str]]
    read: Callable[[str], Inputs]
    evaluator: Evaluator | None = None
    judged: Callable[[Any], Evaluator] | None = None
    rubric: str | None = None
    solved_at: float | None = 1.0
    model: str | None = None
    player: Callable[[Any], Callable[..., Policy]] | None = None
    metric: Evaluator | None = None
    rounds: int = 8
    limit: int | None = 50
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Callable[[str], Mapping[str, Inputs]] | None = None

    def inputs(self, name: str) -> dict[str, Any]:
        """The task of a name, as the input of a graph.

        Raises:
            ValueError: there is no such task, or `read` gives something else.
        """
        made = self.read(name)
        if not isinstance(made, Mapping) or not {"task"} <= made.keys() <= {"task", "task_data"}:
            raise ValueError(
                f'read must give {{"task": ..., "task_data": ...}} for a name, the latter if there is any; got '
                f"{made!r:.80} for {name!r}"
            )
        return {"task_data": {}, **made}

    def choose(self, patterns: Sequence[str] = ()) -> list[str]:
        """The names of its tasks, all or some.

        Args:
            patterns: names, also of tasks that are not held out, or patterns of names such as "find-*"; none for all
                that are held out.

        Raises:
            ValueError: there is no such task.
        """
        names = list(self.items())
        chosen = [name for pattern in patterns for name in self._named(pattern, names)]
        return list(dict.fromkeys(chosen)) if patterns else names

    def _named(self, pattern: str, names: Sequence[str]) -> list[str]:
        if pattern in names:
            return [pattern]
        if matching := [name for name in names if fnmatchcase(name, pattern)]:
            return matching
        if set(pattern) & set("*?"):
            raise ValueError(f"no task is named like {pattern!r}; they are {', '.join(names[:5])}, ...")
        self.inputs(pattern)
        return [pattern]


def from_file(path: Path) -> Benchmark:
    """Custom tasks: a JSON object in each line, with `task` and, optionally, `task_data` and `id`.

    Raises:
        ValueError: the file or one of its lines can't be read; says which and why.
    """
    return from_data(str(path))


def from_data(source: str, fields: Fields = MappingProxyType({})) -> Benchmark:
    """The tasks of a data set, a task from each row.

    Args:
        source: a file or a data set of the hub; see `icrl_graph.benchmarks.datasets`.
        fields: from which columns a task is made, such as {"task": "problem", "target": "answer"}, which makes the
            task data {"target": ...}; empty for rows that have `task` and, optionally, `task_data` and `id`.

    Raises:
        ValueError: the data set or one of its rows can't be read; says which and why.
        MissingExtra: a package is missing that reads files of its kind.
    """
    try:
        items = _tasks(*_as_of_now(source), tuple(fields.items()))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the tasks of {source} can't be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{source}, {error}") from None
    if not items:
        raise ValueError(f"{source} has no tasks")

    def read(text: str) -> Inputs:
        if text not in items:
            raise ValueError(f"{source} has no task {text!r}")
        return items[text]

    return Benchmark(about=f"the tasks of {source}", items=lambda: list(items), read=read, solved_at=None)


def _as_of_now(source: str) -> tuple[str, str, tuple[float, ...]]:
    """What the tasks of a source are remembered by: of a file also its place, and when it was last changed."""
    if source.startswith(HUB):
        return source, source, ()
    stat = Path(source).stat()
    return source, str(Path(source).resolve()), (stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _tasks(
    source: str, place: str, changed: tuple[float, ...], fields: tuple[tuple[str, str], ...]
) -> Mapping[str, Inputs]:
    """The tasks of a data set by their ids: a long one is read once."""
    items: dict[str, Inputs] = {}
    places: dict[str, list[str]] = {}
    for where, row in read_rows(place):
        unit, _, number = where.partition(" ")
        try:
            name, inputs = _read_row(row, dict(fields))
            name = number if name is None else name
            if name in items:
                raise ValueError(f"duplicate id {name!r}; ids must differ")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        items[name] = inputs
        places.setdefault(json.dumps(inputs, sort_keys=True), []).append(number)
    for same in filter(lambda numbers: len(numbers) > 1, places.values()):
        numbers = ", ".join(same[:10]) + (", ..." if len(same) > 10 else "")
        told = "%s: %ss %s hold the same task, and each counts as a task of its own"
        logger.warning(told, source, unit, numbers)
    return items


def _read_row(row: Row, fields: Fields) -> tuple[str | None, Inputs]:
    entry = cleaned(entry_of(row, fields))
    has_task = isinstance(entry, dict) and "task" in entry
    if not has_task or (unknown := entry.keys() - {"id", "task", "task_data"}):
        problem = f"unknown {', '.join(sorted(unknown))}" if has_task else "no task"
        raise ValueError(
            f"{problem}; a row holds task and, optionally, task_data and id; or say from which columns tasks are made, "
            "as by --map task=question,target=answer"
        )
    name, data = entry.get("id"), entry.get("task_data") or {}
    if not isinstance(data, dict):
        raise ValueError(f"task_data must be an object, got {data!r:.80}")
    inputs = {"task": check_task(entry["task"]), "task_data": plain(data, "task_data")}
    return None if name is None else str(name), inputs
