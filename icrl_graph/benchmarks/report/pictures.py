"""Pictures for a paper or a README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.demos import figure
from icrl_graph.benchmarks.report.charts import COLORS
from icrl_graph.benchmarks.summary import Summary


def draw(summary: Summary, path: Path) -> None:
    """What the methods come to by round, and by calls, with 95 % intervals.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    measure = summary["measures"][0]
    drawn = figure(10, 4.4)
    left, right = drawn.subplots(1, 2)
    for place, method in enumerate(summary["methods"]):
        style: dict[str, Any] = {"color": COLORS[place % len(COLORS)], "label": method["arm"]}
        _band(left, range(1, len(method["reward"]) + 1), method["reward"], **style)
        points = method["budget"].get("calls", [])
        _band(right, [point["budget"] for point in points], [point["value"] for point in points], **style)
    left.set(title="reward of the round's attempt", xlabel="round")
    right.set(title=f"{'solved' if measure == 'success' else measure} within so many calls", xlabel="calls")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if measure == "success":
        right.set_ylim(-0.02, 1.02)
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    drawn.suptitle(f"{summary['benchmark']}: {summary['tasks']} tasks, {summary['model']}", fontsize=11)
    drawn.savefig(path, dpi=130)


def _band(axes: Any, span: Any, curve: Any, **style: Any) -> None:
    known = [(at, point) for at, point in zip(span, curve, strict=True) if point["mean"] is not None]
    at = [x for x, _ in known]
    axes.plot(at, [point["mean"] for _, point in known], marker="o", markersize=3, **style)
    sure = [(x, point) for x, point in known if point["low"] is not None]
    low, high = ([point[end] for _, point in sure] for end in ("low", "high"))
    axes.fill_between([x for x, _ in sure], low, high, alpha=0.15, color=style["color"], linewidth=0)
