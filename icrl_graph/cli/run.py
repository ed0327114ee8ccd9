"""`icrl run` and `icrl resume`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from icrl_graph.cli.shared import (
    Json,
    app,
    draining,
    err,
    fail,
    out,
    printable,
    quiet,
    read_json,
    telling,
    telling_repeats,
    whole,
)
from icrl_graph.state.formatting import cost, shorten


@app.command(
    epilog="Examples:\n\n  icrl run hidden-color:#b94 --model learner:hidden-color\n\n"
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
    attempts: Annotated[int, typer.Option(help="How often a call is made that fails for a while.")] = 6,
    show_preview: Annotated[bool, typer.Option("--preview", help="Say what it will cost, and stop.")] = False,
    response_tokens: Annotated[int, typer.Option(min=1, help="Of a response, for the preview.")] = 300,
    out_dir: Annotated[Path | None, typer.Option("--out", help="The run's folder; default a new one in runs/.")] = None,
    as_json: Json = False,
) -> None:
    """Improve the answer to one task, round by round; the run is kept in a folder and can be resumed."""
    from icrl_graph.cli.run_folder import Run

    with telling():
        given = {
            "rounds": rounds, "n": n, "memory": memory, "schedule": schedule, "layout": layout, "show": show,
            "target": target, "patience": patience, "max_calls": max_calls, "max_tokens": max_tokens,
            "max_usd": max_usd, "prices": read_json(prices, "--prices"), "max_seconds": max_seconds, "retests": retests,
            "seed": seed, "system": system,
        }  # fmt: skip
        asked = Run(
            task=task,
            model=whole(model),
            evaluator=whole(evaluator),
            metric=whole(metric),
            topology=topology,
            base_url=base_url,
            temperature=temperature,
            attempts=attempts,
            options={name: value for name, value in given.items() if value is not None},
        )
        if show_preview:
            usage = asked.preview(response_tokens)
            typer.echo(json.dumps(usage) if as_json else f"About {cost(usage)}.")
            return
    folder = out_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    with telling(resume=folder):
        with quiet(as_json), telling_repeats(), draining() as control:
            result = asked.start(folder, _round_printer(as_json), control)
        _finish(result, folder, as_json)


@app.command(epilog="Examples:\n\n  icrl resume runs/pangram\n\n  icrl resume runs/pangram --more 10")
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    more: Annotated[int, typer.Option(min=0, help="Rounds beyond those that the run was to have.")] = 0,
    as_json: Json = False,
) -> None:
    """Go on with what was interrupted, or for more rounds; nothing is paid twice but the calls that were in flight."""
    from icrl_graph.cli import bench
    from icrl_graph.cli.run_folder import Run

    if (folder / "bench.json").exists():
        with telling():
            if more:
                raise ValueError("a comparison is given more arms, tasks and seeds by icrl bench, and no more rounds")
        return bench.resume_comparison(folder, as_json)
    with telling(resume=folder):
        with quiet(as_json), telling_repeats(), draining() as control:
            result = Run.resume(folder, _round_printer(as_json), control, more)
        _finish(result, folder, as_json)


def _round_printer(as_json: bool) -> Any:
    console = err if as_json else out

    def show(event: Any) -> None:
        from icrl_graph.prompts.text import number

        said = event["response"]
        head = f"round {event['round']:<3} {event['instruction'][:10]:10} reward {number(event['reward']):>8}  "
        head += f"best {number(event['best']):>8}  "
        head += printable(shorten(said or "", max(20, console.width - len(head))))
        console.print(head, highlight=False, markup=False, soft_wrap=True)
        if event["error"] is not None:
            told = printable(f"          ! {shorten(event['error'], 300)}")
            console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)

    return show


def _finish(result: Any, folder: Path, as_json: bool) -> None:
    from icrl_graph.cli import run_folder as runs
    from icrl_graph.prompts.text import number

    if as_json:
        typer.echo(json.dumps(runs.as_json(result), ensure_ascii=False))
    else:
        if result.answer is not None:
            out.print(printable(f"\n{result.answer}"), highlight=False, markup=False, soft_wrap=True)
        out.print(
            f"\nreward {number(result.reward)} ({result.rewarded_by}), metric {number(result.metric)}; stopped by "
            f"{result.stopped} after {cost(result.usage)}, {result.usage.get('seconds', 0):.1f} s. Kept in "
            f"{escape(str(folder))}",
            highlight=False,
            soft_wrap=True,
        )
    if result.stopped == "failures":
        fail("the model failed too often in a row", f"Once it answers again, go on with: icrl resume {folder}")
        raise typer.Exit(1)
    if all(reward is None for reward in result.rewards):
        fail("no attempt gave an answer" if result.answer is None else "no attempt could be scored")
        raise typer.Exit(1)
