"""The control of swapped histories: each episode follows the earlier episodes of another hidden instance.

The chat has the same form, true rewards, and nothing to learn from. What a player comes to in it is what the form of a
long chat does for it. It is played on what a comparison has saved, one answer for each episode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.scores import answered_first
from icrl_graph.prompts.layouts import Style, as_messages, turns
from icrl_graph.state.episode import add_usage

ARM = "icrl+history=swapped"
"""The name that it has in tables. `icrl bench` has no such arm: a task is not enough to play it."""
PLAYED = "best_of_n+n=1+schedule=plain"
"""What plays the tasks of `write`: one answer to each chat."""


def write(rows: Mapping[Cell, Row], group: Callable[[str], str], rounds: int, path: Path) -> int:
    """Write a task for each episode of each run of `icrl`: its own task, then the earlier episodes of another run.

    Args:
        rows: of a comparison; the runs of its arm `icrl`.
        group: gives the group of an item; histories are swapped within it, each with the next one.
        rounds: of each run.
        path: of the file of tasks, JSON lines, as `icrl bench` reads them.

    Returns:
        How many there are.
    """
    tasks, unfinished = [*_tasks(rows, group, rounds)], path.with_suffix(".tmp")
    unfinished.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")
    os.replace(unfinished, path)
    return len(tasks)


def _tasks(rows: Mapping[Cell, Row], group: Callable[[str], str], rounds: int) -> Iterator[dict[str, Any]]:
    runs: dict[tuple[str, int], list[Row]] = {}
    for cell, row in sorted(rows.items(), key=lambda pair: pair[0]):  # whatever the order in which they have ended
        if cell.arm == "icrl" and "error" not in row:
            runs.setdefault((group(cell.item), cell.seed), []).append(answered_first(row, rounds))
    for (_, seed), played in runs.items():
        for row, other in zip(played, [*played[1:], played[0]], strict=True):
            for number in range(len(row["episodes"])):
                task = turns([], as_messages(row["task"]), other["episodes"][:number], "", Style())
                yield {"id": _name(row["item"], seed, number), "task": task, "task_data": row["task_data"]}


def _name(item: str, seed: int, episode: int) -> str:
    return f"{item}/{seed}/{episode}"


def joined(rows: Mapping[Cell, Row]) -> dict[Cell, Row]:
    """The runs of the control: those of its tasks, put together again. One whose part is missing is left out."""
    parts: dict[tuple[str, int], dict[int, Row]] = {}
    for cell, row in rows.items():
        item, seed, episode = cell.item.rsplit("/", 2)
        if "error" not in row:
            parts.setdefault((item, int(seed)), {})[int(episode)] = answered_first(row, 1)
    return {
        Cell(ARM, item, seed): _joined(item, seed, [played[number] for number in range(len(played))])
        for (item, seed), played in parts.items()
        if played.keys() == set(range(len(played)))
    }


def _joined(item: str, seed: int, parts: Sequence[Row]) -> Row:
    episodes = [{**part["episodes"][0], "round": number} for number, part in enumerate(parts)]
    usage = add_usage(*(part["usage"] for part in parts))
    own = {"arm": ARM, "item": item, "seed": seed, "episodes": episodes, "usage": usage, "stopped": "rounds"}
    return {**parts[0], **own, "chosen": [*range(len(parts))]}  # type: ignore[typeddict-item]
