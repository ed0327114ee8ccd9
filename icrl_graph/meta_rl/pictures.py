"""A picture of what players come to, episode by episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from icrl_graph.benchmarks.report.charts import COLORS
from icrl_graph.benchmarks.report.pictures import draw_curve, figure
from icrl_graph.meta_rl.evaluation import Learning

COLUMNS = 3


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
            draw_curve(axes, played["reward"], label=name, color=COLORS[place % len(COLORS)])
        axes.set(title=f"{group['group']} ({group['tasks']} tasks)", xlabel="episode")
    for axes in grid.flat[len(groups) :]:
        axes.axis("off")
    grid[0, 0].set(ylabel="reward")
    drawing.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    drawing.savefig(path, dpi=130)
