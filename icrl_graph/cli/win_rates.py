"""`icrl win-rates`, `icrl export`: the answers of a comparison against each other, and for other tools."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.bench import FolderArgument, play_comparison, show_cost_again
from icrl_graph.cli.completion import model_names
from icrl_graph.cli.shared import (
    Json,
    Prices,
    TotalCalls,
    TotalSeconds,
    TotalUsd,
    app,
    errors_reported,
    parse_json,
    write,
)


@app.command(
    "win-rates",
    epilog="Examples:\n\n  icrl win-rates runs/writing --judge openai:gpt-4.1 --out runs/writing-wins\n\n"
    "  icrl win-rates runs/writing --judge openai:gpt-4.1 --against best_of_n --out runs/writing-wins-2 --preview",
)
def win_rates(
    folder: FolderArgument,
    out_dir: Annotated[Path, typer.Option("--out", help="A new folder for the verdicts.")],
    judge: Annotated[
        str,
        typer.Option(
            help="The model that compares; another one than has given the rewards.", autocompletion=model_names
        ),
    ],
    against: Annotated[
        str | None, typer.Option(help="The method that all others are compared with; default the first.")
    ] = None,
    judge_base_url: Annotated[
        str | None, typer.Option(help="The judge's server; default OPENAI_BASE_URL, never the one of the folder.")
    ] = None,
    rubric: Annotated[str | None, typer.Option(help="What the judge compares by; default the benchmark's own.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Print the estimated cost and exit.")] = False,
    response_tokens: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Tokens of a judgement, for --preview.")
    ] = 300,
    total_usd: TotalUsd = None,
    total_calls: TotalCalls = None,
    total_seconds: TotalSeconds = None,
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Compare the answers of the methods with those of one, by a judge that sees each pair in both orders.

    Prints win rates, plain and at equal length (arXiv 2404.04475), with intervals. Nothing is generated anew.
    """
    from icrl_graph.benchmarks.plan import read_plan
    from icrl_graph.benchmarks.win_rates import pairs_plan

    with errors_reported():
        saved = read_plan(folder)
        plan = pairs_plan(
            saved, folder, judge, against, rubric, judge_base_url=judge_base_url, total_usd=total_usd,
            total_calls=total_calls, total_seconds=total_seconds,
            options={**saved.options, **({} if prices is None else {"prices": parse_json(prices, "--prices")})},
        )  # fmt: skip
        show_cost_again(plan, response_tokens, preview, as_json)
    if not preview:
        play_comparison(plan, out_dir, as_json)


FORMATS = {"alpaca-eval": "alpaca_eval", "inspect": "inspect_log"}
"""What a comparison is exported to, and the module of `icrl_graph.benchmarks` that does it."""


@app.command(
    epilog="Examples:\n\n  icrl export runs/writing --out outputs\n\n  icrl export runs/writing --to inspect --out logs"
)
def export(
    folder: FolderArgument,
    out_dir: Annotated[Path, typer.Option("--out", help="The folder of the files.")],
    to: Annotated[
        str,
        typer.Option(
            help="alpaca-eval: the answers, for AlpacaEval. inspect: the runs, for `inspect view`.",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = "alpaca-eval",
    as_json: Json = False,
) -> None:
    """Write the answers for AlpacaEval, or the runs for Inspect; a file for each method."""
    with errors_reported():
        from icrl_graph.benchmarks.plan import read_plan
        from icrl_graph.benchmarks.results import checked_results
        from icrl_graph.state.choices import pick

        module = import_module(f"icrl_graph.benchmarks.{pick('form', to, FORMATS)}")
        paths = [str(path) for path in module.export(read_plan(folder), checked_results(folder).rows, out_dir)]
        if as_json:
            typer.echo(json.dumps(paths))
        else:
            write(f"Written: {', '.join(paths)}")
