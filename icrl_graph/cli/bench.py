"""`icrl bench`, `icrl benchmarks`, `icrl report`, `icrl rejudge`: methods compared."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from icrl_graph.cli.completion import complete_benchmark, complete_model, complete_topology
from icrl_graph.cli.settings_options import BUDGETS, SetOption, SettingsCommand, chosen_settings
from icrl_graph.cli.shared import (
    CALLS,
    Attempts,
    BaseUrl,
    Json,
    Prices,
    absolute,
    app,
    cost,
    drained_by_sigterm,
    err,
    errors_reported,
    out,
    parse_json,
    print_error,
    stdout_reserved,
)
from icrl_graph.errors import MissingExtra

SIZE, REWARDS = "Tasks and runs", "Rewards"
RESERVED = ("model", "rounds", "n", "seed")
"""The settings that differ from run to run."""
FolderArgument = Annotated[Path, typer.Argument(help="The folder of a comparison.")]


@app.command(epilog="Example:\n\n  icrl benchmarks --json")
def benchmarks(as_json: Json = False) -> None:
    """List the benchmarks."""
    from icrl_graph.benchmarks.registry import BENCHMARKS

    if as_json:
        typer.echo(json.dumps({name: found.about for name, found in BENCHMARKS.items()}))
        return
    for name, found in BENCHMARKS.items():
        out.print(f"{name:14} {found.about}", highlight=False, markup=False, soft_wrap=True)


class BenchCommand(SettingsCommand):
    """`icrl bench`, with options for when its runs stop."""

    panels: ClassVar = {"When to stop a run": ("target", "patience", *BUDGETS)}


@app.command(
    cls=BenchCommand,
    epilog="Examples:\n\n  icrl bench hidden_color --topologies icrl,best_of_n,icrl+show=zero,icrl+show=shuffled\n\n"
    "  icrl bench game24 --topologies icrl,reflexion,self_refine,best_of_n,best_of_n+n=1+schedule=long_cot "
    "--model openai:gpt-4.1-mini --rounds 16 --target 1\n\n"
    "  icrl bench writing --topologies icrl,best_of_n --model openai:gpt-4.1-mini --judge openai:gpt-4.1 --preview\n\n"
    "  icrl bench my_tasks.jsonl --topologies icrl,best_of_n --model openai:my-model --evaluator my_score.py:score",
)
def bench(
    context: typer.Context,
    benchmark: Annotated[
        str,
        typer.Argument(help="See icrl benchmarks; or custom tasks, a .jsonl file.", autocompletion=complete_benchmark),
    ],
    topologies: Annotated[
        str,
        typer.Option(
            help="The methods to compare, such as icrl,best_of_n,icrl+show=zero; each is tested against the first. "
            "After + stands any setting or option of the topology, such as memory=last:5, n=1 or select=majority.",
            autocompletion=complete_topology,
        ),
    ] = "icrl,best_of_n",
    model: Annotated[
        str | None,
        typer.Option(
            help="provider:name or path.py:name; default the learner that plays the benchmark.",
            autocompletion=complete_model,
        ),
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The folder; default a new one in runs/.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Print the estimated cost and exit.")] = False,
    response_tokens: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Tokens of a response, for --preview.")
    ] = 300,
    as_json: Json = False,
    assignments: SetOption = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A task, or a pattern such as 'find-*'; may be repeated.", rich_help_panel=SIZE
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Number of tasks; default the benchmark's own, mostly 50.", rich_help_panel=SIZE),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Attempts per task, in rounds or side by side; default the benchmark's own, mostly 8.",
            rich_help_panel=SIZE,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method on each task.", rich_help_panel=SIZE)] = 1,
    evaluator: Annotated[
        str | None,
        typer.Option(help="path.py:name or module:name; default the benchmark's own.", rich_help_panel=REWARDS),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A model that gives the rewards, by the rubric.",
            autocompletion=complete_model,
            rich_help_panel=REWARDS,
        ),
    ] = None,
    rubric: Annotated[
        str | None,
        typer.Option(help="What the judge judges by; default the benchmark's own.", rich_help_panel=REWARDS),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Another evaluator, to report; no prompt shows its results.", rich_help_panel=REWARDS),
    ] = None,
    solved_at: Annotated[
        float | None,
        typer.Option(
            help="The metric from which a task counts as solved; default the benchmark's own.", rich_help_panel=REWARDS
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.", rich_help_panel=CALLS)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature of every call.", rich_help_panel=CALLS)
    ] = None,
    base_url: BaseUrl = None,
    concurrency: Annotated[
        int, typer.Option(help="Most runs, and calls in flight, at once.", rich_help_panel=CALLS)
    ] = 8,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="Most paid calls per minute.", rich_help_panel=CALLS)
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(help="Most tokens per minute, in and out, on average.", rich_help_panel=CALLS)
    ] = None,
    attempts: Attempts = 6,
    call_timeout: Annotated[
        float, typer.Option(help="Seconds for one call of a model openai:...", rich_help_panel=CALLS)
    ] = 600.0,
    prices: Prices = None,
) -> None:
    """Compare methods on many tasks, with intervals and tests.

    The same command on the same folder resumes it; arms, tasks and seeds may be added.
    """
    from icrl_graph.benchmarks import runner
    from icrl_graph.benchmarks.arms import read_arms
    from icrl_graph.benchmarks.registry import find_benchmark
    from icrl_graph.benchmarks.results import Plan
    from icrl_graph.topologies.settings import BestOfNSettings, Settings

    with errors_reported():
        found = find_benchmark(benchmark)
        if model is None and found.model is None:
            raise ValueError(f"name the model, such as --model openai:gpt-4.1-mini; no learner plays {benchmark}")
        chosen = found.choose(item or [])
        most = limit if limit is not None or item else found.limit
        own_rewards = any(part is not None for part in (evaluator, metric, rubric))
        options = {
            **found.options,
            **chosen_settings(context, assignments or [], [Settings, BestOfNSettings], RESERVED),
            "prices": parse_json(prices, "--prices"),
            "system": system,
        }
        plan = Plan(
            benchmark=str(Path(benchmark).resolve()) if benchmark.endswith(".jsonl") else benchmark.replace("_", "-"),
            arms=[arm.name for arm in read_arms(topologies)],
            model=absolute(model or found.model),
            judge=absolute(judge),
            rubric=rubric,
            evaluator=absolute(evaluator),
            metric=absolute(metric),
            items=item or [],
            limit=len(chosen) if most is None else min(most, len(chosen)),
            rounds=found.rounds if rounds is None else rounds,
            seeds=seeds,
            solved_at=solved_at if own_rewards or solved_at is not None else found.solved_at,
            base_url=base_url,
            temperature=temperature,
            options={name: value for name, value in options.items() if value is not None},
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            attempts=attempts,
            call_timeout=call_timeout,
        )
        comparison = runner.prepare(plan)
        usages = comparison.preview(response_tokens)
        _show_preview(comparison, usages, err if as_json else out)
    if preview:
        if as_json:
            typer.echo(json.dumps(usages))
        return
    _run(plan, out_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S"), as_json)


def go_on(folder: Path, as_json: bool) -> None:
    """Go on with the comparison of a folder, as it was asked for."""
    from icrl_graph.benchmarks.results import read_plan

    with errors_reported():
        plan = read_plan(folder)
    _run(plan, folder, as_json)


def _run(plan: Any, folder: Path, as_json: bool) -> None:
    """Run what is asked for, or judge it again, under a bar; tell what it came to."""
    from icrl_graph.benchmarks import rejudge, runner
    from icrl_graph.benchmarks.results import read_results

    console = err if as_json else out
    with errors_reported(resume=folder):
        play = runner.run if plan.again is None else rejudge.rejudge
        with stdout_reserved(as_json), drained_by_sigterm() as control, _bar(console) as tell:
            made = play(plan, folder, tell, control)
        results = read_results(folder)
        for number in results.damaged:
            told = f"Line {number} of {folder / 'results.jsonl'} could not be read; its run was done again."
            err.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
        _conclude(folder, results, as_json)
    if silent := [row for row in results.rows.values() if _is_silent(row)]:
        why = next((e["reward"]["error"] for row in silent for e in row["episodes"] if "error" in e["reward"]), "")
        told = f"{len(silent)} runs have no score at all, such as {silent[0]['arm']} on {silent[0]['item']}"
        print_error(f"{told}: {why}", f"Judge their answers again with: icrl rejudge {folder}")
    if made.failed:
        cell, why = next(iter(made.failed.items()))
        count = f"{len(made.failed)} of {made.runs} runs failed"
        print_error(f"{count}, such as {cell.arm} on {cell.item}: {why}", f"Do them again with: icrl resume {folder}")
    if made.failed or silent:
        raise typer.Exit(1)


def _is_silent(row: Any) -> bool:
    """Whether a run has ended without any score."""
    return "error" not in row and all(episode["reward"].get("value") is None for episode in row["episodes"])


@contextmanager
def _bar(console: Console) -> Iterator[Any]:
    """A bar with what is left of the time and what is spent."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task("", total=1.0)

        def tell(progress: Any) -> None:
            failed = f", {len(progress.failed)} failed" if progress.failed else ""
            told = f"{progress.done} of {progress.runs} runs{failed}, {cost(progress.usage)}"
            shown.update(bar, completed=progress.share, description=told)

        yield tell


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(headings[0], overflow="fold")  # of what does not fit, names are folded, never figures
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _show_preview(comparison: Any, usages: Mapping[str, Any], console: Console) -> None:
    from icrl_graph.benchmarks.comparison import detectable
    from icrl_graph.state.episode import add_usage

    plan, tasks = comparison.plan, len(comparison.items())
    all_tasks = len(comparison.benchmark.choose(plan.items))
    runs = f"{len(comparison.cells())} runs: {len(usages)} methods x {tasks} tasks x {plan.seeds} seeds"
    runs += f". The tasks are the first of {all_tasks}; --limit says how many" if tasks < all_tasks else ""
    console.print(f"{runs}. About {cost(add_usage(*usages.values()))}:", highlight=False, soft_wrap=True)
    for arm, usage in usages.items():
        console.print(f"  {arm:30} {cost(usage)}", highlight=False, markup=False, soft_wrap=True)
    if len(usages) > 1:
        try:
            least = detectable(tasks, comparisons=len(usages) - 1)
        except MissingExtra:
            return
        told = "no difference" if least is None else f"a difference of {least:.2f} and more"
        how = "power .8, 5 %, if 3 of 10 tasks come out differently"
        more = " Take more tasks." if least is None else ""
        found = f"With {tasks} tasks {told} in what is solved is likely to be found ({how}).{more}\n"
        console.print(found, highlight=False, soft_wrap=True)


def _conclude(folder: Path, results: Any, as_json: bool) -> None:
    """Print what the results come to; without scipy, where they are."""
    from icrl_graph.benchmarks.results import read_plan
    from icrl_graph.benchmarks.summary import summarize

    ended = [row for row in results.rows.values() if "error" not in row]
    if not ended:
        if as_json:
            typer.echo(json.dumps({"methods": [], "failed": [row["error"] for row in results.rows.values()]}))
        return
    try:
        summary = summarize(read_plan(folder), results.rows)
    except MissingExtra as missing:
        told = f"The results are in {folder}. No table: {missing}"
        err.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
        return
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for table in _tables(summary):
        out.print(table, width=None if out.is_terminal else 160)
    told = f"Spent: {cost(summary['usage'])}. Kept in {folder}. Curves, tests and every run: icrl report {folder}"
    out.print(told, highlight=False, markup=False, soft_wrap=True)


def _tables(summary: Any) -> Iterator[Table]:
    """The methods, and how they differ."""
    measures, calls = summary["measures"], summary["equal_calls"]
    size = f"{summary['tasks']} tasks x {summary['seeds']} seeds, within {calls} calls"
    lacking = [name for name in ("unanswered", "unscored") if any(method[name] for method in summary["methods"])]
    title = f"{summary['benchmark']}, {size}, {summary['model']}"
    table = _table(title, "method", *measures, "by round", *lacking, "calls")
    for method in summary["methods"]:
        scores = (_between(method["equal"][name]) for name in measures)
        by_round = "→".join(_number(method["reward"][at]["mean"]) for at in (0, -1))
        calls_each = f"{method['usage']['calls'] / method['runs']:.1f}"
        table.add_row(Text(method["arm"]), *scores, by_round, *(str(method[name]) for name in lacking), calls_each)
    yield table
    if summary["pairs"]:
        against = summary["pairs"][0]["against"]
        table = _table(f"Against {against}, over the same tasks", "method", "measure", "difference", "95 %", "p (Holm)")
        for pair in summary["pairs"]:
            p = "-" if pair["adjusted"] is None else f"{pair['adjusted']:.4f}"
            between = "-" if pair["low"] is None else f"{pair['low']:+.2f} to {pair['high']:+.2f}"
            change = "-" if pair["difference"] is None else f"{pair['difference']:+.2f}"
            table.add_row(Text(pair["arm"]), pair["measure"], change, between, p)
        yield table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".removeprefix("0") if abs(value) < 1 else f"{value:.3g}"


def _between(found: Any) -> str:
    if found["low"] is None:
        return _number(found["mean"])
    return f"{_number(found['mean'])} [{_number(found['low'])} {_number(found['high'])}]"


@app.command(epilog="Example:\n\n  icrl report runs/first")
def report(folder: FolderArgument, as_json: Json = False) -> None:
    """Write the report of a comparison.

    A page with curves, tests, costs and every run; pictures; tables.
    """
    with errors_reported():
        from icrl_graph.benchmarks.report import write_report

        paths = [str(path) for path in write_report(folder)]
        if as_json:
            typer.echo(json.dumps(paths))
        else:
            out.print(f"Written: {', '.join(paths)}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  icrl rejudge runs/first --judge openai:gpt-4.1 --as-metric --out runs/first-held-out\n\n"
    "  icrl rejudge runs/first --select majority --out runs/first-majority"
)
def rejudge(
    folder: FolderArgument,
    out_dir: Annotated[Path, typer.Option("--out", help="A new folder for the results.")],
    evaluator: Annotated[str | None, typer.Option(help="path.py:name or module:name.")] = None,
    judge: Annotated[str | None, typer.Option(help="A model that judges, by the rubric.")] = None,
    rubric: Annotated[str | None, typer.Option(help="What the judge judges by; default the benchmark's own.")] = None,
    as_metric: Annotated[
        bool, typer.Option("--as-metric", help="Report the new scores; the rewards stay as they are.")
    ] = False,
    select: Annotated[
        str | None, typer.Option(help="What selects the answer: reward, majority or last; default the method's own.")
    ] = None,
    solved_at: Annotated[
        float | None,
        typer.Option(help="The metric from which a task counts as solved; the old one does not apply to new scores."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge or select the answers of a comparison again.

    The answers themselves are not paid again.
    """
    from icrl_graph.benchmarks.results import Again, read_plan

    with errors_reported():
        again = Again(
            folder=str(folder.resolve()),
            evaluator=absolute(evaluator),
            judge=absolute(judge),
            rubric=rubric,
            as_metric=as_metric,
            select=select,
        )
        kept = read_plan(folder)
        anew = evaluator is not None or judge is not None  # the old threshold is not one of the new judgement
        plan = replace(kept, again=again, solved_at=solved_at if anew or solved_at is not None else kept.solved_at)
    _run(plan, out_dir, as_json)
