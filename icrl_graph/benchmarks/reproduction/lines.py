"""The rows of a reproduced table, and by which settings it differs from the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import TypedDict

from icrl_graph.benchmarks.reproduction.presets import SAME, Part, Published, Row
from icrl_graph.benchmarks.statistics import Bracket
from icrl_graph.benchmarks.summary import tables_of
from icrl_graph.benchmarks.win_rates import doubts, judge_of

if TYPE_CHECKING:
    from icrl_graph.benchmarks.api import Comparison

_ENDS = ("mean", "low", "high", "lowest", "highest")


class Line(TypedDict):
    """A row of a reproduced table."""

    part: str
    name: str
    arm: str
    paper: float | str | None
    """As published, in the unit of the table; None where no figure is known."""
    error: float | None
    """As published beside it."""
    source: str
    """Where it was published; empty where no figure is known."""
    ours: Bracket | None
    """In the unit of the table, with its 95 % interval over tasks; None where nothing has ended yet."""
    note: str


def lines(
    part: Part, rows: Sequence[tuple[Row, str]], comparison: Comparison, pairs: Comparison | None
) -> Iterator[Line]:
    """The rows of a part, each with its arm.

    Raises:
        MissingExtra: scipy is not installed.
    """
    plan = comparison.plan
    has_ended = any("error" not in row for row in comparison.rows.values())
    tables = tables_of(plan, comparison.rows) if has_ended else {}
    has_pairs = pairs is not None and any("error" not in row for row in pairs.rows.values())
    rates = {rate["arm"]: rate["controlled"] for rate in pairs.win_rates} if pairs is not None and has_pairs else {}
    for row, arm in rows:
        ours: Any = None
        if row.reading is None and arm in rates:
            ours = _of_the_other(rates[arm])
        elif row.reading is not None and arm in tables:
            ours = _scaled(tables[arm].estimate(row.reading.measure, row.reading.read), row.reading.scale)
        published = _published(row, plan.model)
        yield Line(
            part=part.benchmark,
            name=row.name,
            arm=arm,
            paper=None if published is None else published.value,
            error=None if published is None else published.error,
            source="" if published is None else published.source,
            ours=ours,
            note="; ".join(filter(None, (row.note, _samples(row, arm, part)))),
        )


def _samples(row: Row, arm: str, part: Part) -> str:
    """How many samples Best-of-N has here, where its row is named by another number."""
    is_named = "{samples}" in row.arm and str(part.samples) in row.name
    played = arm.rpartition("=")[2]
    return f"{played} samples here" if is_named and played != str(part.samples) else ""


def _published(row: Row, model: str) -> Published | None:
    """The figure of the model that is played, else of the first in the paper."""
    fitting = (one for one in row.published if one.model and one.model in model.lower())
    return next(fitting, row.published[0] if row.published else None)


def _scaled(estimate: Mapping[str, Any], scale: float) -> Bracket:
    scaled = {name: estimate[name] * scale for name in _ENDS if estimate.get(name) is not None}
    return cast(Bracket, {**estimate, **scaled})


def _of_the_other(rate: Mapping[str, Any]) -> Bracket:
    """How often the other one wins, in per cent."""
    turned = {"mean": "mean", "low": "high", "high": "low"}
    other = {name: None if rate[of] is None else 1 - rate[of] for name, of in turned.items()}
    return _scaled({**rate, **other}, 100)


def departures(part: Part, comparison: Comparison, pairs: Comparison | None) -> Iterator[str]:
    """By which settings a comparison differs from the paper's, in words."""
    plan = comparison.plan
    ended, runs = len(comparison.rows), len(plan.arms) * plan.limit * plan.seeds
    for what, now, then in (
        ("model", plan.model, part.model),
        ("judge of rewards", plan.judge or "exact", (part.model if part.judge == SAME else part.judge) or "exact"),
        ("judge of pairs", judge_of(pairs.plan) if pairs else part.pair_judge, part.pair_judge),
        ("rounds", plan.rounds, part.rounds),
        ("tasks", plan.limit, part.tasks),
        ("seeds", plan.seeds, 1),
        ("temperature", plan.temperature, None),
    ):
        if now != then:
            told = ["the default" if value is None else value for value in (now, then)]
            yield f"{what}: {told[0]}, in the paper {told[1]}"
    if plan.benchmark == (part.own or (part.data and part.benchmark)):
        yield f"the tasks are this package's own, not those of {part.data or part.benchmark}"
    if plan.items:
        yield f"of the tasks those named {', '.join(plan.items)}"
    changed = (name for name in _SHOWN if plan.options.get(name) != part.options.get(name))
    if own := [f"{name}={plan.options.get(name)}" for name in changed]:
        yield f"settings of all methods: {', '.join(own)}"
    if ended < runs:
        yield f"not finished: {ended} of {runs} runs have ended"
    if failed := len(comparison.failures):
        yield f"{failed} of {len(comparison.rows)} runs failed, and are left out"
    if pairs is not None:
        yield from doubts(pairs.plan)


_SHOWN = ("system", "max_response_tokens", "on_error", "layout", "max_calls", "max_tokens", "target")
"""Options of a comparison that are told where they are not the paper's."""
