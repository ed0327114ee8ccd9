"""`icrl demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from icrl_graph.cli.shared import Json, app, err, errors_reported, out, progress_bar
from icrl_graph.errors import MissingExtra


@app.command(
    epilog="Examples:\n\n  icrl demo\n\n  icrl demo game24\n\n  icrl demo game24 --tasks 400 --out runs/all\n\n"
    "  icrl demo game24 --ranked 24.csv\n\n  icrl demo --json | jq '.arms[0].reward_by_round'"
)
def demo(
    game: Annotated[str, typer.Argument(help="hidden-color or game24.")] = "hidden-color",
    tasks: Annotated[
        int | None, typer.Option(min=2, help="Held-out games to play; default 150 of hidden-color, 100 of game24.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the games and seeds every sample.")] = 0,
    ranked: Annotated[
        Path | None, typer.Option(help="game24: your copy of Tree of Thoughts' 24.csv; plays its rows 900 to 999.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="game24: processes; default one for each processor.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where the results go; default runs/demo or runs/demo-game24.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a small learned policy get better from its rewards alone: offline, no key, in about a minute."""
    with errors_reported():
        if game not in ("hidden-color", "game24"):
            raise ValueError(f"unknown game {game!r}; choose hidden-color or game24")
        if game == "hidden-color":
            for option, given in (("--ranked", ranked), ("--workers", workers)):
                if given is not None:
                    raise ValueError(f"{option} is for the other demo: icrl demo game24 {option} {given}")
            _demo_hidden_color(tasks, seed, out_dir or Path("runs/demo"), as_json)
        else:
            _demo_game24(tasks, seed, ranked, workers, out_dir or Path("runs/demo-game24"), as_json)


def _demo_hidden_color(tasks: int | None, seed: int, out_dir: Path, as_json: bool) -> None:
    from icrl_graph.benchmarks.demos import hidden_color as arms

    count = _count(tasks, 150, 1000)
    bars = dict.fromkeys(arms.ARMS, count)
    _show_demo(arms, bars, seed, out_dir, as_json, lambda told: arms.play(count, seed, told), arms.summarize)


def _demo_game24(
    tasks: int | None, seed: int, ranked: Path | None, workers: int | None, out_dir: Path, as_json: bool
) -> None:
    from icrl_graph.benchmarks.demos import game24 as arms
    from icrl_graph.tasks.game24 import puzzles as game24

    if ranked is not None and tasks is not None:
        raise ValueError("--tasks and --ranked can't be combined: the ranked file says which puzzles are played")
    puzzles, left_out = (
        (arms.choose(_count(tasks, 100, 400), seed), []) if ranked is None else arms.held_out(game24.paper_rows(ranked))
    )
    if len(puzzles) < 2:
        raise ValueError(f"of the rows 900 to 999 of {ranked}, {len(puzzles)} puzzles are held out; two are needed")
    bars = {f"{base} {arm}": len(puzzles) for base, names in arms.BASES.items() for arm in names}
    _show_demo(
        arms,
        bars,
        seed,
        out_dir,
        as_json,
        lambda told: arms.play(puzzles, seed, told, workers or arms.processors()),
        lambda rows: arms.summarize(rows, left_out),
    )


def _count(tasks: int | None, default: int, most: int) -> int:
    if tasks is not None and tasks > most:
        raise ValueError(f"there are {most} held-out games, {tasks} were asked for")
    return default if tasks is None else tasks


def _show_demo(
    arms: Any, bars: dict[str, int], seed: int, out_dir: Path, as_json: bool, play: Any, summarize: Any
) -> None:
    """Play a demo with a bar for each arm; write and print what it came to."""
    from icrl_graph.benchmarks import demos

    console = err if as_json else out
    out_dir.mkdir(parents=True, exist_ok=True)
    for line in arms.opening(seed):
        console.print(line, highlight=False)
    with progress_bar(console) as progress:
        running = {name: progress.add_task(name, total=total) for name, total in bars.items()}
        rows = list(play(lambda name, done: progress.update(running[name], completed=done)))
    summary = summarize(rows)
    demos.write(rows, summary, out_dir)
    written = ["results.jsonl", "summary.json"]
    try:
        arms.plot(summary, out_dir / "curves.png")
        written.append("curves.png")
    except MissingExtra as missing:
        err.print(f"No curves.png: {missing}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for told in arms.report(summary):
        console.print(told, highlight=False, soft_wrap=isinstance(told, str))
    console.print(f"Written to {out_dir}/: {', '.join(written)}", highlight=False, soft_wrap=True)
