"""Pictures for a paper or a README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.report.charts import COLORS
from icrl_graph.benchmarks.statistics import Estimate
from icrl_graph.benchmarks.summary import Method, Summary
from icrl_graph.errors import missing_extra

LEGEND = 130
"""Letters beside each other under the curves, a line of six among them for each."""


def draw(summary: Summary, path: Path) -> None:
    """What the methods come to by round, and by calls, with 95 % intervals.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    measure = summary["measures"][0]
    drawing = figure(10, 4.4)
    left, right = drawing.subplots(1, 2)
    draw_rewards(summary, left)
    for method, style in _styled(summary):
        points = method["budget"].get("calls", [])
        draw_curve(right, [point["value"] for point in points], [point["budget"] for point in points], **style)
    right.set(title=f"{'solved' if measure == 'success' else measure} within so many calls", xlabel="calls")
    _tidy(right)
    if measure == "success":
        right.set_ylim(-0.02, 1.02)
    longest = max((len(method["arm"]) for method in summary["methods"]), default=0)
    columns = max(1, min(4, LEGEND // (longest + 6)))
    drawing.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    drawing.suptitle(f"{summary['benchmark']}: {summary['tasks']} tasks, {summary['model']}", fontsize=11)
    drawing.savefig(path, dpi=130)


def draw_rewards(summary: Summary, axes: Any) -> None:
    """The mean reward of each method by round, with 95 % intervals."""
    for method, style in _styled(summary):
        draw_curve(axes, method["reward"], **style)
    axes.set(title="reward of each attempt", xlabel="attempt")
    _tidy(axes)


def _styled(summary: Summary) -> Iterator[tuple[Method, dict[str, Any]]]:
    for place, method in enumerate(summary["methods"]):
        yield method, {"color": COLORS[place % len(COLORS)], "label": method["arm"]}


def figure(width: float, height: float) -> Any:
    """An empty figure, in inches, that needs no display.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise missing_extra("matplotlib", "report") from missing
    empty = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(empty)
    return empty


def draw_curve(axes: Any, curve: Sequence[Estimate], span: Iterable[float] | None = None, **style: Any) -> None:
    """A curve with its intervals.

    Args:
        axes: where it is drawn.
        curve: its points; those without a mean are left out.
        span: the place of each point; the rounds, from 1, without it.
        style: of its line, with a `color`.
    """
    places = range(1, len(curve) + 1) if span is None else span
    points = list(zip(places, curve, strict=True))
    known = [(at, point) for at, point in points if point["mean"] is not None]
    style = {"marker": "o", "markersize": 3, **style}
    axes.plot([at for at, _ in known], [point["mean"] for _, point in known], **style)
    sure = [(at, point["low"], point["high"]) for at, point in points if point["low"] is not None]
    at, low, high = zip(*sure, strict=True) if sure else ((), (), ())
    axes.fill_between(at, low, high, alpha=0.15, color=style["color"], linewidth=0)


def draw_arms(arms: Sequence[Any], titles: Mapping[str, str], rounds: int, height: float) -> tuple[Any, Sequence[Any]]:
    """Curves of several arms, each kind in axes of its own, side by side.

    Args:
        arms: with a `name` and a curve under each name of `titles`.
        titles: of the axes, by the name of the curve.
        rounds: of a curve.
        height: of the figure, in inches.

    Returns:
        The figure and its axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawing = figure(10, height)
    every = drawing.subplots(1, len(titles), sharey=True)
    for axes, (name, title) in zip(every, titles.items(), strict=True):
        for place, arm in enumerate(arms):
            draw_curve(axes, arm[name], label=arm["name"], color=f"C{place}")
        label_axes(axes, title, rounds)
    return drawing, every


def label_axes(axes: Any, title: str, rounds: int) -> None:
    """Title, limits and grid of axes that hold shares or rewards by round."""
    ticks = [k for k in range(1, rounds + 1) if rounds <= 8 or k == 1 or k % 4 == 0]
    _tidy(axes)
    axes.set(title=title, xlabel="round", ylim=(0, 1.02), xticks=ticks)


def _tidy(axes: Any) -> None:
    axes.locator_params(axis="x", integer=True)  # rounds and calls are whole
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
