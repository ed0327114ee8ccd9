"""`icrl train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from icrl_graph.cli.shared import Json, app, err, errors_reported, out, progress_bar, warn, write
from icrl_graph.errors import MissingExtra
from icrl_graph.meta_rl import RECIPES
from icrl_graph.state.formatting import command

WORDS = "words"
"""The learner that is a language model."""
TRAINED = (*RECIPES, WORDS)


@app.command(
    epilog="Examples:\n\n  icrl train hidden-color --out runs/learner\n\n  icrl train game24\n\n"
    "  icrl train words --credit own --seed 1 --out runs/own"
)
def train(
    learner: Annotated[str, typer.Argument(help=f"One of {', '.join(TRAINED)}.", autocompletion=lambda: [*TRAINED])],
    out_dir: Annotated[Path, typer.Option("--out", help="The folder for the weights.")] = Path("runs/learner"),
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="<int>", help="Fewer than the recipe's, to try it out; of each stage.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, metavar="<int>", help=f"{WORDS}: of all that is drawn.")
    ] = None,
    credit: Annotated[
        str | None,
        typer.Option(help=f"{WORDS}: how later episodes count for earlier ones, such as sum, discounted:0.9 or own."),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, metavar="<int>", help=f"{WORDS}: of each trial of the second stage.")
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(min=1, metavar="<int>", help=f"{WORDS}: games of each iteration of the second stage."),
    ] = None,
    families: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            metavar="<str>",
            help=f"{WORDS}: a family of games to train on; repeatable. Default prize, amounts.",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help=f"{WORDS}: another model, a GGUF file or a folder; default that of local:smollm2."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a shipped learner, or a language model on word games, by its recipe (on CPU, PyTorch).

    The training of the language model takes from half an hour of CPU time, where the processor computes in bfloat16, to
    more than an hour; the same command on the same folder resumes it.
    """
    with errors_reported():
        if learner not in TRAINED:
            raise ValueError(f"unknown learner {learner!r}; choose one of {', '.join(TRAINED)}")
        own: dict[str, Any] = {"--seed": seed, "--credit": credit, "--episodes": episodes}
        own |= {"--instances": instances, "--family": families, "--base": base}
        if learner == WORDS:
            second = {"credit": credit, "episodes": episodes, "instances": instances}
            both = {"iterations": iterations, "seed": seed, "families": families and tuple(families)}
            _train_words(out_dir, base, as_json, both, second)
            return
        if given := [option for option, value in own.items() if value is not None]:
            raise ValueError(f"{' and '.join(given)} {'are' if given[1:] else 'is'} for {WORDS} alone")
        recipes = RECIPES[learner]()
        from icrl_graph.meta_rl.layers import export  # needs PyTorch, as the recipes do

        console = err if as_json else out
        out_dir.mkdir(parents=True, exist_ok=True)
        trained = []
        for file, (recipe, run_recipe) in recipes.items():
            chosen = recipe if iterations is None else replace(recipe, iterations=iterations)
            student, loss = _train(chosen, run_recipe, console)
            export(student, out_dir / file)
            trained.append({"weights": str(out_dir / file), "iterations": chosen.iterations, "loss": loss})
            write(f"Loss {loss:.4f} nats. Written to {out_dir / file}", console)
        if as_json:
            typer.echo(json.dumps(trained))


def _train(recipe: Any, run_recipe: Any, console: Console) -> tuple[Any, float]:
    """Run a recipe under a progress bar; returns the network and its last smoothed loss."""
    losses = []
    with progress_bar(console) as progress:
        bar = progress.add_task("loss", total=recipe.iterations)

        def show(done: int, loss: float) -> None:
            losses.append(loss)
            progress.update(bar, completed=done, description=f"loss {loss:.4f}")

        return run_recipe(recipe, show), losses[-1]


def _train_words(
    out_dir: Path, base: Path | None, as_json: bool, both: Mapping[str, Any], second: Mapping[str, Any]
) -> None:
    """Run both stages of the language model's recipe, each under a bar; what is None is as the recipe has it."""
    from icrl_graph.meta_rl import word_learner  # needs PyTorch
    from icrl_graph.meta_rl.pictures import draw_training
    from icrl_graph.models.gguf import sha256
    from icrl_graph.models.local import smollm2

    common = {name: value for name, value in both.items() if value is not None}
    own = {name: value for name, value in second.items() if value is not None}
    distillation, reinforcement = word_learner.Distillation(**common), word_learner.Reinforcement(**common, **own)
    console, model = err if as_json else out, base or smollm2()
    write(f"Training on {model}, into {out_dir}. If it is stopped, the same command resumes it.", console)
    with progress_bar(console) as progress:
        stages = {"distil": distillation.iterations, "reinforce": reinforcement.iterations}
        bars = {stage: progress.add_task(stage, total=total) for stage, total in stages.items()}

        def show(stage: str, done: int, facts: Mapping[str, Any]) -> None:
            name, value = next(iter(facts.items()))
            progress.update(bars[stage], completed=done, description=f"{stage}: {name} {value:.2f}")

        adapter = word_learner.train(model, out_dir, distillation, reinforcement, show)
    picture = out_dir / "training.png"
    try:
        draw_training(out_dir, picture)
    except (MissingExtra, ValueError, LookupError) as problem:  # such as a log that was cut off
        warn(f"No picture was drawn: {problem}")
    if as_json:
        typer.echo(json.dumps({"adapter": str(adapter), "sha256": sha256(adapter)}))
    else:
        write(f"Written to {adapter}. Does it learn in its context?", console)
        if base is None:
            trained = distillation.families
            games = [word for family in trained for word in ("--item", f"{family}:wordings:*", "--trained-on", family)]
            write(f"  {command('meta-eval', f'local:{adapter}', *games, '--instances', '32')}", console)
        else:
            file = base if base.suffix == ".gguf" else "base.gguf"
            write(f"  chat_model('local:{adapter}', base='{file}') runs it, on its base as a GGUF file.", console)
