"""The charts of the page: figures for Plotly, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from icrl_graph.benchmarks.comparison import Estimate
from icrl_graph.benchmarks.summary import Summary, amount, is_told

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Told apart also by the color-blind (M. Okabe and K. Ito, "Color Universal Design")."""
DASHES = ("solid", "dash", "dot")
"""Once all colors are taken."""
WORDS = {"calls": "paid calls", "tokens": "tokens, in and out", "usd": "US dollars"}


class Chart(NamedTuple):
    """One chart of the page."""

    name: str
    title: str
    what: str
    figure: dict[str, Any]


def draw(summary: Summary) -> list[Chart]:
    """All charts that the figures give."""
    return [*_by_round(summary), *_by_budget(summary), *_bars(summary)]


def _by_round(summary: Summary) -> Iterator[Chart]:
    measure = summary["measures"][0]
    if measure == "success":
        what = "Share of tasks that the answer of the run solves, if it were ended after this round."
        yield _curves("solved", "Solved by round", what, summary, "solved", "round", (-0.02, 1.02))
    else:
        what = f"The {'metric' if measure == 'metric' else 'reward'} of what the run would answer after this round."
        yield _curves("answer", "The answer so far, by round", what, summary, "answer", "round")
    what = "Of the attempt of this round: what the method sees of how good it is."
    yield _curves("reward", "Reward (seen) by round", what, summary, "reward", "round")
    if any(method["metric"] != method["reward"] for method in summary["methods"]):
        what = "Of the same attempts: what is reported. Where the reward rises and this does not, the reward is gamed."
        yield _curves("metric", "Metric (true) by round", what, summary, "metric", "round")
    what = "The highest reward of any attempt up to this round."
    yield _curves("best", "Best reward so far", what, summary, "best", "round")


def _by_budget(summary: Summary) -> Iterator[Chart]:
    for unit, words in WORDS.items():
        curves = {m["arm"]: m["budget"][unit] for m in summary["methods"] if unit in m["budget"]}
        if curves:
            spans = {arm: [point["budget"] for point in points] for arm, points in curves.items()}
            values = {arm: [point["value"] for point in points] for arm, points in curves.items()}
            what = f"The {summary['measures'][0]} of the answer that a run gives for so many {words}, judges included."
            figure = _figure(summary, values, spans, f"{words} of a run")
            yield Chart(f"budget-{unit}", f"What {words.split(',')[0]} buy", what, figure)


def _bars(summary: Summary) -> Iterator[Chart]:
    unit = next(
        unit
        for unit in ("usd", "tokens", "calls")
        if unit == "calls" or all(is_told(m["usage"], unit) for m in summary["methods"])
    )
    nodes = [
        node
        for node in dict.fromkeys(node for method in summary["methods"] for node in method["spent_by"])
        if any(amount(method["spent_by"].get(node, {}), unit) for method in summary["methods"])
    ]
    arms = [method["arm"] for method in summary["methods"]]
    bars = [
        {
            "type": "bar",
            "name": node,
            "x": arms,
            "y": [amount(m["spent_by"].get(node, {}), unit) / m["runs"] for m in summary["methods"]],
            "marker": {"color": COLORS[place % len(COLORS)]},
        }
        for place, node in enumerate(nodes)
    ]
    layout = {**_layout("", WORDS[unit] + " a run"), "barmode": "stack", "hovermode": "x"}
    what = "By node: the attempts themselves, judges, reflections, and choosing the answer."
    yield Chart("costs", "Where the money went", what, {"data": bars, "layout": layout})
    asked = list(dict.fromkeys(name for method in summary["methods"] for name in method["by_instruction"]))
    if len(asked) > 1:
        bars = [_bar(summary, name, "by_instruction", place) for place, name in enumerate(asked)]
        what = "Mean reward of the rounds that asked for this; 95 % intervals. Explored and exploited apart."
        layout = {**_layout("", "reward"), "barmode": "group", "hovermode": "x"}
        yield Chart("instructions", "Reward by instruction", what, {"data": bars, "layout": layout})
    if any(method["pass_at"] for method in summary["methods"]):
        values = {m["arm"]: list(m["pass_at"].values()) for m in summary["methods"] if m["pass_at"]}
        spans = {m["arm"]: [float(k) for k in m["pass_at"]] for m in summary["methods"] if m["pass_at"]}
        what = "Share of tasks solved by at least one of k attempts that don't see each other; an oracle picks."
        yield Chart("pass", "pass@k", what, _figure(summary, values, spans, "k", (-0.02, 1.02)))


def _bar(summary: Summary, name: str, field: str, place: int) -> dict[str, Any]:
    found = [(m["arm"], m[field][name]) for m in summary["methods"] if name in m[field]]  # type: ignore[literal-required]
    told = [(arm, estimate) for arm, estimate in found if estimate["mean"] is not None]
    ends = [
        (e["mean"], e["mean"] if e["low"] is None else e["low"], e["mean"] if e["high"] is None else e["high"])
        for _, e in told
    ]
    return {
        "type": "bar",
        "name": name,
        "x": [arm for arm, _ in told],
        "y": [mean for mean, _, _ in ends],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - mean for mean, _, high in ends],
            "arrayminus": [mean - low for mean, low, _ in ends],
        },
        "marker": {"color": COLORS[place % len(COLORS)]},
    }


def _curves(
    name: str, title: str, what: str, summary: Summary, field: str, axis: str, limits: tuple[float, float] | None = None
) -> Chart:
    values: Mapping[str, Sequence[Estimate]] = {m["arm"]: m[field] for m in summary["methods"]}  # type: ignore[literal-required]
    spans = {arm: [float(at) for at in range(1, len(curve) + 1)] for arm, curve in values.items()}
    return Chart(name, title, what, _figure(summary, values, spans, axis, limits))


def _figure(
    summary: Summary,
    values: Mapping[str, Sequence[Estimate]],
    spans: Mapping[str, Sequence[float]],
    axis: str,
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Curves with their bands; a method has the same color in all charts."""
    arms = [method["arm"] for method in summary["methods"]]
    data = [trace for arm, curve in values.items() for trace in _curve(arm, spans[arm], curve, arms.index(arm))]
    layout = _layout(axis, "")
    if limits is not None:
        layout["yaxis"]["range"] = list(limits)
    return {"data": data, "layout": layout}


def _curve(arm: str, span: Sequence[float], curve: Sequence[Estimate], place: int) -> Iterator[dict[str, Any]]:
    color, dash = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
    known = [(at, e["mean"], e["low"], e["high"]) for at, e in zip(span, curve, strict=True) if e["mean"] is not None]
    sure = [(at, low, high) for at, _, low, high in known if low is not None]
    yield {
        "x": [at for at, *_ in sure] + [at for at, *_ in sure[::-1]],
        "y": [high for *_, high in sure] + [low for _, low, _ in sure[::-1]],
        "fill": "toself",
        "fillcolor": f"{color}26",
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": arm,
    }
    ends = ["" if low is None else f" [{low:.3g}, {high:.3g}]" for _, _, low, high in known]
    yield {
        "x": [at for at, *_ in known],
        "y": [mean for _, mean, *_ in known],
        "customdata": ends,
        "hovertemplate": "%{y:.3f}%{customdata}",
        "name": arm,
        "legendgroup": arm,
        "mode": "lines+markers",
        "marker": {"size": 5},
        "line": {"color": color, "width": 2, "dash": dash},
    }


def _layout(horizontal: str, vertical: str) -> dict[str, Any]:
    return {
        "hovermode": "x unified",
        "margin": {"l": 48, "r": 8, "t": 8, "b": 90},
        "height": 360,
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.3, "yanchor": "top"},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"title": {"text": horizontal}, "gridcolor": "#eee", "automargin": True},
        "yaxis": {"title": {"text": vertical}, "gridcolor": "#eee", "automargin": True, "zeroline": False},
    }
