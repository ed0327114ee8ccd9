"""Pictures of what players come to, episode by episode, and of how a training went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.report.charts import COLORS
from icrl_graph.benchmarks.report.pictures import draw_curve, figure
from icrl_graph.meta_rl.evaluation import Learning

COLUMNS = 3
STAGES = {"distil": "divergence from the teacher, nats", "reinforce": "mean reward"}
"""What the logs of the stages of a training say, by their folders."""


def draw(groups: Sequence[Learning], path: Path) -> None:
    """Mean reward by episode of each group of tasks, with 95 % intervals.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    drawing = figure(4.2 * columns, 3.4 * rows + 0.6)
    grid = drawing.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, group in zip(grid.flat, groups, strict=False):
        for place, (name, played) in enumerate(group["players"].items()):
            style: dict[str, Any] = {
                "label": name,
                "color": COLORS[place % len(COLORS)],
                "zorder": 3 if place == 0 else 2,
            }
            draw_curve(axes, played["reward"], **style)  # the model above those that earn as much
        axes.locator_params(axis="x", integer=True)
        axes.set(title=f"{group['group']} ({group['tasks']} tasks)", xlabel="episode")
    for axes in grid.flat[len(groups) :]:
        axes.axis("off")
    grid[0, 0].set(ylabel="reward")
    drawing.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, 3 * columns), frameon=False
    )
    drawing.savefig(path, dpi=130)


def draw_training(folder: Path, path: Path) -> None:
    """How far a model was from its teacher by iteration, and what its trials then came to, first to last episode.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawing = figure(10, 3.8)
    for axes, (stage, label) in zip(drawing.subplots(1, 2), STAGES.items(), strict=True):
        log = folder / stage / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        episodes = max(len(line["by_episode"]) for line in lines)
        for episode in range(episodes):
            points = [(line["iteration"], *line["by_episode"][episode : episode + 1]) for line in lines]
            whole = [point for point in points if len(point) > 1]
            shade = 0.25 + 0.75 * episode / max(1, episodes - 1)
            style: dict[str, Any] = {
                "color": COLORS[0],
                "alpha": shade,
                "lw": 1,
                "marker": "" if len(whole) > 1 else "o",
            }
            axes.plot(*zip(*whole, strict=True), label=f"episode {episode + 1}", **style)
        axes.locator_params(axis="x", integer=True)
        axes.set(xlabel="iteration", title=label)
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    drawing.savefig(path, dpi=130)
