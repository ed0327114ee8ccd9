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
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

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
    epilog="Examples:\n\n  icrl demo\n\n  icrl demo --tasks 1000 --out runs/all-held-out\n\n"
    "  icrl demo --json | jq '.arms[0].reward_by_round'"
)
def demo(
    tasks: Annotated[int, typer.Option(min=2, max=1000, help="Held-out games to play.")] = 150,
    seed: Annotated[int, typer.Option(help="Chooses the games and seeds every sample.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", help="Where results.jsonl, summary.json and curves.png go.")] = Path(
        "runs/demo"
    ),
    as_json: Json = False,
) -> None:
    """Watch a small learned policy get better from its rewards alone: offline, no key, under a minute."""
    from icrl_graph.benchmarks import demo as arms

    with _told():
        console = err if as_json else out
        _swatches(console, seed)
        with _progress(console) as progress:
            bars = {name: progress.add_task(name, total=tasks) for name in arms.ARMS}
            rows = list(arms.play(tasks, seed, lambda name, done: progress.update(bars[name], completed=done)))
        summary = arms.summarize(rows)
        arms.write(rows, summary, out_dir)
        written = ["results.jsonl", "summary.json"]
        try:
            arms.plot(summary, out_dir / "curves.png")
            written.append("curves.png")
        except MissingExtra as missing:
            err.print(f"No curves.png: {missing}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        if as_json:
            typer.echo(json.dumps(summary))
            return
        console.print(_demo_table(summary, tasks))
        _demo_words(console, summary)
        console.print(f"Written to {out_dir}/: {', '.join(written)}", highlight=False, soft_wrap=True)


def _swatches(console: Console, seed: int) -> None:
    """One game, drawn as it goes."""
    from icrl_graph.games import hidden_color
    from icrl_graph.improvement import improve

    game = hidden_color.tasks(1, seed=seed)[0]
    secret = game["task_data"]["secret"]
    console.print(
        Text.assemble("The hidden color is ", _swatch(secret), f" {secret}. The learner sees only its rewards.")
    )

    def show(event: Any) -> None:
        guess = hidden_color.read_color(event["response"] or "")
        drawn = _swatch(hidden_color.write_color(guess)) if guess else Text("?")
        bar = "█" * round(20 * (event["reward"] or 0.0))
        console.print(
            Text.assemble(
                f"  round {event['round'] + 1}  ",
                drawn,
                f" {event['response']}  {event['reward']:.2f}  ",
                (bar, "cyan"),
            )
        )

    improve(**game, score=hidden_color.closeness, model="learner:hidden-color", seed=seed, on_episode=show)
    console.print()


def _swatch(color: str) -> Text:
    return Text("      ", style=f"on #{''.join(2 * digit for digit in color[1:])}")


def _demo_table(summary: dict[str, Any], tasks: int) -> Table:
    rounds = len(summary["arms"][0]["reward_by_round"])
    title = f"Hidden color, {tasks} held-out games: mean reward of round 1 to {rounds}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for heading in (*map(str, range(1, rounds + 1)), "best so far", "solved", "calls"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in summary["arms"]:
        best = arm["best_by_round"][-1]
        table.add_row(
            arm["name"],
            *(f"{point['mean']:.2f}".removeprefix("0") for point in arm["reward_by_round"]),
            f"{best['mean']:.2f} ±{(best['high'] - best['low']) / 2:.2f}",
            f"{arm['solved']['mean']:.0%}",
            str(arm["calls"]),
        )
    return table


def _demo_words(console: Console, summary: dict[str, Any]) -> None:
    arms = {arm["name"]: arm for arm in summary["arms"]}
    gain = {name: arm["reward_by_round"][-1]["mean"] - arm["reward_by_round"][0]["mean"] for name, arm in arms.items()}
    best = {name: arm["best_by_round"][-1]["mean"] for name, arm in arms.items()}
    lines = [
        f"From the first round to the last icrl changes by {gain['icrl']:+.2f}; its weights never change.",
        f"With its rewards zeroed the change is {gain['zero']:+.2f}, with other games' {gain['shuffled']:+.2f}.",
        f"At equal calls its best guess is at {best['icrl']:.2f}; best_of_n of the same model {best['best_of_n']:.2f}, "
        f"random {best['random']:.2f}.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


# ------------------------------------------------------------------------------------------------------ run and resume


@app.command(
    epilog="Examples:\n\n  icrl run hidden-color:#3b9 --model learner:hidden-color\n\n"
    "  icrl run game24:4,5,6,10 --model openai:gpt-4.1-mini --rounds 16 --target 1\n\n"
    "  icrl run 'Write a pangram.' --model openai:gpt-4.1-mini --evaluator my_score.py:score --out runs/pangram\n\n"
    "  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 icrl run game24:3,3,8,8 --model openai:my-model"
)
def run(
    task: Annotated[str, typer.Argument(help="A prompt, or an item of a benchmark such as game24:4,5,6,10.")],
    model: Annotated[str, typer.Option(help="provider:name, learner:hidden-color, or path.py:name.")],
    evaluator: Annotated[
        str | None, typer.Option(help="path.py:name or module:name; default the benchmark's own.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What is reported, if it is not the reward.")] = None,
    topology: Annotated[str, typer.Option(help="See: icrl topologies.")] = "icrl",
    rounds: Annotated[int | None, typer.Option(help="Attempts at most.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Attempts side by side, for best_of_n.")] = None,
    memory: Annotated[str | None, typer.Option(help="all, none, last:N, best:N or tokens:N.")] = None,
    schedule: Annotated[str | None, typer.Option(help="preset, autonomous, explore, exploit or plain.")] = None,
    layout: Annotated[str | None, typer.Option(help="turns or transcript.")] = None,
    show: Annotated[str | None, typer.Option(help="What the model sees of its rewards: true, zero or hidden.")] = None,
    target: Annotated[float | None, typer.Option(help="Stop when a reward reaches this.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many rounds without a better reward.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Budget of paid calls.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Budget of tokens, in and out.")] = None,
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

    given = {
        "rounds": rounds, "n": n, "memory": memory, "schedule": schedule, "layout": layout, "show": show,
        "target": target, "patience": patience, "max_calls": max_calls, "max_tokens": max_tokens,
        "max_seconds": max_seconds, "seed": seed, "system": system,
    }  # fmt: skip
    with _told():
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
        if result.answer is not None:
            out.print(_printable(f"\n{result.answer}"), highlight=False, markup=False, soft_wrap=True)
        out.print(
            f"\nreward {number(result.reward)}, metric {number(result.metric)}; stopped by {result.stopped} after "
            f"{usage.get('calls', 0)} calls{tokens}, {usage.get('seconds', 0):.1f} s. Kept in {escape(str(folder))}",
            highlight=False,
            soft_wrap=True,
        )
    if result.stopped == "failures":
        _fail("the model failed too often in a row", f"Once it answers again, go on with: icrl resume {folder}")
        raise typer.Exit(1)
    if result.reward is None:
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
        out.print(f"{name:12} {line}", highlight=False, markup=False)


@app.command(epilog="Example:\n\n  icrl draw icrl")
def draw(topology: Annotated[str, typer.Argument(help="See: icrl topologies.")], as_json: Json = False) -> None:
    """Print a method's graph as a mermaid diagram, or with --json as nodes and edges."""
    from icrl_graph.improvement import build

    with _told():
        graph = build(topology, lambda: "", lambda: 0.0).compile(name=topology).get_graph()
    typer.echo(json.dumps(graph.to_json()) if as_json else graph.draw_mermaid())


# --------------------------------------------------------------------------------------------------- learner and server


@app.command(epilog="Example:\n\n  icrl train hidden-color --out runs/learner")
def train(
    learner: Annotated[str, typer.Argument(help="hidden-color.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Where the weights go.")] = Path("runs/learner"),
    iterations: Annotated[int | None, typer.Option(min=1, help="Fewer than the recipe's, to try it out.")] = None,
    as_json: Json = False,
) -> None:
    """Train a shipped learner anew by its recipe (one CPU core, PyTorch)."""
    with _told():
        if learner != "hidden-color":
            raise ValueError(f"unknown learner {learner!r}; choose 'hidden-color'")
        from icrl_graph.meta.hidden_color import Recipe, export
        from icrl_graph.meta.hidden_color import train as run_recipe

        recipe = Recipe() if iterations is None else Recipe(iterations=iterations)
        console = err if as_json else out
        with _progress(console) as progress:
            bar = progress.add_task("loss", total=recipe.iterations)
            last = [float("nan")]

            def show(done: int, loss: float) -> None:
                last[0] = loss
                progress.update(bar, completed=done, description=f"loss {loss:.4f}")

            student = run_recipe(recipe, show)
        out_dir.mkdir(parents=True, exist_ok=True)
        path = out_dir / "hidden_color.npz"
        export(student, path)
        if as_json:
            typer.echo(json.dumps({"weights": str(path), "iterations": recipe.iterations, "loss": last[0]}))
        else:
            console.print(f"Loss {last[0]:.4f} nats a digit. Written to {path}", highlight=False)


@app.command(epilog="Example:\n\n  icrl serve --port 8000 --latency 0.2")
def serve(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds before each answer.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Serve the shipped learner over OpenAI's protocol on this machine, to try things out over real HTTP."""
    import threading

    from icrl_graph.learner import LEARNERS
    from icrl_graph.testing import OpenAIServer

    with _told(), OpenAIServer(LEARNERS["hidden-color"], latency=latency, port=port) as server:
        use = f"OPENAI_BASE_URL={server.base_url} icrl run hidden-color:#3b9 --model openai:learner"
        hint = f"Serving at {server.base_url}; stop with Ctrl-C. Use it with:\n  {use}"
        typer.echo(json.dumps({"base_url": server.base_url}) if as_json else hint)
        threading.Event().wait()


if __name__ == "__main__":
    main()
