"""The demos: shipped learners against their controls, on held-out tasks and through the real graphs.

A demo is a module with `opening` (one game, told as it goes), `play` (all arms, row by row), `summarize`, `report`
(what the figures say, to be printed) and `plot`. What they share stands here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.statistics import Interval, half_width
from icrl_graph.errors import missing_extra


def write(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], folder: Path) -> None:
    """Write results.jsonl, one line for each attempt, and summary.json, into a folder that exists."""
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


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
    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def draw_curve(axes: Any, curve: Sequence[Interval], label: str, **style: Any) -> None:
    """A curve over the rounds, counted from 1, with its intervals."""
    rounds = range(1, len(curve) + 1)
    (line,) = axes.plot(rounds, [point["mean"] for point in curve], marker="o", markersize=3, label=label, **style)
    low, high = ([point[end] for point in curve] for end in ("low", "high"))
    axes.fill_between(rounds, low, high, alpha=0.15, color=line.get_color(), linewidth=0)


def dress(axes: Any, title: str, rounds: int) -> None:
    """Title, limits and grid of axes that hold shares or rewards by round."""
    ticks = [k for k in range(1, rounds + 1) if rounds <= 8 or k == 1 or k % 4 == 0]
    axes.set(title=title, xlabel="round", ylim=(0, 1.02), xticks=ticks)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def short(value: float) -> str:
    """A share with two digits, without the leading zero."""
    return f"{value:.2f}".removeprefix("0")


def signed(found: Interval) -> str:
    """A difference with its interval."""
    return f"{found['mean']:+.2f} ±{short(half_width(found))}"
