"""A comparison on a terminal: its progress as a bar, its results as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.scheduler import OnProgress
from icrl_graph.benchmarks.summary import Pair, Summary, least_scored, scored_of
from icrl_graph.benchmarks.verdict import HEADINGS, verdict
from icrl_graph.benchmarks.win_rates import WinRate, doubts, is_of_pairs, judge_of
from icrl_graph.state.formatting import (
    apart,
    between,
    chance,
    cost,
    file_names,
    interval,
    level,
    number,
    score,
    share,
    table,
)

_UNITS = {"usd": "USD", "calls": "calls", "time": "s"}


@contextmanager
def progress_bar(console: Console) -> Iterator[OnProgress]:
    """A bar with the time that is left and what is spent."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=1.0)

        def show(progress: Any) -> None:
            failed = f", {len(progress.failed)} failed" if progress.failed else ""
            caps = "".join(f", of {cap:g} {_UNITS[name]} in total" for name, cap in progress.total.caps.items())
            description = f"{progress.done} of {progress.runs} runs{failed}, {cost(progress.usage)}{caps}"
            bars.update(bar, completed=progress.share, description=description)

        yield show


def results(comparison: Any) -> Iterator[Table | Text]:
    """What a comparison came to: win rates, if its answers were compared with each other, else `tables`."""
    if is_of_pairs(comparison.plan):
        yield from _win_rates(comparison.plan, comparison.win_rates)
    else:
        yield from tables(comparison.summary, comparison.registered)


def _win_rates(plan: Plan, rates: Sequence[WinRate]) -> Iterator[Table | Text]:
    against, judge = file_names(rates[0]["against"]), file_names(judge_of(plan) or "")
    headings = ("method", "wins", "at equal length", "turned", "characters", "of the other")
    made = table(f"Win rates against {against}, judged by {judge}", *headings)
    for rate in rates:
        numbers = (share(rate["turned"]), number(rate["length"]), number(rate["other_length"]))
        made.add_row(Text(rate["arm"]), *(between(rate[name], share) for name in ("rate", "controlled")), *numbers)
    yield made
    yield Text(
        f"Turned: pairs on which the judge's verdict turns with their order. 1 less a rate is that of {against}."
    )
    unscored = sum(rate["rate"]["unscored"] for rate in rates)
    missing = [f"{unscored} pairs have no verdict, and are left out."] if unscored else []
    yield from (Text(f"! {line}", "yellow") for line in [*missing, *doubts(plan)])


def tables(summary: Summary, registered: Sequence[str] = ()) -> Iterator[Table | Text]:
    """The verdict, the arms, how they differ from the first and how they learn, and what must be known to read that.

    Args:
        summary: all figures.
        registered: what was claimed before it was run, and what has come of that, as sentences.
    """
    found = verdict(summary, registered)
    for part, heading in HEADINGS.items():
        if sentences := found[part]:  # type: ignore[literal-required]
            yield Text.assemble((heading, "bold"), f" {' '.join(sentences)}")
    yield Text()
    measures, calls = summary["measures"], summary["equal_calls"]
    size = f"{summary['tasks']} tasks x {summary['seeds']} seeds, within {calls} calls"
    totals = dict.fromkeys(summary["allocated"].values())
    size += f" each, or {' or '.join(map(str, totals))} allocated" if totals else ""
    counts = ("unanswered", "unscored")
    missing = [name for name in counts if any(method[name] for method in summary["methods"])]  # type: ignore[literal-required]
    title = f"{file_names(summary['benchmark'])}, {size}, {file_names(summary['model'])}"
    is_open = any("scored" in least_scored(method)[1] for method in summary["methods"])
    arms = table(
        title,
        "method",
        *measures,
        *(["scored"] if is_open else []),
        "by attempt",
        *missing,
        "calls",
        *(["in total"] if totals else []),
    )
    for method in summary["methods"]:
        scores = (between(method["equal"][name], score) for name in measures)
        scored = [scored_of(method)] if is_open else []
        by_attempt = "→".join(level(method["reward"][at], score) for at in (0, -1))
        calls_each = f"{method['usage']['calls'] / method['runs']:.1f}"
        in_total = [str(method["usage"]["calls"])] if totals else []
        missed = (str(method[name]) for name in missing)  # type: ignore[literal-required]
        arms.add_row(Text(method["arm"]), *scores, *scored, by_attempt, *missed, calls_each, *in_total)
    yield arms
    if summary["pairs"]:
        title = f"Against {summary['pairs'][0]['against']}, over the same tasks"
        yield _differences(title, summary["pairs"])
    if summary["learning"]:
        yield _differences("How they learn, all attempts", summary["learning"], names_both=True)
    yield from (Text(f"! {line}", "yellow") for method in summary["methods"] for line in method["warnings"])


def _differences(title: str, pairs: Sequence[Pair], names_both: bool = False) -> Table:
    differences: Table = table(title, "method", "measure", "difference", "95 %", "p (Holm)")
    for pair in pairs:
        name = f"{pair['arm']} - {pair['against']}" if names_both else pair["arm"]
        differences.add_row(Text(name), pair["measure"], apart(pair), interval(pair), chance(pair["adjusted"]))
    return differences
