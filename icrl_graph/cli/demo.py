"""`icrl demo`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icrl_graph.cli.shared import Json, app, err, errors_reported, out, progress_bar, warn
from icrl_graph.errors import MissingExtra
from icrl_graph.state.formatting import command

if TYPE_CHECKING:
    from icrl_graph.benchmarks.plan import Plan


@app.command(
    epilog="Examples:\n\n  icrl demo\n\n  icrl demo game24\n\n  icrl demo words\n\n"
    "  icrl demo game24 --tasks 400 --out runs/all\n\n  icrl demo game24 --ranked 24.csv\n\n"
    "  icrl demo --json | jq '.arms[0].reward_by_round'"
)
def demo(
    game: Annotated[str, typer.Argument(help="hidden-color, game24 or words.")] = "hidden-color",
    tasks: Annotated[
        int | None,
        typer.Option(min=2, help="Held-out games to play; default 150 of hidden-color, 100 of game24, 12 of words."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the games.")] = 0,
    ranked: Annotated[
        Path | None, typer.Option(help="game24: your copy of Tree of Thoughts' 24.csv; plays its rows 900 to 999.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="game24: processes; at most and by default 3, one for each base policy.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Where the results go; default runs/demo, runs/demo-game24, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a model with frozen weights get better from its rewards alone.

    Offline, without a key. hidden-color and game24 are played by small networks, in about a minute; words by a language
    model, in two or three, for which more is installed (docs/local_models.md).
    """
    with errors_reported():
        if game not in ("hidden-color", "game24", "words"):
            raise ValueError(f"unknown game {game!r}; choose hidden-color, game24 or words")
        if game == "game24":
            _demo_game24(tasks, seed, ranked, workers, out_dir or Path("runs/demo-game24"), as_json)
            return
        for option, value in (("--ranked", ranked), ("--workers", workers)):
            if value is not None:
                raise ValueError(f"{option} is for another demo: {command('demo', 'game24', option, value)}")
        if game == "words":
            _demo_words(tasks, seed, out_dir or Path("runs/demo-words"), as_json)
        else:
            _demo_hidden_color(tasks, seed, out_dir or Path("runs/demo"), as_json)


def _demo_hidden_color(tasks: int | None, seed: int, out_dir: Path, as_json: bool) -> None:
    from icrl_graph.benchmarks.demos import hidden_color

    _show_demo(hidden_color, hidden_color.plans(_count(tasks, 150, 1000), seed), seed, 1, [], out_dir, as_json)


def _demo_words(tasks: int | None, seed: int, out_dir: Path, as_json: bool) -> None:
    from icrl_graph.benchmarks.demos import words

    _show_demo(words, words.plans(_count(tasks, 12, words.MOST), seed), seed, 1, [], out_dir, as_json)


def _demo_game24(
    tasks: int | None, seed: int, ranked: Path | None, workers: int | None, out_dir: Path, as_json: bool
) -> None:
    from icrl_graph.benchmarks.demos import game24
    from icrl_graph.tasks.game24.puzzles import paper_rows

    if ranked is not None and tasks is not None:
        raise ValueError("--tasks and --ranked can't be combined: the ranked file says which puzzles are played")
    puzzles, left_out = (
        (game24.choose(_count(tasks, 100, 400), seed), []) if ranked is None else game24.held_out(paper_rows(ranked))
    )
    if len(puzzles) < 2:
        raise ValueError(f"of the rows 900 to 999 of {ranked}, {len(puzzles)} puzzles are held out; two are needed")
    _show_demo(game24, game24.plans(puzzles), seed, workers, left_out, out_dir, as_json)


def _count(tasks: int | None, default: int, most: int) -> int:
    if tasks is not None and tasks > most:
        raise ValueError(f"there are {most} held-out games, {tasks} were asked for")
    return default if tasks is None else tasks


def _show_demo(
    game: Any,
    plans: Mapping[str, Plan],
    seed: int,
    workers: int | None,
    left_out: Sequence[str],
    out_dir: Path,
    as_json: bool,
) -> None:
    """Run the comparisons of a demo with a bar for each; write and print what they come to."""
    from icrl_graph.benchmarks import demos

    console = err if as_json else out
    out_dir.mkdir(parents=True, exist_ok=True)
    for line in game.opening(seed):
        console.print(line, highlight=False)
    with TemporaryDirectory() as temporary:  # nothing is half written in `out_dir`, whatever ends the demo
        folder = Path(temporary)
        with progress_bar(console) as progress:
            runs = {name: len(plan.arms) * len(plan.items) for name, plan in plans.items()}
            bars = {name: progress.add_task(name or "runs", total=total) for name, total in runs.items()}
            rows = demos.play(plans, folder, lambda name, done: progress.update(bars[name], completed=done), workers)
        shutil.copytree(folder, out_dir, ignore=shutil.ignore_patterns("unfinished"), dirs_exist_ok=True)
    try:
        summary = game.summarize(plans, rows, left_out)
    except MissingExtra as missing:
        if as_json:
            raise
        warn(f"The results are in {out_dir}. No table: {missing}")
        return
    (out_dir / "demo.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    written = ["results.jsonl" if "" in plans else f"{'/, '.join(plans)}/", "demo.json"]
    try:
        game.plot(summary, out_dir / "demo.png")
        written.append("demo.png")
    except MissingExtra as missing:
        warn(f"No demo.png: {missing}")
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for part in game.report(summary):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str) and not console.is_terminal)
    console.print(f"Written to {out_dir}/: {', '.join(written)}", highlight=False, soft_wrap=True)
    first = out_dir / next(iter(plans))
    console.print(f"Tests and every run with its prompts: {command('report', first)}", highlight=False, soft_wrap=True)
