"""`icrl bench`, `icrl benchmarks`, `icrl report`, `icrl rejudge`: methods compared."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console

from icrl_graph.cli.completion import benchmark_names, model_names, topology_names
from icrl_graph.cli.settings_options import BUDGETS, SetOption, SettingsCommand, chosen_settings
from icrl_graph.cli.shared import (
    Attempts,
    BaseUrl,
    CallTimeout,
    Concurrency,
    Db,
    Engine,
    Json,
    JudgeBaseUrl,
    MaxResponseTokens,
    NoSeed,
    Preview,
    Prices,
    RayAddress,
    RequestsPerMinute,
    ResponseTokens,
    SwitchBaseUrl,
    System,
    Temperature,
    TokensPerMinute,
    TotalCalls,
    TotalSeconds,
    TotalUsd,
    Track,
    app,
    drained_by_sigterm,
    err,
    errors_reported,
    list_parts,
    out,
    parse_json,
    print_error,
    stdout_reserved,
    tell_addresses,
    tracked,
    warn,
    write,
)
from icrl_graph.errors import MissingExtra
from icrl_graph.state.formatting import command, cost
from icrl_graph.state.loading import absolute

SIZE, REWARDS = "Tasks and runs", "Rewards"
RESERVED = ("model", "rounds", "n", "seed")
"""The settings that differ from run to run."""
FolderArgument = Annotated[Path, typer.Argument(help="The folder of a comparison.")]


@app.command(epilog="Example:\n\n  icrl benchmarks --json")
def benchmarks(as_json: Json = False) -> None:
    """List the benchmarks, those of installed packages included."""
    from icrl_graph.benchmarks.registry import find_benchmark

    list_parts(benchmark_names(), lambda name: find_benchmark(name).about, as_json)


class BenchCommand(SettingsCommand):
    """`icrl bench`, with options for when its runs stop."""

    panels: ClassVar = {"When to stop a run": ("target", "patience", "stop", "confirmations", *BUDGETS)}


@app.command(
    cls=BenchCommand,
    epilog="Examples:\n\n  icrl bench hidden_color --topologies icrl,best_of_n,icrl+show=zero,icrl+show=shuffled\n\n"
    "  icrl bench game24 --topologies icrl,reflexion,self_refine,best_of_n,best_of_n+n=1+schedule=long_cot "
    "--model openai:gpt-4.1-mini --rounds 16 --target 1\n\n"
    "  icrl bench writing --topologies icrl,best_of_n --model openai:gpt-4.1-mini --judge openai:gpt-4.1 --preview\n\n"
    "  icrl bench my_tasks.jsonl --topologies icrl,best_of_n --model openai:my-model --evaluator my_score.py:score\n\n"
    "  icrl bench questions.csv --map task=question,target=answer --model openai:my-model "
    "--evaluator my_score.py:score",
)
def bench(
    context: typer.Context,
    benchmark: Annotated[
        str,
        typer.Argument(
            help="See icrl benchmarks; or a custom one, path.py:name; or a data set: a file (.jsonl, .csv, .parquet) "
            "or one of Hugging Face's hub, hf:owner/name or hf:owner/name/config/split.",
            autocompletion=benchmark_names,
        ),
    ],
    topologies: Annotated[
        str,
        typer.Option(
            help="The methods to compare, such as icrl,best_of_n,icrl+show=zero; each is tested against the first. "
            "Also controls (icrl beside all that should not learn) and feedback (icrl with and without words). "
            "After + stands model, or any setting or option of the topology, such as memory=last:5 or select=majority. "
            "A custom topology is path.py:name.",
            autocompletion=topology_names,
        ),
    ] = "icrl,best_of_n",
    model: Annotated[
        str | None,
        typer.Option(
            help="provider:name or path.py:name; default the learner that plays the benchmark.",
            autocompletion=model_names,
        ),
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The folder; default a new one in runs/.")] = None,
    db: Db = None,
    engine: Engine = "process",
    ray_address: RayAddress = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register",
            help="Freeze, before the first call, the claim that the first method is better than the others: with "
            "tasks, runs and tests, under a hash. The report says whether what was run is what was registered.",
        ),
    ] = False,
    preview: Preview = False,
    response_tokens: ResponseTokens = 300,
    track: Track = None,
    as_json: Json = False,
    assignments: SetOption = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A task, or a pattern such as 'find-*'; may be repeated.", rich_help_panel=SIZE
        ),
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="From which columns of a data set its tasks are made, such as task=problem,target=answer,id=number: "
            "task, id, and keys of the task data.",
            rich_help_panel=SIZE,
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
    allocate: Annotated[
        int | None,
        typer.Option(
            metavar="CALLS",
            help="In place of --rounds: paid calls for all runs of a method together, split evenly over them, and, "
            "beside it, handed out to the tasks where they help most.",
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
            autocompletion=model_names,
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
    system: System = None,
    temperature: Temperature = None,
    max_response_tokens: MaxResponseTokens = None,
    no_seed: NoSeed = False,
    base_url: BaseUrl = None,
    judge_base_url: JudgeBaseUrl = None,
    switch_base_url: SwitchBaseUrl = None,
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
    """Compare methods on many tasks, with intervals and tests.

    The same command on the same folder resumes it; arms, tasks and seeds may be added.
    """
    from icrl_graph.benchmarks.datasets import with_fields
    from icrl_graph.benchmarks.experiment import make_plan, prepare
    from icrl_graph.topologies.settings import BestOfNSettings, Settings

    with errors_reported():
        plan, _ = make_plan(
            benchmark if fields is None else with_fields(benchmark, fields), topologies,
            model=model, judge=judge, rubric=rubric, evaluator=evaluator, metric=metric,
            items=item or [], limit=limit, rounds=rounds, seeds=seeds, solved_at=solved_at, base_url=base_url,
            judge_base_url=judge_base_url, switch_base_url=switch_base_url, temperature=temperature,
            concurrency=concurrency, requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute, attempts=attempts,
            call_timeout=call_timeout, total_usd=total_usd, total_calls=total_calls, total_seconds=total_seconds,
            send_seed=not no_seed, allocate=allocate, db=db,
            engine=engine, ray_address=ray_address,
            options={
                **chosen_settings(context, assignments or [], [Settings, BestOfNSettings], RESERVED),
                "prices": parse_json(prices, "--prices"), "system": system,
                "max_response_tokens": max_response_tokens,
            },
        )  # fmt: skip
        experiment = prepare(plan)
        usages = experiment.preview(response_tokens)
        _show_preview(experiment, usages, err if as_json else out)
    if preview:
        if as_json:
            typer.echo(json.dumps(usages))
        return
    folder = out_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    if register:
        from icrl_graph.benchmarks import registered

        with errors_reported():
            made = registered.register(plan, folder)
        write(f"Registered in {folder / registered.FILE}, sha256 {made['sha256']}", err if as_json else out)
    play_comparison(plan, folder, as_json, track=track)


def resume_comparison(folder: Path, as_json: bool, track: list[str] | None = None, **changes: Any) -> None:
    """Resume the comparison of a folder, by its plan; of its fields, those that are not None are changed."""
    from icrl_graph.benchmarks.plan import ADDRESSES, read_plan

    with errors_reported():
        plan = replace(read_plan(folder), **{name: value for name, value in changes.items() if value is not None})
        tell_addresses(folder, **{name: getattr(plan, name) for name in ADDRESSES})
    play_comparison(plan, folder, as_json, track=track)


def play_comparison(
    plan: Any,
    folder: Path,
    as_json: bool,
    show: Callable[[Any, bool], None] | None = None,
    track: list[str] | None = None,
) -> None:
    """Run or rejudge under a progress bar, print the results, and end with 1 if something is missing in them.

    Args:
        plan: of the comparison.
        folder: where it is saved.
        as_json: whether JSON alone is printed.
        show: prints a comparison, as JSON or not; default as `icrl bench` does.
        track: where attempts are logged, such as "wandb:my-project".
    """
    from icrl_graph.benchmarks.api import execute
    from icrl_graph.benchmarks.scheduler import watched
    from icrl_graph.benchmarks.terminal import progress_bar

    with errors_reported(resume=folder):
        with (
            stdout_reserved(as_json),
            tracked(track) as tell,
            drained_by_sigterm() as control,
            progress_bar(err if as_json else out) as on_progress,
        ):
            comparison = execute(plan, folder, watched(on_progress, tell), control)
        for number in comparison.damaged:
            warn(f"Line {number} of {folder / 'results.jsonl'} could not be read; its run was repeated.")
        (show or _print_results)(comparison, as_json)
    if tell_missing(comparison):
        raise typer.Exit(1)


def tell_missing(comparison: Any) -> bool:
    """Print what is missing in the results of a comparison, and what to do; returns whether there is anything."""
    plan, folder = comparison.plan, comparison.folder
    if unscored := comparison.unscored:
        reason = next((e["reward"]["error"] for row in unscored for e in row["episodes"] if "error" in e["reward"]), "")
        count = f"{len(unscored)} runs have no score at all, such as {unscored[0]['arm']} on {unscored[0]['item']}"
        print_error(f"{count}: {reason}", f"Judge their answers again with: {_rejudge_command(plan, folder)}")
    if failures := comparison.failures:
        cell, reason = next(iter(failures.items()))
        count = f"{len(failures)} of {len(comparison.rows)} runs failed"
        print_error(
            f"{count}, such as {cell.arm} on {cell.item}: {reason}", f"Repeat them with: {command('resume', folder)}"
        )
    if left := comparison.left:
        cap = max(getattr(plan, left.total), left.spent_of_total)
        more = command("resume", folder, f"--{left.total.replace('_', '-')}", f"{math.ceil(2 * cap * 100) / 100:g}")
        print_error(left, f"Go on by raising it, such as with: {more}")
    return bool(failures or unscored or left)


def _rejudge_command(plan: Any, folder: Path) -> str:
    """The command that judges the answers of a comparison again, by what has judged them."""
    from icrl_graph.benchmarks.registry import find_benchmark
    from icrl_graph.models.addresses import without_credentials
    from icrl_graph.state.loading import path_of

    by = plan.again or {"folder": folder, "evaluator": plan.evaluator, "judge": plan.judge, "rubric": plan.rubric}
    options = {
        "evaluator": by["evaluator"] or (None if by["judge"] else path_of(find_benchmark(plan.benchmark).evaluator)),
        "judge": by["judge"],
        "judge-base-url": without_credentials(plan.judge_base_url or (None if plan.again else plan.base_url)),
        "rubric": by["rubric"],
    }
    pair = {"against": plan.again["against"]} if plan.again and "against" in plan.again else {}
    if options["evaluator"] is None and options["judge"] is None:
        return command("rejudge", "-h")
    named = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    flag = ["--as-metric"] if plan.again and plan.again["as_metric"] else []
    named += [word for name, value in pair.items() for word in (f"--{name}", value)]
    unused = (f"{folder}-again{number}" for number in ("", *range(2, 1000)))
    name = "win-rates" if pair else "rejudge"
    return command(name, by["folder"], *named, *flag, "--out", next(out for out in unused if not Path(out).exists()))


def _show_preview(experiment: Any, usages: Mapping[str, Any], console: Console) -> None:
    from icrl_graph.benchmarks.statistics import detectable
    from icrl_graph.state.episode import add_usage

    plan, tasks = experiment.plan, len(experiment.items())
    all_tasks = len(experiment.benchmark.choose(plan.items))
    runs = f"{len(experiment.cells())} runs: {len(usages)} methods x {tasks} tasks x {plan.seeds} seeds"
    runs += f". The tasks are the first of {all_tasks}; --limit sets their number" if tasks < all_tasks else ""
    write(f"{runs}. About {cost(add_usage(*usages.values()))}:", console)
    for arm, usage in usages.items():
        write(f"  {arm:30} {cost(usage)}", console)
    _show_totals(plan, console)
    if len(usages) > 1:
        try:
            least = detectable(tasks, comparisons=len(usages) - 1)
        except MissingExtra:
            return
        size = "no difference" if least is None else f"a difference of {least:.2f} and more"
        assumptions = "power .8, 5 %, if 3 of 10 tasks come out differently"
        advice = " Take more tasks." if least is None else ""
        write(
            f"With {tasks} tasks {size} in what is solved is likely to be detected ({assumptions}).{advice}\n", console
        )


def _show_totals(plan: Any, console: Console) -> None:
    """Print the caps on all runs together."""
    units = {"usd": "USD", "calls": "calls", "time": "seconds"}
    if caps := [f"{cap:g} {units[name]}" for name, cap in plan.caps().items()]:
        write(f"At most {' and '.join(caps)} in total, the calls in flight apart.", console)


def _print_results(comparison: Any, as_json: bool) -> None:
    """Print the tables of a comparison; without scipy, where its results are."""
    from icrl_graph.benchmarks.terminal import results
    from icrl_graph.benchmarks.win_rates import is_of_pairs

    folder, failures = comparison.folder, comparison.failures
    if len(failures) == len(comparison.rows):
        if as_json:
            typer.echo(json.dumps({"methods": [], "failed": list(failures.values())}))
        return
    try:
        summary = comparison.win_rates if is_of_pairs(comparison.plan) else comparison.summary
    except MissingExtra as missing:
        warn(f"The results are in {folder}. No table: {missing}")
        return
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for table in results(comparison):
        out.print(table, width=None if out.is_terminal else 160)
    more = "" if is_of_pairs(comparison.plan) else f" Curves, tests and every run: {command('report', folder)}"
    write(f"Spent: {cost(comparison.spent)}. Saved in {folder}.{more}")


@app.command(epilog="Examples:\n\n  icrl report runs/colors\n\n  icrl report runs/pangram")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison or of a run.")],
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Import custom parts that the folder names by path, to show their prompts."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Human labels of some answers, drawn at random, by which judged scores are corrected: CSV or JSON "
            "lines of arm, item, seed and label.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a comparison, or of a run.

    A page with curves, costs and every attempt with its prompt; of a comparison also its verdict in words, tests,
    pictures and tables.
    """
    with errors_reported():
        from icrl_graph.benchmarks.plan import read_plan
        from icrl_graph.benchmarks.report import runs, write_report
        from icrl_graph.cli.saved_run import write_page

        is_run = (folder / "run.json").exists()
        if is_run and labels is not None:
            raise ValueError("--labels is for a comparison: it corrects means over many answers")
        paths = [str(path) for path in ([write_page(folder, trust)] if is_run else write_report(folder, trust, labels))]
        if not is_run and not trust and (arms := runs.not_shown(read_plan(folder))):
            again = command("report", folder, "--trust")
            warn(f"The prompts of {', '.join(arms)} need code that {folder} names. If you trust it: {again}")
        if as_json:
            typer.echo(json.dumps(paths))
        else:
            write(f"Written: {', '.join(paths)}")


@app.command(
    epilog="Examples:\n\n  icrl rejudge runs/first --judge openai:gpt-4.1 --as-metric --out runs/first-held-out\n\n"
    "  icrl rejudge runs/first --select majority --out runs/first-majority"
)
def rejudge(
    folder: FolderArgument,
    out_dir: Annotated[Path, typer.Option("--out", help="A new folder for the results.")],
    evaluator: Annotated[str | None, typer.Option(help="path.py:name or module:name.")] = None,
    judge: Annotated[str | None, typer.Option(help="A model that judges, by the rubric.")] = None,
    judge_base_url: Annotated[
        str | None, typer.Option(help="The judge's server; default OPENAI_BASE_URL, never the one of the folder.")
    ] = None,
    rubric: Annotated[str | None, typer.Option(help="What the judge judges by; default the benchmark's own.")] = None,
    as_metric: Annotated[
        bool, typer.Option("--as-metric", help="Report the new scores; the rewards stay as they are.")
    ] = False,
    select: Annotated[
        str | None,
        typer.Option(
            help="What selects the answer: reward, majority, last_majority or last; default the method's own."
        ),
    ] = None,
    solved_at: Annotated[
        float | None,
        typer.Option(help="The metric from which a task counts as solved; the old one does not apply to new scores."),
    ] = None,
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
    """Judge or select the answers of a comparison again.

    The answers themselves are not paid again.
    """
    from icrl_graph.benchmarks.plan import Again, read_plan

    with errors_reported():
        again = Again(
            folder=str(folder.resolve()),
            evaluator=absolute(evaluator),
            judge=absolute(judge),
            rubric=rubric,
            as_metric=as_metric,
            select=select,
        )
        saved = read_plan(folder)
        anew = evaluator is not None or judge is not None  # the old threshold is not one of the new judgement
        plan = replace(
            saved,
            again=again,
            solved_at=solved_at if anew or solved_at is not None else saved.solved_at,
            base_url=None,  # of the models, of which none is asked
            switch_base_url=None,
            judge_base_url=judge_base_url,
            total_usd=total_usd,
            total_calls=total_calls,
            total_seconds=total_seconds,
            options={**saved.options, **({} if prices is None else {"prices": parse_json(prices, "--prices")})},
        )
        show_cost_again(plan, response_tokens, preview, as_json)
    if not preview:
        play_comparison(plan, out_dir, as_json)


def show_cost_again(plan: Any, response_tokens: int, preview: bool, as_json: bool) -> None:
    """Print what judging the answers of a comparison again is estimated to cost."""
    from icrl_graph.benchmarks.rejudge import preview_rejudge

    usage = preview_rejudge(plan, response_tokens)
    console = err if as_json else out
    if preview and as_json:
        typer.echo(json.dumps(usage))
    elif preview or usage["calls"]:
        write(f"About {cost(usage)}.", console)
        _show_totals(plan, console)
