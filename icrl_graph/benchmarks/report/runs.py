"""Every run, attempt by attempt, with the exact prompt of each: made again from its plan, for no prompt is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from icrl_graph.benchmarks.arms import graph_of
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.tables import in_order, shown_names
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.prompts.templates import label
from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Episode, LoopState, Message, cost_of, error_of, reasoning_of, value_of
from icrl_graph.state.loading import NotImported, importing_nothing
from icrl_graph.state.selection import metric_of
from icrl_graph.topologies import settings
from icrl_graph.topologies.base import Graph

MOST_CHARACTERS = 8_000_000
"""Of all runs on a page, about; further runs are left out, and counted."""


class Browsed(TypedDict):
    """The runs of a page."""

    runs: list[dict[str, Any]]
    messages: list[list[str]]
    """Role and text of each message of any prompt, once; prompts are lists of places in it."""
    left_out: int


def browse(plan: Plan, rows: Mapping[Cell, Row], trust: bool = False) -> Browsed:
    """The runs of a comparison, those on one task next to each other.

    Args:
        plan: that of the comparison.
        rows: its runs.
        trust: whether code may be imported that the plan names, as it takes to make the prompts of custom parts again.
    """
    with importing_nothing(unless=trust):
        graphs = {arm: _graph(plan, arm) for arm in plan.arms}
    known: dict[tuple[str, str], int] = {}
    runs: list[dict[str, Any]] = []
    tasks, names = in_order(plan, dict.fromkeys(cell.item for cell in rows)), shown_names(plan.arms)
    places = {task: at for at, task in enumerate(tasks)}
    ordered = sorted(
        (cell for cell, row in rows.items() if "error" not in row),
        key=lambda cell: (places[cell.item], cell.seed, plan.arms.index(cell.arm)),
    )
    written = 0
    for number, cell in enumerate(ordered):
        if written > MOST_CHARACTERS:
            return Browsed(runs=runs, messages=[list(message) for message in known], left_out=len(ordered) - number)
        before = len(known)
        run = _run(cell, rows[cell], graphs[cell.arm], known)
        runs.append({**run, "arm": names[cell.arm]})
        written += sum(len(text) for _, text in list(known)[before:])
        for attempt in runs[-1]["attempts"]:
            written += sum(len(attempt[name] or "") for name in ("response", "reasoning")) + 8 * len(attempt["prompt"])
    return Browsed(runs=runs, messages=[list(message) for message in known], left_out=0)


def task_texts(rows: Mapping[Cell, Row]) -> dict[str, str]:
    """By task, what it says; of several that are named alike up to a colon, the first."""
    texts: dict[str, str] = {}
    for cell, row in rows.items():
        if "task" in row:
            texts.setdefault(cell.item.partition(":")[0], text_of(row["task"]))
    return texts


def prompts(graph: Graph, row: Row) -> list[list[Message]]:
    """The prompt of each attempt of a run, made again."""
    state = LoopState(
        inputs={"task": row["task"], "task_data": row["task_data"]},
        settings=settings.resolve(graph.parts.schema, None),
        episodes=row["episodes"],
    )
    return [graph.prompt(state, at) for at in range(len(row["episodes"]))]


def not_shown(plan: Plan) -> list[str]:
    """The arms whose prompts are not shown because code would have to be imported."""
    with importing_nothing():
        return [arm for arm in plan.arms if _graph(plan, arm) is None]


def _graph(plan: Plan, arm: str) -> Graph | None:
    try:
        return graph_of(plan, arm)
    except NotImported:
        return None


NOT_SHOWN: list[Message] = [
    {
        "role": "not shown",
        "content": "The prompt is made by code that the folder names; a report with --trust has it.",
    }
]


def _run(cell: Cell, row: Row, graph: Graph | None, known: dict[tuple[str, str], int]) -> dict[str, Any]:
    made = [NOT_SHOWN] * len(row["episodes"]) if graph is None else prompts(graph, row)
    chosen = [place for place in row["chosen"] if place is not None]
    return {
        **cell._asdict(),
        "task": known.setdefault(("task", text_of(row["task"])), len(known)),
        "reward": row["reward"],
        "metric": row["metric"],
        "stopped": row["stopped"],
        "chosen": chosen[-1] + 1 if chosen else None,
        "attempts": attempts(row["episodes"], made, known),
    }


def attempts(
    episodes: Sequence[Episode], prompts: Sequence[Sequence[Message]], known: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """The attempts of a run as a page shows them.

    Args:
        episodes: the attempts.
        prompts: of each of them; none at all where they are not made.
        known: role and text of each message by its place; new ones are added.
    """
    return [
        {
            "round": number,
            "instruction": label(episode["plan"]["instruction"]),
            "model": episode.get("model"),
            "response": episode.get("response"),
            "reasoning": reasoning_of(episode) or None,
            "cut": episode.get("cut", False),
            "warning": episode.get("warning"),
            "played": bool(episode.get("steps")),
            "reward": value_of(episode),
            "steps": episode.get("reward", {}).get("steps", []),
            "shown": episode.get("shown", {}).get("value"),
            "metric": metric_of(episode),
            "passes": episode.get("passes", []),
            "retests": episode.get("retests") or [],
            "feedback": episode.get("reward", {}).get("feedback"),
            "reflection": episode.get("reflection"),
            "error": error_of(episode),
            "cost": {name: amount for name, amount in cost_of(episode).items() if name != "seconds"},
            "prompt": [known.setdefault((message["role"], text_of([message])), len(known)) for message in prompt],
        }
        for number, (episode, prompt) in enumerate(zip(episodes, prompts or [()] * len(episodes), strict=True), 1)
    ]
