"""The tables of a report."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from icrl_graph.benchmarks.datasets import HUB
from icrl_graph.benchmarks.labels import Corrected
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.statistics import Estimate
from icrl_graph.benchmarks.summary import UNITS, Method, Summary, amount, scored_of
from icrl_graph.errors import IcrlError
from icrl_graph.state.choices import names_an_object
from icrl_graph.state.formatting import MISSING, file_names

ENDS = ("mean", "low", "high", "lowest", "highest")
CURVES = ("reward", "metric", "best", "answer", "solved", "new")


def methods(summary: Summary) -> list[dict[str, Any]]:
    """A line for each method, for a page."""
    return [
        {
            **method,
            "scored": scored_of(method),
            "first_reward": method["reward"][0],
            "last_reward": method["reward"][-1],
            "first_metric": method["metric"][0],
            "last_metric": method["metric"][-1],
            "new_by_round": _some(method["new"]),
            "each": {unit: amount(method["usage"], unit) / method["runs"] for unit in UNITS},
            "unpriced": method["usage"].get("unpriced", 0),
            "estimated": method["usage"].get("estimated", 0),
        }
        for method in summary["methods"]
    ]


MOST_ROUNDS = 8
"""Of a curve that stands in a cell."""


def _some(curve: Sequence[Estimate]) -> str:
    """The means of a curve of shares in per cent, of some rounds: the first, the last, and others evenly between."""
    last = len(curve) - 1
    places = dict.fromkeys(round(at * last / (MOST_ROUNDS - 1)) for at in range(MOST_ROUNDS))
    means = [curve[at]["mean"] for at in (places if last >= MOST_ROUNDS else range(last + 1))]
    return " ".join(MISSING if mean is None else f"{100 * mean:.0f}" for mean in means)


def for_readers(summary: Summary, plan: Plan) -> Summary:
    """The figures as people read them: file names in place of paths, tasks in the order of the benchmark."""
    names = shown_names(plan.arms)
    methods = [
        {
            **method,
            "arm": names[method["arm"]],
            "by_task": {task: method["by_task"][task] for task in in_order(plan, method["by_task"])},
        }
        for method in summary["methods"]
    ]
    pairs = {
        kind: [{**pair, "arm": names[pair["arm"]], "against": names[pair["against"]]} for pair in summary[kind]]
        for kind in ("pairs", "learning")
    }
    named = {name: file_names(summary[name]) for name in ("benchmark", "model")}
    return cast(Summary, {**summary, **named, "methods": methods, **pairs})


def with_shown_names(corrected: Sequence[Corrected], plan: Plan) -> list[dict[str, Any]]:
    """Corrected figures, with file names in place of paths."""
    names: dict[Any, Any] = {None: None, **shown_names(plan.arms)}
    return [{**one, "arm": names[one["arm"]], "against": names[one["against"]]} for one in corrected]


def shown_names(arms: Sequence[str]) -> dict[str, str]:
    """By arm, its name with file names in place of paths, as long as no other arm has the same."""
    short = {arm: file_names(arm) for arm in arms}
    counts = Counter(short.values())
    return {arm: name if counts[name] == 1 else arm for arm, name in short.items()}


def in_order(plan: Plan, tasks: Iterable[str]) -> list[str]:
    """Tasks in the order of their benchmark, those that are named alike up to a colon as one or apart.

    A benchmark by path is not imported for it, and nothing is asked of the hub: their tasks, and others that it does
    not list, stay as they are.
    """
    stays = names_an_object(plan.benchmark) or plan.benchmark.startswith(HUB)
    try:
        items = [] if stays else find_benchmark(plan.benchmark).choose(plan.items)
    except (ValueError, OSError, IcrlError):
        items = []
    places: dict[str, int] = {}
    for item in items:
        for name in (item, item.partition(":")[0]):
            places.setdefault(name, len(places))
    return sorted(tasks, key=lambda task: places.get(task, len(places)))


def as_csv(summary: Summary) -> dict[str, str]:
    """The figures as files, by name."""
    return {f"{name}.csv": _csv(rows) for name, rows in as_rows(summary).items()}


def as_rows(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """The figures as tables, by name, each a list of rows."""
    ends = (*ENDS, "tasks", "unscored", "scored", "of")
    return {
        "methods": [_method(method, summary["measures"]) for method in summary["methods"]],
        "rounds": [
            {"arm": method["arm"], "round": at + 1, "figure": name, **{end: point.get(end) for end in ends}}
            for method in summary["methods"]
            for name in CURVES
            for at, point in enumerate(method[name])  # type: ignore[literal-required]
        ],
        "budgets": [
            {"arm": method["arm"], "unit": unit, "budget": point["budget"], **{e: point["value"].get(e) for e in ends}}
            for method in summary["methods"]
            for unit, points in method["budget"].items()
            for point in points
        ],
        "tasks": [
            {"arm": method["arm"], "task": task, **{end: estimate.get(end) for end in ends}}
            for method in summary["methods"]
            for task, estimate in method["by_task"].items()
        ],
        "differences": [{"lowest": None, "highest": None, **pair} for pair in summary["pairs"]],
        "learning": [{"lowest": None, "highest": None, **pair} for pair in summary["learning"]],
    }


def _method(method: Method, measures: Iterable[str]) -> dict[str, Any]:
    equal = {f"{name} {end}".removesuffix(" mean"): method["equal"][name].get(end) for name in measures for end in ENDS}
    fields = ("arm", "rewarded_by", "runs", "failed", "attempts", "unanswered", "unscored")
    scored = {f"{name} scored": method["equal"][name].get("scored", method["runs"]) for name in measures}
    usage = {name: method["usage"].get(name, 0) for name in ("calls", "input", "cached", "output", "reasoning", "usd")}
    return {**{name: method[name] for name in fields}, **equal, **scored, "regret": method["regret"]["mean"], **usage}  # type: ignore[literal-required]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
