"""`icrl run` and `icrl resume`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.console import Console

from icrl_graph.cli.completion import item_prefixes, model_names, topology_names
from icrl_graph.cli.settings_options import BUDGETS, SetOption, SettingsCommand, chosen_settings
from icrl_graph.cli.shared import (
    CALLS,
    Attempts,
    BaseUrl,
    Json,
    MaxResponseTokens,
    NoSeed,
    Prices,
    SwitchBaseUrl,
    System,
    Temperature,
    TotalCalls,
    TotalSeconds,
    TotalUsd,
    Track,
    app,
    drained_by_sigterm,
    err,
    errors_reported,
    out,
    parse_json,
    print_error,
    retries_shown,
    stdout_reserved,
    tell_addresses,
    tracked,
    warn,
    write,
)
from icrl_graph.errors import JournalError
from icrl_graph.state.formatting import command, cost, shorten
from icrl_graph.state.loading import absolute

if TYPE_CHECKING:
    from icrl_graph.api import Result
    from icrl_graph.state.events import EpisodeEvent


METHOD = ("rounds", "width", "spread", "n", "memory", "schedule", "layout", "show", "retests", "seed")
"""The settings in the first panel of the help."""


class RunCommand(SettingsCommand):
    """`icrl run`, with options for the common settings."""

    panels: ClassVar = {
        "Method (the defaults are the topology's)": METHOD,
        "When to stop": ("target", "patience", "stop", "confirmations", *BUDGETS),
    }


@app.command(
    cls=RunCommand,
    epilog="Examples:\n\n  icrl run hidden-color:#b94 --model learner:hidden-color\n\n"
    "  icrl run game24:4,5,6,10 --model learner:game24 --rounds 16 --target 1\n\n"
    "  icrl run game24:4,5,6,10 --model openai:gpt-4.1-mini --rounds 16 --target 1\n\n"
    "  icrl run 'Write a pangram.' --model openai:gpt-4.1-mini --evaluator my_score.py:score --out runs/pangram\n\n"
    "  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 icrl run game24:3,3,8,8 --model openai:my-model",
)
def run(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            help="A prompt, an item of a benchmark such as game24:4,5,6,10, or a task of a data set by its id or the "
            "number of its line, such as tasks.jsonl:3.",
            autocompletion=item_prefixes,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="provider:name, local:smollm2, local:icrl-smollm2, local:path.gguf, "
            "learner:hidden-color, learner:game24 or path.py:name.",
            autocompletion=model_names,
        ),
    ],
    evaluator: Annotated[
        str | None, typer.Option(help="path.py:name or module:name; default the benchmark's own.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The evaluator to report, if it is not the reward.")] = None,
    topology: Annotated[
        str, typer.Option(help="See icrl topologies; or path.py:name.", autocompletion=topology_names)
    ] = "icrl",
    out_dir: Annotated[Path | None, typer.Option("--out", help="The run's folder; default a new one in runs/.")] = None,
    show_preview: Annotated[bool, typer.Option("--preview", help="Print the estimated cost and exit.")] = False,
    response_tokens: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Tokens of a response, for --preview.")
    ] = 300,
    track: Track = None,
    as_json: Json = False,
    assignments: SetOption = None,
    system: System = None,
    temperature: Temperature = None,
    max_response_tokens: MaxResponseTokens = None,
    no_seed: NoSeed = False,
    base_url: BaseUrl = None,
    switch_base_url: SwitchBaseUrl = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="<int>",
            help="Most calls in flight at once; a server of your own: as many as it has slots.",
            rich_help_panel=CALLS,
        ),
    ] = None,
    attempts: Attempts = 6,
    prices: Prices = None,
) -> None:
    """Improve the answer to one task, round by round.

    The run is saved in a folder and can be resumed.
    """
    from icrl_graph.benchmarks.registry import canonical_item
    from icrl_graph.cli.run_folder import Run
    from icrl_graph.topologies.methods import build

    with errors_reported():
        topology = absolute(topology)
        schemas = [build(topology, lambda: "", lambda: 0.0).parts.schema] if assignments else []
        options = {
            **chosen_settings(context, assignments or [], schemas, ["model"]),
            "system": system,
            "max_response_tokens": max_response_tokens,
            "prices": parse_json(prices, "--prices"),
        }
        if no_seed and "seed" in options:
            raise ValueError("--seed and --no-seed exclude each other")
        wanted = Run(
            task=canonical_item(task),
            model=absolute(model),
            evaluator=absolute(evaluator),
            metric=absolute(metric),
            topology=topology,
            base_url=base_url,
            switch_base_url=switch_base_url,
            temperature=temperature,
            attempts=attempts,
            concurrency=concurrency,
            options={name: value for name, value in options.items() if value is not None},
        )
        if show_preview:
            usage = wanted.preview(response_tokens)
            typer.echo(json.dumps(usage) if as_json else f"About {cost(usage)}.")
            return
    folder = out_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    _follow(folder, as_json, partial(wanted.start, folder), track)


@app.command(epilog="Examples:\n\n  icrl resume runs/pangram\n\n  icrl resume runs/pangram --more 10")
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    more: Annotated[int, typer.Option(min=0, metavar="<int>", help="Rounds to add to the run once it has ended.")] = 0,
    base_url: Annotated[
        str | None,
        typer.Option(help="The server, if it needs a key or user:password@; default the folder's, without a key."),
    ] = None,
    judge_base_url: Annotated[str | None, typer.Option(help="The same for the judge of a comparison.")] = None,
    switch_base_url: Annotated[str | None, typer.Option(help="The same for a model to switch to.")] = None,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://...",
            help="The database of a comparison, if it needs user:password@; default the folder's, without.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="process|ray", help="Where a comparison is played; default as before."),
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="The Ray cluster; default as before.")] = None,
    total_usd: TotalUsd = None,
    total_calls: TotalCalls = None,
    total_seconds: TotalSeconds = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Resume what was interrupted, or add rounds to a run.

    Nothing is paid twice but the calls that were in flight.
    """
    from icrl_graph.cli import bench
    from icrl_graph.cli.run_folder import Run

    totals = {"total_usd": total_usd, "total_calls": total_calls, "total_seconds": total_seconds}
    if (folder / "bench.json").exists():
        with errors_reported():
            if more:
                raise ValueError("--more is for runs; to a comparison, icrl bench adds arms, tasks and seeds")
        addresses = {
            "base_url": base_url,
            "judge_base_url": judge_base_url,
            "switch_base_url": switch_base_url,
            "db": db,
        }
        changes = {**addresses, **totals, "engine": engine, "ray_address": ray_address}
        return bench.resume_comparison(folder, as_json, track, **changes)
    with errors_reported():
        if judge_base_url is not None:
            raise ValueError("--judge-base-url is for comparisons; a run has no judge of its own")
        if db is not None:
            raise ValueError("--db is for comparisons; a run is saved in its folder")
        if engine is not None or ray_address is not None:
            raise ValueError("--engine and --ray-address are for comparisons; a run is played in this process")
        if any(total is not None for total in totals.values()):
            raise ValueError("--total-usd, --total-calls and --total-seconds are for comparisons; a run has --max-...")
        saved = Run.read(folder)
        own = {"base_url": base_url or saved.base_url, "switch_base_url": switch_base_url or saved.switch_base_url}
        tell_addresses(folder, **own)
    again = partial(Run.resume, folder, more=more, base_url=base_url, switch_base_url=switch_base_url)
    _follow(folder, as_json, again, track)


def _follow(folder: Path, as_json: bool, play: Callable[..., Result], track: list[str] | None) -> None:
    """Run to the end, print each round and then the result; the best answer so far where that can't be saved."""
    console = err if as_json else out
    show = _round_printer(console)
    events: list[EpisodeEvent] = []

    def on_episode(event: EpisodeEvent) -> None:
        events.append(event)
        show(event)
        tell(event)

    with errors_reported(resume=folder):
        try:
            with (
                stdout_reserved(as_json),
                tracked(track, folder.name) as tell,
                retries_shown(),
                drained_by_sigterm() as control,
            ):
                result = play(on_episode=on_episode, control=control)
        except (JournalError, OSError):
            answered = [event for event in events if event["answer"] is not None]
            if answered:
                best = max(answered, key=lambda event: -math.inf if event["reward"] is None else event["reward"])
                write(f"\n{best['answer']}\n", console)
            raise
        _print_result(result, folder, as_json)


def _round_printer(console: Console) -> Callable[[EpisodeEvent], None]:
    from icrl_graph.prompts.text import number

    def show(event: EpisodeEvent) -> None:
        place = f"{event['round'] + 1}{'.' + str(event['candidate'] + 1) if event['candidate'] else ''}"
        line = f"round {place:<3} {event['instruction'][:10]:10} reward {number(event['reward']):>8}  "
        line += f"best {number(event['best']):>8}  "
        write(line + shorten(event["response"] or "", max(20, console.width - len(line))), console)
        if event.get("switched") == event["round"]:
            write("          switched, as nothing had improved", console, "dim")
        if event["error"] is not None:
            write(f"          ! {shorten(event['error'], 300)}", console, "yellow")

    return show


def _print_result(result: Result, folder: Path, as_json: bool) -> None:
    from icrl_graph.cli.run_folder import as_json as plain
    from icrl_graph.prompts.text import number
    from icrl_graph.state.episode import outgrown, told_switch, warnings_of
    from icrl_graph.state.selection import why_unreported
    from icrl_graph.topologies.settings import GIVEN_UP

    if as_json:
        typer.echo(json.dumps(plain(result), ensure_ascii=False))
    else:
        if result.answer is not None:
            write(f"\n{result.answer}")
        write(
            f"\nreward {number(result.reward)} ({result.rewarded_by}), metric {number(result.metric)}; stopped by "
            f"{result.stopped} after {cost(result.usage)}, {result.usage.get('seconds', 0):.1f} s. Saved in {folder}"
        )
    if reason := why_unreported(result.episodes):
        warn(f"The answer has no reward: {reason}")
    for warning in warnings_of(result.episodes):
        warn(f"Beware: {warning}")
    for note in filter(None, (told_switch(result.episodes), outgrown(result.episodes))):
        warn(f"Note: {note}.")
    if result.stopped in GIVEN_UP:
        who = "model" if result.stopped == "failures" else "evaluator"
        again = f"Once it works again, resume with: {command('resume', folder)}"
        print_error(f"the {who} failed too often in a row{_reason(result)}", again)
        raise typer.Exit(1)
    if all(reward is None for reward in result.rewards):
        nothing = "no attempt gave an answer" if result.answer is None else "no attempt could be scored"
        print_error(f"{nothing}{_reason(result)}")
        raise typer.Exit(1)


def _reason(result: Result) -> str:
    """What went wrong with the latest attempt, for an error."""
    from icrl_graph.state.episode import error_of

    reason = error_of(result.episodes[-1])
    return f": {shorten(reason, 300)}" if reason else ""
