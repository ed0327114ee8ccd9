"""`icrl`, the command line: the only place that prints.

Exit codes: 0 done, 1 the run failed or was interrupted, 2 the arguments were wrong. With --json, stdout holds one JSON
value and nothing else; whatever is told besides goes to stderr.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from icrl_graph.errors import IcrlError, MissingExtra, ModelError

app = typer.Typer(
    name="icrl",
    help="Reward-driven self-improvement of language models at inference time.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
out, err = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def main() -> None:
    """The entry point of the console script."""
    logging.getLogger("icrl_graph").addHandler(logging.NullHandler())  # what goes wrong is told with its round
    app()


@contextmanager
def _told(resume: Path | None = None) -> Iterator[None]:
    """Turn failures into one clear line and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        err.print(f"\nInterrupted. {_kept(resume)}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except (ModelError, MissingExtra, OSError) as error:
        _fail(error, _kept(resume))
        raise typer.Exit(1) from None
    except (ValueError, IcrlError) as error:
        _fail(error)
        raise typer.Exit(2) from None
    except Exception as error:
        _fail(f"{type(error).__name__}: {error}", _kept(resume))
        raise typer.Exit(1) from None


def _kept(folder: Path | None) -> str:
    if folder is None or not (folder / "run.json").exists():
        return ""
    return f"What was done so far is kept. Go on with: icrl resume {folder}"


def _fail(error: object, hint: str = "") -> None:
    err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    if hint:
        err.print(hint, highlight=False, markup=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    bar = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*bar, console=console, transient=True)


# ---------------------------------------------------------------------------------------------------------------- demo


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
    with _told():
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
    from icrl_graph.benchmarks import game24
    from icrl_graph.benchmarks.demos import game24 as arms

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
    with _progress(console) as progress:
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


# ------------------------------------------------------------------------------------------------------ run and resume


@app.command(
    epilog="Examples:\n\n  icrl run hidden-color:#3b9 --model learner:hidden-color\n\n"
    "  icrl run game24:4,5,6,10 --model learner:game24 --rounds 16 --target 1\n\n"
    "  icrl run game24:4,5,6,10 --model openai:gpt-4.1-mini --rounds 16 --target 1\n\n"
    "  icrl run 'Write a pangram.' --model openai:gpt-4.1-mini --evaluator my_score.py:score --out runs/pangram\n\n"
    "  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 icrl run game24:3,3,8,8 --model openai:my-model"
)
def run(
    task: Annotated[str, typer.Argument(help="A prompt, or an item of a benchmark such as game24:4,5,6,10.")],
    model: Annotated[str, typer.Option(help="provider:name, learner:hidden-color, learner:game24, or path.py:name.")],
    evaluator: Annotated[
        str | None, typer.Option(help="path.py:name or module:name; default the benchmark's own.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What is reported, if it is not the reward.")] = None,
    topology: Annotated[str, typer.Option(help="See: icrl topologies.")] = "icrl",
    rounds: Annotated[int | None, typer.Option(help="Attempts at most.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Attempts side by side, for best_of_n.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="all, none, last:N, best:N, tokens:N, positive:P, reflections:N.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="preset, autonomous, explore, exploit, plain, cot, long_cot.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="turns or transcript.")] = None,
    show: Annotated[
        str | None, typer.Option(help="What the model sees of its rewards: true, zero, hidden, outcome, flip:P, ...")
    ] = None,
    target: Annotated[float | None, typer.Option(help="Stop when a reward reaches this.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many rounds without a better reward.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Budget of paid calls.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Budget of tokens, in and out.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Budget of US dollars; needs the models' prices.")] = None,
    prices: Annotated[
        str | None, typer.Option(help='USD a million tokens, as JSON: {"my-model": {"input": 1, "output": 4}}.')
    ] = None,
    retests: Annotated[int | None, typer.Option(help="Judge the leaders so often again before one is chosen.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Budget of seconds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Sent to the model; makes ablations repeatable.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="For every call.")] = None,
    base_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible server; default OPENAI_BASE_URL.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The run's folder; default a new one in runs/.")] = None,
    as_json: Json = False,
) -> None:
    """Improve the answer to one task, round by round; the run is kept in a folder and can be resumed."""
    from icrl_graph.runs import Run

    with _told():
        given = {
            "rounds": rounds, "n": n, "memory": memory, "schedule": schedule, "layout": layout, "show": show,
            "target": target, "patience": patience, "max_calls": max_calls, "max_tokens": max_tokens,
            "max_usd": max_usd, "prices": _json(prices, "--prices"), "max_seconds": max_seconds, "retests": retests,
            "seed": seed, "system": system,
        }  # fmt: skip
        asked = Run(
            task=task,
            model=_whole(model),
            evaluator=_whole(evaluator),
            metric=_whole(metric),
            topology=topology,
            base_url=base_url,
            temperature=temperature,
            options={name: value for name, value in given.items() if value is not None},
        )
    folder = out_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    with _told(resume=folder):
        with _quiet(as_json):
            result = asked.start(folder, _round_printer(as_json))
        _finish(result, folder, as_json)


@app.command(epilog="Example:\n\n  icrl resume runs/pangram")
def resume(
    folder: Annotated[Path, typer.Argument(help="The run's folder.")],
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted; nothing is paid twice but the call that was in flight."""
    from icrl_graph.runs import Run

    with _told(resume=folder):
        with _quiet(as_json):
            result = Run.resume(folder, _round_printer(as_json))
        _finish(result, folder, as_json)


def _quiet(as_json: bool) -> AbstractContextManager[Any]:
    """With --json, what a model or an evaluator prints goes to stderr."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _printable(text: str) -> str:
    """Without control characters: what a model says must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def _whole(name: str | None) -> Any:
    """A file's name as a whole path, so that a run can be resumed from anywhere."""
    where, colon, attribute = (name or "").rpartition(":")
    return f"{Path(where).resolve()}:{attribute}" if colon and where.endswith(".py") else name


def _json(text: str | None, option: str) -> Any:
    """What stands in an option as JSON."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is JSON, got {text!r}: {error}") from None


def _round_printer(as_json: bool) -> Any:
    console = err if as_json else out

    def show(event: Any) -> None:
        from icrl_graph.context import number
        from icrl_graph.improvement import shorten

        said = event["response"]
        head = f"round {event['round']:<3} {event['instruction'][:10]:10} reward {number(event['reward']):>8}  "
        head += f"best {number(event['best']):>8}  "
        head += _printable(shorten(said or "", max(20, console.width - len(head))))
        console.print(head, highlight=False, markup=False, soft_wrap=True)
        if event["error"] is not None:
            told = _printable(f"          ! {shorten(event['error'], 300)}")
            console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)

    return show


def _finish(result: Any, folder: Path, as_json: bool) -> None:
    from icrl_graph import runs
    from icrl_graph.context import number

    if as_json:
        typer.echo(json.dumps(runs.as_json(result), ensure_ascii=False))
    else:
        usage = result.usage
        tokens = (
            f", {usage['input']} + {usage['output']} tokens ({usage.get('cached', 0)} cached)"
            if "input" in usage
            else ""
        )
        if "usd" in usage:
            tokens += f", {usage['usd']:.4f} USD" + (" and more" if usage.get("unpriced") else "")
        if result.answer is not None:
            out.print(_printable(f"\n{result.answer}"), highlight=False, markup=False, soft_wrap=True)
        out.print(
            f"\nreward {number(result.reward)} ({result.rewarded_by}), metric {number(result.metric)}; stopped by "
            f"{result.stopped} after {usage.get('calls', 0)} calls{tokens}, {usage.get('seconds', 0):.1f} s. Kept in "
            f"{escape(str(folder))}",
            highlight=False,
            soft_wrap=True,
        )
    if result.stopped == "failures":
        _fail("the model failed too often in a row", f"Once it answers again, go on with: icrl resume {folder}")
        raise typer.Exit(1)
    if all(reward is None for reward in result.rewards):
        _fail("no attempt gave an answer" if result.answer is None else "no attempt could be scored")
        raise typer.Exit(1)


# ---------------------------------------------------------------------------------------------------------- topologies


@app.command(epilog="Example:\n\n  icrl topologies --json")
def topologies(as_json: Json = False) -> None:
    """List the methods."""
    from icrl_graph.topologies import TOPOLOGIES

    lines = {name: (create.__doc__ or "").splitlines()[0] for name, create in TOPOLOGIES.items()}
    if as_json:
        typer.echo(json.dumps(lines))
        return
    for name, line in lines.items():
        out.print(f"{name:12} {line}", highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example:\n\n  icrl draw icrl")
def draw(topology: Annotated[str, typer.Argument(help="See: icrl topologies.")], as_json: Json = False) -> None:
    """Print a method's graph as a mermaid diagram, or with --json as nodes and edges."""
    from icrl_graph.improvement import build

    with _told():
        graph = build(topology, lambda: "", lambda: 0.0).compile(name=topology).get_graph()
    typer.echo(json.dumps(graph.to_json()) if as_json else graph.draw_mermaid())


# --------------------------------------------------------------------------------------------------- learner and server


@app.command(epilog="Examples:\n\n  icrl train hidden-color --out runs/learner\n\n  icrl train game24")
def train(
    learner: Annotated[str, typer.Argument(help="hidden-color or game24.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Where the weights go.")] = Path("runs/learner"),
    iterations: Annotated[int | None, typer.Option(min=1, help="Fewer than the recipe's, to try it out.")] = None,
    as_json: Json = False,
) -> None:
    """Train a shipped learner anew by its recipe (one CPU core, PyTorch)."""
    with _told():
        from icrl_graph.meta import RECIPES
        from icrl_graph.meta.layers import export

        if learner not in RECIPES:
            raise ValueError(f"unknown learner {learner!r}; choose one of {', '.join(RECIPES)}")
        console = err if as_json else out
        out_dir.mkdir(parents=True, exist_ok=True)
        told = []
        for file, (recipe, run_recipe) in RECIPES[learner]().items():
            asked = recipe if iterations is None else replace(recipe, iterations=iterations)
            student, loss = _train(asked, run_recipe, console)
            export(student, out_dir / file)
            told.append({"weights": str(out_dir / file), "iterations": asked.iterations, "loss": loss})
            console.print(f"Loss {loss:.4f} nats. Written to {out_dir / file}", highlight=False, soft_wrap=True)
        if as_json:
            typer.echo(json.dumps(told))


def _train(recipe: Any, run_recipe: Any, console: Console) -> tuple[Any, float]:
    """Run a recipe under a progress bar; gives the network and its last loss."""
    losses = []
    with _progress(console) as progress:
        bar = progress.add_task("loss", total=recipe.iterations)

        def show(done: int, loss: float) -> None:
            losses.append(loss)
            progress.update(bar, completed=done, description=f"loss {loss:.4f}")

        return run_recipe(recipe, show), losses[-1]


@app.command(epilog="Example:\n\n  icrl serve --port 8000 --latency 0.2")
def serve(
    learner: Annotated[str, typer.Argument(help="Which learner: hidden-color, game24, ...")] = "hidden-color",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds before each answer.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Serve a shipped learner over OpenAI's protocol on this machine, to try things out over real HTTP."""
    import threading

    from icrl_graph.learner import find_learner
    from icrl_graph.testing import OpenAIServer

    with _told(), OpenAIServer(find_learner(learner), latency=latency, port=port) as server:
        item = "hidden-color:#3b9" if learner == "hidden-color" else "game24:4,5,6,10"
        use = f"OPENAI_BASE_URL={server.base_url} icrl run {item} --model openai:learner"
        hint = f"Serving at {server.base_url}; stop with Ctrl-C. Use it with:\n  {use}"
        typer.echo(json.dumps({"base_url": server.base_url}) if as_json else hint)
        threading.Event().wait()


if __name__ == "__main__":
    main()
