"""`icrl reproduce`: the tables of papers, played again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from icrl_graph.cli.bench import tell_missing
from icrl_graph.cli.completion import model_names, table_names
from icrl_graph.cli.shared import (
    Attempts,
    BaseUrl,
    CallTimeout,
    Concurrency,
    Json,
    JudgeBaseUrl,
    MaxResponseTokens,
    NoSeed,
    Preview,
    Prices,
    RequestsPerMinute,
    ResponseTokens,
    System,
    Temperature,
    TokensPerMinute,
    TotalCalls,
    TotalSeconds,
    TotalUsd,
    app,
    drained_by_sigterm,
    err,
    errors_reported,
    out,
    parse_json,
    print_error,
    stdout_reserved,
    warn,
    write,
)
from icrl_graph.errors import MissingExtra
from icrl_graph.state.formatting import cost

PLAYED, REWARDS = "What is played", "Rewards"


@app.command(
    epilog="Examples:\n\n  icrl reproduce game24 --data 24.csv --preview\n\n"
    "  icrl reproduce game24 --data own --model openai:gpt-4.1-mini --limit 10 --rounds 8 --out runs/game24\n\n"
    "  icrl reproduce runs/game24 --format latex\n\n"
    "  icrl reproduce orbit-scienceworld --model openai:my-checkpoint --base-url http://localhost:8000/v1"
)
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="game24, writing, scienceworld, math, abstracts, ablations or orbit-scienceworld; or a folder in "
            "which one was reproduced: its table is printed again.",
            autocompletion=table_names,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="provider:name or path.py:name; default the paper's.", autocompletion=model_names),
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The folder; default a new one in runs/.")] = None,
    format_: Annotated[str, typer.Option("--format", help="text, markdown or latex.")] = "text",
    preview: Preview = False,
    response_tokens: ResponseTokens = 300,
    as_json: Json = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Your copy of the published tasks, such as 24.csv; own for this package's.", rich_help_panel=PLAYED
        ),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A task, or a pattern such as 'find-*'; may be repeated.", rich_help_panel=PLAYED
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of tasks; default the paper's.", rich_help_panel=PLAYED)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Attempts per task; default the paper's.", rich_help_panel=PLAYED)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="A row by its name, or a pattern such as 'ICRL*'; may be repeated. The first row stays.",
            rich_help_panel=PLAYED,
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A benchmark of several, such as aime; may be repeated.", rich_help_panel=PLAYED
        ),
    ] = None,
    fair: Annotated[
        bool,
        typer.Option(
            "--fair",
            help="Also Best-of-N at as many tokens, each baseline in several settings, and a judge of its own.",
            rich_help_panel=PLAYED,
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each method on each task.", rich_help_panel=PLAYED)] = 1,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Gives the rewards, where the paper has a model do that; none: exactly.",
            autocompletion=model_names,
            rich_help_panel=REWARDS,
        ),
    ] = None,
    pair_judge: Annotated[
        str | None,
        typer.Option(help="Compares answers, for win rates.", autocompletion=model_names, rich_help_panel=REWARDS),
    ] = None,
    system: System = None,
    temperature: Temperature = None,
    max_response_tokens: MaxResponseTokens = None,
    no_seed: NoSeed = False,
    base_url: BaseUrl = None,
    judge_base_url: JudgeBaseUrl = None,
    total_usd: TotalUsd = None,
    total_calls: TotalCalls = None,
    total_seconds: TotalSeconds = None,
    concurrency: Concurrency = 8,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    attempts: Attempts = 6,
    call_timeout: CallTimeout = 600.0,
    prices: Prices = None,
) -> None:
    """Play a table of a paper again, and print it beside what was published, with intervals and what differs.

    The same command on the same folder resumes it.
    """
    from icrl_graph.benchmarks.reproduction import SAVED, TABLES, Reproduction, Request
    from icrl_graph.benchmarks.reproduction.formats import FORMATS
    from icrl_graph.benchmarks.terminal import progress_bar
    from icrl_graph.state.choices import pick

    with errors_reported():
        pick("format", format_, FORMATS)
        if table not in TABLES and (Path(table) / SAVED).exists():
            _print(Reproduction.read(table), format_, as_json)
            return
        request = Request(
            table, model, judge, pair_judge, data, item or [], limit, rounds, method or [], part or [], fair,
            total_usd, total_calls, total_seconds,
            {
                "base_url": base_url, "judge_base_url": judge_base_url, "temperature": temperature, "seeds": seeds,
                "concurrency": concurrency, "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute, "attempts": attempts, "call_timeout": call_timeout,
                "send_seed": not no_seed, "system": system, "max_response_tokens": max_response_tokens,
                "prices": parse_json(prices, "--prices"),
            },
        )  # fmt: skip
        _show_preview(request, response_tokens, as_json, preview)
    if preview:
        return
    folder = out_dir or Path("runs") / time.strftime(f"{table}-%Y%m%d-%H%M%S")
    again = f"What was paid is saved. The same command with --out {folder} goes on."
    with errors_reported(again):
        with (
            stdout_reserved(as_json),
            drained_by_sigterm() as control,
            progress_bar(err if as_json else out) as on_progress,
        ):
            made = request.play(folder, on_progress, control)
        _print(made, format_, as_json)
    missing = [tell_missing(comparison) for comparison in made.all]
    if made.left:
        print_error(made.left, f"{again} Raise the total.")
    if any(missing) or made.left:
        raise typer.Exit(1)


def _show_preview(request: Any, response_tokens: int, as_json: bool, alone: bool) -> None:
    from icrl_graph.state.episode import add_usage

    estimates: Mapping[str, Mapping[str, Any]] = request.preview(response_tokens)
    if as_json and alone:
        typer.echo(json.dumps(estimates))
        return
    console = err if as_json else out
    whole = add_usage(*(usage for part in estimates.values() for usage in part.values()))
    write(f"{request.table}: about {cost(whole)}:", console)
    for (part, usages), (_, experiment, _) in zip(estimates.items(), request.experiments, strict=True):
        plan = experiment.plan
        by = f", judged by {plan.judge}" if plan.judge else ""
        size = f"{plan.limit} tasks x {plan.seeds} seeds x {plan.rounds} rounds"
        write(f"{part}: {size}, played by {plan.model}{by}", console)
        for arm, usage in usages.items():
            write(f"  {arm:40} {cost(usage)}", console)


def _print(made: Any, format_: str, as_json: bool) -> None:
    from icrl_graph.benchmarks.reproduction.formats import FORMATS

    try:
        if as_json:
            typer.echo(json.dumps({"table": made.table, "lines": made.lines, "differences": made.differences}))
            return
        width = max(out.width, 80) if out.is_terminal else 160
        typer.echo(made.to_text(width) if format_ == "text" else FORMATS[format_](made))
    except MissingExtra as missing:
        warn(f"The results are in {made.folder}. No table: {missing}")
        return
    write(f"Spent: {cost(made.usage)}. Saved in {made.folder}.", out if format_ == "text" else err)
