"""`icrl meta-eval`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from icrl_graph.cli.bench import play_comparison
from icrl_graph.cli.completion import model_names
from icrl_graph.cli.shared import (
    BaseUrl,
    Json,
    Prices,
    TotalCalls,
    TotalSeconds,
    TotalUsd,
    app,
    errors_reported,
    out,
    parse_json,
    warn,
    write,
)
from icrl_graph.errors import MissingExtra
from icrl_graph.state.formatting import MISSING, between, cost, number, score, share, table

if TYPE_CHECKING:
    from icrl_graph.benchmarks.api import Comparison
    from icrl_graph.benchmarks.results import Cell, Row
    from icrl_graph.benchmarks.statistics import Difference
    from icrl_graph.meta_rl.evaluation import Learning, Suite


@app.command(
    "meta-eval",
    epilog="Examples:\n\n  icrl meta-eval openai:gpt-4.1-mini --item 'prize:words:*' --instances 64\n\n"
    "  icrl meta-eval icrl_graph.environments.games.references:across --suite games --item 'maze:test:*'",
)
def meta_eval(
    model: Annotated[str, typer.Argument(help="provider:name or path.py:name.", autocompletion=model_names)],
    suite: Annotated[str, typer.Option(help="words or games.")] = "words",
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="Tasks by a pattern such as 'prize:words:*'; may be repeated."),
    ] = None,
    instances: Annotated[int, typer.Option(min=2, help="Tasks of each group.")] = 256,
    trained: Annotated[
        list[str] | None,
        typer.Option("--trained-on", metavar="<str>", help="A family that the model was trained on; may be repeated."),
    ] = None,
    episodes: Annotated[int | None, typer.Option(min=2, help="Episodes of each; default the suite's own.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The folder; default a new one in runs/.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most runs, and calls in flight, at once.")] = 8,
    base_url: BaseUrl = None,
    total_usd: TotalUsd = None,
    total_calls: TotalCalls = None,
    total_seconds: TotalSeconds = None,
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Does a model learn in its context? Episode by episode, beside controls that have nothing to learn from.

    The same command on the same folder resumes it. The folder is one of icrl bench: icrl resume, report and show read
    it, and print what those print.
    """
    from icrl_graph.benchmarks.experiment import make_plan
    from icrl_graph.meta_rl.evaluation import benchmark_arms, check_families, chosen_items, find_suite, swapped_plan
    from icrl_graph.meta_rl.swapped import joined

    with errors_reported():
        found = find_suite(suite)
        check_families(found, trained or [])
        plan, _ = make_plan(
            found.benchmark, benchmark_arms(found), model=model, items=chosen_items(found, item or [], instances),
            rounds=episodes or found.episodes, concurrency=concurrency, base_url=base_url, total_usd=total_usd,
            total_calls=total_calls, total_seconds=total_seconds, options={"prices": parse_json(prices, "--prices")},
        )  # fmt: skip
    folder = out_dir or Path("runs") / time.strftime("meta-%Y%m%d-%H%M%S")
    whole: list[Comparison] = []

    def show(comparison: Comparison, as_json: bool) -> None:
        if found.evaluator and not (comparison.failures or comparison.left):
            whole.append(comparison)  # the control of swapped histories is played on its rows
        else:
            _print_learning(comparison, found, comparison.rows, trained or [], as_json)

    play_comparison(plan, folder, as_json, show)
    for first in whole:
        with errors_reported():
            second = swapped_plan(first.plan, first.rows, found, folder)
        if second is None:
            warn("The control of swapped histories was not played: nothing is left of the total. Raise it.")
            _print_learning(first, found, first.rows, trained or [], as_json)
            return

        def show_both(comparison: Comparison, as_json: bool, first: Comparison = first) -> None:
            rows = {**first.rows, **joined(comparison.rows)}
            _print_learning(first, found, rows, trained or [], as_json)

        play_comparison(second, folder / "swapped", as_json, show_both)


def _print_learning(
    comparison: Comparison, suite: Suite, rows: Mapping[Cell, Row], trained: Sequence[str], as_json: bool
) -> None:
    """Print what the rows of a comparison show, and draw it; without scipy or matplotlib, as much as there is."""
    from icrl_graph.meta_rl.evaluation import claims, learning
    from icrl_graph.meta_rl.pictures import draw
    from icrl_graph.state.episode import add_usage

    folder = comparison.folder
    try:
        groups = learning(comparison.plan, rows, suite)
    except MissingExtra as missing:
        warn(f"The results are in {folder}. No table: {missing}")
        return
    if as_json:
        typer.echo(json.dumps(groups))
    else:
        for shown in _tables(groups):
            out.print(shown)
        for claim in claims(groups, suite, trained):
            write(claim)
        write(
            "new: answers not given before, after nothing but failures. regret: to the last player, over all episodes."
        )
        write(f"Spent: {cost(add_usage(*(row.get('usage', {}) for row in rows.values())))}. Saved in {folder}.")
    if not groups:
        return
    try:
        draw(groups, folder / "learning.png")
    except MissingExtra as missing:
        warn(f"No picture was drawn: {missing}")
        return
    if not as_json:
        write(f"The picture: {folder / 'learning.png'}")


_COLUMNS = ("reward by episode", "solved at last", "new", "regret")


def _tables(groups: Sequence[Learning]) -> Iterator[Table | Text]:
    """What players come to, a table for each group of tasks, and what that shows."""
    for group in groups:
        shown = table(f"{group['group']}, {group['tasks']} tasks", "player", *_COLUMNS)
        for name, played in group["players"].items():
            rewards = " ".join(f"{score(point['mean']):>3}" for point in played["reward"])
            new, regret = played["new_after_failure"]["mean"], played["regret"]
            lost = MISSING if regret is None else number(regret["mean"])
            shown.add_row(name, rewards, between(played["success"][-1], share), share(new), lost)
        yield shown
        yield Text(f"{group['group']}: {group['says']}. {_differences(group)}\n")


def _differences(group: Learning) -> str:
    over = ", ".join(f"{name} {_apart(one)}" for name, one in group["over"].items())
    return f"Last episode less first {_apart(group['rise'])}; second half less that of {over}."


def _apart(one: Difference) -> str:
    ends = "" if one["low"] is None else f" [{one['low']:+.2f} {one['high']:+.2f}]"
    return f"{MISSING if one['difference'] is None else format(one['difference'], '+.2f')}{ends}"
