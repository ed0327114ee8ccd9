"""`icrl show`: one saved run, attempt by attempt, with its exact prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icrl_graph.cli.shared import Json, app, errors_reported, out, warn, write

if TYPE_CHECKING:
    from icrl_graph.cli.saved_run import SavedRun
    from icrl_graph.state.episode import Episode, Message


@app.command(
    epilog="Examples:\n\n  icrl show runs/pangram\n\n  icrl show runs/pangram --round 3\n\n"
    "  icrl show runs/colors --run 'icrl/#b94/0' --prompts"
)
def show(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or, with --run, of a comparison.")],
    number: Annotated[
        int | None,
        typer.Option("--round", min=1, metavar="<int>", help="Print this round in full, with its prompt."),
    ] = None,
    prompts: Annotated[bool, typer.Option("--prompts", help="Print every round in full, with its prompt.")] = False,
    cell: Annotated[
        str | None, typer.Option("--run", help="Which run of a comparison: ARM/TASK/SEED, as icrl/4,5,6,10/0.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show one saved run, round by round.

    It may be under way, interrupted or over. Nothing is paid, resumed or written. Code that the folder names is
    imported only to make the prompts of a custom method or layout.
    """
    from icrl_graph.cli.saved_run import read_cell, read_run
    from icrl_graph.state.loading import importing_nothing

    with errors_reported():
        is_comparison = cell is not None or (folder / "bench.json").exists()
        run = read_cell(folder, cell or "") if is_comparison else read_run(folder)
        rounds = sorted({episode["round"] + 1 for episode in run.episodes})
        if number is not None and number not in rounds:
            raise ValueError(f"there is no round {number}; the run has {len(rounds)} so far")
        whole = prompts or number is not None
        if whole and run.code:
            warn(f"To make the prompts, this is imported: {', '.join(run.code)}.")
        with importing_nothing(unless=bool(run.code)):  # nothing else than was told
            made = run.make_prompts() if whole else []
        shown = [at for at, episode in enumerate(run.episodes) if number in (None, episode["round"] + 1)]
        if as_json:
            typer.echo(json.dumps(_as_json(run, shown, made)))
            return
        for line in _heading(run) if number is None else ():
            write(line)
        for at in shown:
            for line in _in_full(run, at, made[at]) if whole else _in_short(run, at):
                write(line)
        for line in _ending(run) if number is None else ():
            write(line)


def _as_json(run: SavedRun, shown: Sequence[int], made: Sequence[Sequence[Message]]) -> dict[str, Any]:
    from icrl_graph.state.episode import reasoning_of, spent
    from icrl_graph.state.notebook import attempt_row

    attempts = []
    for at in shown:
        episode = run.episodes[at]
        words = {name: episode.get(name) for name in ("reflection", "finish_reason", "cut", "warning")}
        words |= {"feedback": episode.get("reward", {}).get("feedback"), "reasoning": reasoning_of(episode) or None}
        prompt = {"prompt": made[at]} if made else {}
        attempts.append({**attempt_row(episode), **words, "chosen": at == run.chosen, **prompt})
    whole = {**run.about, "task": run.task, "ended": bool(run.outcome), **run.outcome, "usage": spent(run.episodes)}
    return {"run": run.name, **whole, "attempts": attempts}


def _heading(run: SavedRun) -> Iterator[str]:
    from icrl_graph.prompts.text import text_of

    yield run.name
    yield ", ".join(f"{name} {value}" for name, value in run.about.items())
    yield f"task: {_brief(text_of(run.task))}\n"


def _in_short(run: SavedRun, at: int) -> Iterator[str]:
    """An attempt on a line, with a line for each thing that was said about it."""
    from icrl_graph.prompts.templates import label
    from icrl_graph.prompts.text import number
    from icrl_graph.state.episode import error_of, value_of
    from icrl_graph.state.formatting import shorten

    episode = run.episodes[at]
    instruction = shorten(label(episode["plan"]["instruction"]), 12)
    by = f" {episode['model']:12}" if "model" in episode else ""
    line = f"{_name(run, at):12} {instruction:12}{by} reward {number(value_of(episode)):>8}  "
    yield line + shorten(episode.get("response", ""), max(20, out.width - len(line)))
    for name, text in {**_said(episode), "!": error_of(episode)}.items():
        if text:
            yield f"{'':13}{name} {_brief(text)}"
    if episode.get("cut"):
        yield f"{'':13}cut off at its limit of tokens"


def _in_full(run: SavedRun, at: int, prompt: Sequence[Message]) -> Iterator[str]:
    from icrl_graph.prompts.text import number, text_of
    from icrl_graph.state.episode import cost_of, error_of, reasoning_of, value_of
    from icrl_graph.state.formatting import cost
    from icrl_graph.state.selection import metric_of

    episode = run.episodes[at]
    yield f"===== {_name(run, at)}, {_brief(episode['plan']['instruction'])}"
    for message in prompt:
        yield f"----- {message['role']}\n{text_of([message])}"
    if reasoning := reasoning_of(episode):
        yield f"----- reasoning, {len(reasoning):,} characters\n{_brief(reasoning)}"
    yield f"----- response{', cut off at its limit of tokens' if episode.get('cut') else ''}"
    yield episode.get("response", "(none)")
    for name, text in {**_said(episode), "error:": error_of(episode)}.items():
        if text:
            yield f"----- {name}\n{text}"
    yield f"----- reward {number(value_of(episode))}, metric {number(metric_of(episode))}; {cost(cost_of(episode))}\n"


def _said(episode: Episode) -> Mapping[str, str | None]:
    """What was said about an attempt."""
    from icrl_graph.prompts.text import number

    feedback = episode.get("reward", {}).get("feedback")
    passes = ", ".join(map(number, episode.get("passes", [])))
    return {
        "passes:": passes,
        "feedback:": feedback,
        "reflection:": episode.get("reflection"),
        "warning:": episode.get("warning"),
    }


def _name(run: SavedRun, at: int) -> str:
    episode = run.episodes[at]
    several = any(other["candidate"] for other in run.episodes if other["round"] == episode["round"])
    candidate = f".{episode['candidate'] + 1}" if several else ""
    return f"round {episode['round'] + 1}{candidate}{' *' if at == run.chosen else ''}"


def _brief(text: str) -> str:
    from icrl_graph.state.formatting import shorten

    return shorten(text, 300)


def _ending(run: SavedRun) -> Iterator[str]:
    from icrl_graph.prompts.text import number
    from icrl_graph.state.episode import outgrown, spent, told_switch
    from icrl_graph.state.formatting import cost
    from icrl_graph.state.selection import best_value

    usage = spent(run.episodes)
    for note in filter(None, (told_switch(run.episodes), outgrown(run.episodes))):
        yield f"\nNote: {note}."
    paid = f"{cost(usage)}, {usage.get('seconds', 0):.1f} s"
    if not run.outcome:
        best = best_value(run.episodes)
        yield f"\nIt has not ended: {len(run.episodes)} attempts so far, best reward {number(best)}, {paid}."
        return
    reward, metric = number(run.outcome["reward"]), number(run.outcome["metric"])
    if run.chosen is not None:
        yield f"\n{run.outcome['answer']}"
    yield (
        f"\nreward {reward} ({run.outcome['rewarded_by']}), metric {metric}; stopped by {run.outcome['stopped']} after "
        f"{paid}.{'' if run.chosen is None else ' * gave the answer.'}"
    )
