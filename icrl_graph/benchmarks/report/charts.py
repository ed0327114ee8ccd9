"""The charts of the page: figures for Plotly, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from icrl_graph.benchmarks.statistics import Estimate
from icrl_graph.benchmarks.summary import Summary, amount, is_known
from icrl_graph.prompts.templates import label
from icrl_graph.state.episode import Episode, value_of
from icrl_graph.state.formatting import shorten
from icrl_graph.state.selection import metric_of

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Told apart also by the color-blind (M. Okabe and K. Ito, "Color Universal Design")."""
DASHES = ("solid", "dash", "dot")
"""Once all colors are taken."""
_NEW = "Share of attempts whose answer no earlier attempt of the run has given: where it falls, exploration is lost."
ATTEMPT = "attempt"
"""Of curves, which have those of a round one after another."""
WORDS = {"calls": "paid calls", "tokens": "tokens, in and out", "usd": "US dollars"}
_OF_A_RUN = " of a run"
_CALLS = WORDS["calls"] + _OF_A_RUN


class Chart(NamedTuple):
    """One chart of the page."""

    name: str
    title: str
    what: str
    figure: dict[str, Any]


def draw(summary: Summary) -> list[Chart]:
    """All charts that the figures give."""
    parts = (_by_round, _by_budget, _costs, _instructions, _pass_at_k)
    return [chart for part in parts for chart in part(summary)]


def of_run(episodes: Sequence[Episode]) -> list[Chart]:
    """The chart of a single run."""
    values = [value_of(episode) for episode in episodes]
    metrics = [metric_of(episode) for episode in episodes]
    best: list[float | None] = []
    for value in values:
        known = [each for each in (value, *best[-1:]) if each is not None]
        best.append(max(known, default=None))
    lines = [("reward", values, "linear"), ("best reward so far", best, "hv")]
    lines += [("metric", metrics, "linear")] if metrics != values else []
    data = [
        {
            "x": list(range(1, len(line) + 1)),
            "y": line,
            "name": name,
            "mode": "lines+markers",
            "marker": {"size": 5},
            "line": {"color": COLORS[place], "width": 2, "shape": shape},
        }
        for place, (name, line, shape) in enumerate(lines)
    ]
    what = "Of each attempt. What was not scored is left out."
    layout = _layout(ATTEMPT, "", len(episodes))
    return [Chart("rewards", "Reward by attempt", what, {"data": data, "layout": layout})]


def _by_round(summary: Summary) -> Iterator[Chart]:
    measure = summary["measures"][0]
    if measure == "success":
        what = "Share of tasks that the answer of the run solves, if it were ended after this attempt."
        yield _curves("solved", "Solved by attempt", what, summary, "solved", ATTEMPT, (-0.02, 1.02))
    else:
        what = f"The {'metric' if measure == 'metric' else 'reward'} of what the run would answer after this attempt."
        yield _curves("answer", "The answer so far, by attempt", what, summary, "answer", ATTEMPT)
    what = "Of this attempt: what the method sees of how good it is."
    yield _curves("reward", "Reward (seen) by attempt", what, summary, "reward", ATTEMPT)
    if any(method["metric"] != method["reward"] for method in summary["methods"]):
        what = "Of the same attempts: what is reported. Where the reward rises and this does not, the reward is gamed."
        yield _curves("metric", "Metric (true) by attempt", what, summary, "metric", ATTEMPT)
        what = "A point for each attempt, the first one leftmost for what learns. To the right and not up: gamed."
        true: Any = {
            m["arm"]: [{**point, "low": None, "high": None} for point in m["metric"]] for m in summary["methods"]
        }
        seen = {m["arm"]: [point["mean"] or 0.0 for point in m["reward"]] for m in summary["methods"]}
        yield Chart("against", "Metric against reward", what, _figure(summary, true, seen, "reward of the attempt"))
    yield _curves("new", "New answers by attempt", _NEW, summary, "new", ATTEMPT, (-0.02, 1.02))
    what = "The highest reward of any attempt up to this one."
    yield _curves("best", "Best reward so far", what, summary, "best", ATTEMPT)


def _by_budget(summary: Summary) -> Iterator[Chart]:
    for unit, words in WORDS.items():
        curves = {m["arm"]: m["budget"][unit] for m in summary["methods"] if unit in m["budget"]}
        if curves:
            spans = {arm: [point["budget"] for point in points] for arm, points in curves.items()}
            values = {arm: [point["value"] for point in points] for arm, points in curves.items()}
            what = f"The {summary['measures'][0]} of the answer that a run gives for so many {words}, judges included."
            figure = _figure(summary, values, spans, f"{words}{_OF_A_RUN}")
            yield Chart(f"budget-{unit}", f"What {words.split(',')[0]} buy", what, figure)


def _costs(summary: Summary) -> Iterator[Chart]:
    methods = summary["methods"]
    known = (unit for unit in ("usd", "tokens") if all(is_known(method["usage"], unit) for method in methods))
    unit = next(known, "calls")
    nodes = dict.fromkeys(node for method in methods for node in method["spent_by"])
    spent = {
        node: [amount(method["spent_by"].get(node, {}), unit) / method["runs"] for method in methods] for node in nodes
    }
    arms = [method["arm"] for method in methods]
    paid = [(node, amounts) for node, amounts in spent.items() if any(amounts)]
    bars = [{**_bars(node, place), "x": arms, "y": amounts} for place, (node, amounts) in enumerate(paid)]
    layout = {**_layout("", WORDS[unit] + " a run"), **_OF_BARS, "barmode": "stack"}
    what = "By node: the attempts themselves, judges, reflections, and choosing the answer."
    yield Chart("costs", "Where the money went", what, {"data": bars, "layout": layout})


def _instructions(summary: Summary) -> Iterator[Chart]:
    names = list(dict.fromkeys(name for method in summary["methods"] for name in method["by_instruction"]))
    if len(names) > 1:
        shown = [shorten(label(name), 40) for name in names]
        bars = [{**_bars(shown[place], place), **_rewards(summary, name)} for place, name in enumerate(names)]
        layout = {**_layout("", "reward"), **_OF_BARS, "barmode": "group"}
        what = "Mean reward of the attempts that were asked for this; 95 % intervals. Explored and exploited apart."
        yield Chart("instructions", "Reward by instruction", what, {"data": bars, "layout": layout})


def _rewards(summary: Summary, instruction: str) -> dict[str, Any]:
    """The mean reward of each method for an instruction, with its interval."""
    estimates = {m["arm"]: m["by_instruction"].get(instruction) for m in summary["methods"]}
    known = {arm: e for arm, e in estimates.items() if e is not None and e["mean"] is not None}
    means: list[Any] = [e["mean"] for e in known.values()]
    above = [0.0 if e["high"] is None else e["high"] - mean for e, mean in zip(known.values(), means, strict=True)]
    below = [0.0 if e["low"] is None else mean - e["low"] for e, mean in zip(known.values(), means, strict=True)]
    interval = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return {"x": list(known), "y": means, "error_y": interval}


def _pass_at_k(summary: Summary) -> Iterator[Chart]:
    attempts = "k attempts that don't see each other"
    for field, name, title, what in (
        ("pass_at", "pass", "pass@k", f"Share of tasks solved by at least one of {attempts}; an oracle picks."),
        ("majority_at", "majority", "maj@k", f"Share of tasks that the most frequent answer of {attempts} solves."),
    ):
        curves: dict[str, Mapping[str, Estimate]] = {m["arm"]: m[field] for m in summary["methods"] if m[field]}  # type: ignore[literal-required]
        if curves:
            values = {arm: list(curve.values()) for arm, curve in curves.items()}
            spans = {arm: [float(k) for k in curve] for arm, curve in curves.items()}
            yield Chart(name, title, what, _figure(summary, values, spans, "k", (-0.02, 1.02)))


_OF_BARS: Mapping[str, Any] = {
    "hovermode": "x",
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},  # above, as names of methods may be long
    "margin": {"l": 48, "r": 8, "t": 60, "b": 40},
}


def _bars(name: str, place: int) -> dict[str, Any]:
    return {"type": "bar", "name": name, "marker": {"color": COLORS[place % len(COLORS)]}}


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
    last = max((max(span, default=0.0) for span in spans.values()), default=0.0)
    layout = _layout(axis, "", int(last) if axis in (ATTEMPT, _CALLS, "k") else None)
    if limits is not None:
        layout["yaxis"]["range"] = list(limits)
    return {"data": data, "layout": layout}


def _curve(arm: str, span: Sequence[float], curve: Sequence[Estimate], place: int) -> Iterator[dict[str, Any]]:
    color, dash = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
    known = [(at, e["mean"], e["low"], e["high"]) for at, e in zip(span, curve, strict=True) if e["mean"] is not None]
    sure = [(at, e["low"], e["high"]) for at, e in zip(span, curve, strict=True) if e["low"] is not None]
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


def _layout(horizontal: str, vertical: str, last: int | None = None) -> dict[str, Any]:
    """The frame of a chart; where its axis counts something, up to a number, its ticks are whole."""
    ticks = {} if last is None else {"dtick": max(1, -(-last // 10))}
    return {
        "hovermode": "x unified",
        "margin": {"l": 48, "r": 8, "t": 8, "b": 90},
        "height": 360,
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.3, "yanchor": "top"},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"title": {"text": horizontal}, "gridcolor": "#eee", "automargin": True, **ticks},
        "yaxis": {"title": {"text": vertical}, "gridcolor": "#eee", "automargin": True, "zeroline": False},
    }
