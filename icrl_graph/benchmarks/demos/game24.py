"""Game of 24: what the arms of `game24_arms` came to, in figures, in words, and drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from typing_extensions import TypedDict

from icrl_graph.benchmarks.demos import draw_curve, dress, figure, short, signed
from icrl_graph.benchmarks.demos.game24_arms import (
    ARMS,
    BASES,
    ROUNDS,
    UNREWARDED,
    Row,
    choose,
    held_out,
    opening,
    play,
    processors,
)
from icrl_graph.benchmarks.statistics import Interval, difference, half_width, interval, share_interval

__all__ = ["BASES", "choose", "held_out", "opening", "play", "plot", "processors", "report", "summarize"]


class Arm(TypedDict):
    """What one arm came to."""

    base: str
    name: str
    what: str
    solved_within: list[Interval]
    """Share of puzzles solved within the first k attempts, for k from 1."""
    solved_at: list[Interval]
    """Share of puzzles that the k-th attempt solves."""
    step_reward: list[Interval]
    """Mean reward of the three steps of the k-th attempt."""
    icrl_ahead: dict[str, Interval]
    """How much more icrl solves within 8 and within 16, paired by puzzle."""
    calls: int


class Summary(TypedDict):
    """What summary.json holds."""

    puzzles: int
    left_out: list[str]
    """Puzzles that were asked for and not played, with the reason."""
    arms: list[Arm]


def summarize(rows: Sequence[Row], left_out: Sequence[str] = ()) -> Summary:
    """Means and intervals by base, arm and round."""
    number = {puzzle: i for i, puzzle in enumerate(dict.fromkeys(row["puzzle"] for row in rows))}
    played = Counter((row["base"], row["arm"]) for row in rows)
    solved, worth = ({key: np.zeros((len(number), ROUNDS)) for key in played} for _ in range(2))
    for row in rows:
        key, at = (row["base"], row["arm"]), (number[row["puzzle"]], row["round"])
        solved[key][at] = row["solved"]
        worth[key][at] = sum(step or 0.0 for step in row["steps"]) / 3
    within = {key: np.maximum.accumulate(marks, axis=1) for key, marks in solved.items()}
    arms = [
        Arm(
            base=base,
            name=name,
            what=ARMS[name],
            solved_within=[share_interval(within[base, name][:, k]) for k in range(ROUNDS)],
            solved_at=[share_interval(solved[base, name][:, k]) for k in range(ROUNDS)],
            step_reward=[interval(worth[base, name][:, k]) for k in range(ROUNDS)],
            icrl_ahead={
                str(k): difference(within[base, "icrl"][:, k - 1], within[base, name][:, k - 1]) for k in (8, ROUNDS)
            },
            calls=played[base, name],
        )
        for base, names in BASES.items()
        for name in names
    ]
    return Summary(puzzles=len(number), left_out=list(left_out), arms=arms)


def report(summary: Summary) -> Iterator[Table | str]:
    """What the figures say."""
    yield (
        "Columns: share of puzzles solved within 1, 4, 8 and 16 attempts, and by the 16th; mean step reward of the "
        "first and of the 16th attempt; how much more icrl solves within 8. Intervals are 95 % over puzzles.\n"
    )
    for base in BASES:
        yield _table(summary, base)
    yield from _words(summary)
    if summary["left_out"]:
        yield f"Not played, {len(summary['left_out'])} puzzles: {'; '.join(summary['left_out'])}."


def _table(summary: Summary, base: str) -> Table:
    title = f"Game of 24, {summary['puzzles']} held-out puzzles, base policy: {base}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for heading in ("1", "4", "8", "16", "16th", "step reward", "icrl ahead"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in summary["arms"]:
        if arm["base"] != base:
            continue
        within, ahead = arm["solved_within"], arm["icrl_ahead"]["8"]
        table.add_row(
            arm["name"],
            *(short(within[k - 1]["mean"]) for k in (1, 4)),
            *(f"{short(within[k - 1]['mean'])} ±{short(half_width(within[k - 1]))}" for k in (8, 16)),
            short(arm["solved_at"][-1]["mean"]),
            f"{short(arm['step_reward'][0]['mean'])} -> {short(arm['step_reward'][-1]['mean'])}",
            "" if arm["name"] == "icrl" else signed(ahead),
        )
    return table


def _words(summary: Summary) -> Iterator[str]:
    """Each sentence draws its conclusion from an interval, and says so where there is none to draw."""
    arms = {(arm["base"], arm["name"]): arm for arm in summary["arms"]}

    def within(base: str, name: str, k: int) -> str:
        return short(arms[base, name]["solved_within"][k - 1]["mean"])

    def at_end(name: str) -> Interval:
        return arms["weak", name]["solved_at"][-1]

    def ahead(base: str, name: str, k: int) -> Interval:
        return arms[base, name]["icrl_ahead"][str(k)]

    clear = all(ahead("none", name, ROUNDS)["low"] > 0 for name in UNREWARDED)
    yield (
        f"Without a base, a frozen network solves {within('none', 'icrl', 1)} of the puzzles at its first attempt and "
        f"{within('none', 'icrl', ROUNDS)} within {ROUNDS}. Without the history it is "
        f"{within('none', 'best_of_n', ROUNDS)}, without repeats {within('none', 'no_repeats', ROUNDS)}, avoiding "
        f"every step that was tried {within('none', 'avoid_tried', ROUNDS)}; with rewards zeroed "
        f"{within('none', 'zero', ROUNDS)}, shuffled {within('none', 'shuffled', ROUNDS)}, hidden "
        f"{within('none', 'hidden', ROUNDS)}: "
        + ("the gain is driven by rewards." if clear else "these figures don't show a gain that is driven by rewards.")
    )
    needed = ahead("none", "outcome", ROUNDS)["low"] > 0
    yield (
        f"With the outcome of each attempt alone it is {within('none', 'outcome', ROUNDS)}: "
        + (
            "the rewards of the steps are needed."
            if needed
            else "these figures don't show that those of the steps help."
        )
    )
    best = min(UNREWARDED, key=lambda name: ahead("weak", name, 8)["mean"])
    lead = ahead("weak", best, 8)
    yield (
        f"On a weak base icrl solves {within('weak', 'icrl', 8)} within 8 attempts, best_of_n "
        f"{within('weak', 'best_of_n', 8)}, the best arm that sees no true reward ({best}) {within('weak', best, 8)}; "
        f"icrl minus {best} is {signed(lead)}: "
        + (
            "part of the gain is variety, and rewards add to it."
            if lead["low"] > 0
            else "these figures don't show that rewards add to what variety gives."
        )
    )
    knows = all(at_end("icrl")["low"] > at_end(name)["high"] for name in UNREWARDED)
    others = ", ".join(f"{name} {short(at_end(name)['mean'])}" for name in UNREWARDED)
    yield (
        f"The {ROUNDS}th attempt on a weak base solves {short(at_end('icrl')['mean'])} of the puzzles ({others})"
        + (": only true rewards tell when to stop searching." if knows else ".")
    )
    lead = ahead("strong", "best_of_n", 8)
    yield (
        f"A strong base solves {within('strong', 'best_of_n', 1)} at once and {within('strong', 'best_of_n', 8)} "
        f"within 8 by sampling alone; icrl minus best_of_n is {signed(lead)}: "
        + (
            "icrl is behind."
            if lead["high"] < 0
            else "there is next to nothing left to gain."
            if lead["high"] < 0.05
            else "there is still something to gain."
            if lead["low"] > 0
            else "whether there is something left to gain, these figures don't show."
        )
    )


def plot(summary: Summary, path: Path) -> None:
    """Draw, for each base, the share of puzzles solved within k attempts, and the mean step reward of the k-th.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawn = figure(13, 7)
    axes = drawn.subplots(2, len(BASES), sharey=True)
    for column, base in enumerate(BASES):
        for arm in summary["arms"]:
            if arm["base"] == base:
                color = f"C{list(ARMS).index(arm['name'])}"
                style = {"color": color, "linewidth": 2.4 if arm["name"] == "icrl" else 1.1}
                draw_curve(axes[0, column], arm["solved_within"], arm["name"], **style)
                draw_curve(axes[1, column], arm["step_reward"], arm["name"], **style)
        dress(axes[0, column], f"base policy: {base}", ROUNDS)
        dress(axes[1, column], "", ROUNDS)
    axes[0, 0].set_ylabel("solved within k attempts")
    axes[1, 0].set_ylabel("mean step reward of the k-th attempt")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(ARMS), frameon=False)
    title = f"Game of 24: a frozen learner, {summary['puzzles']} held-out puzzles, 95 % intervals"
    drawn.suptitle(title, fontsize=12)
    drawn.savefig(path, dpi=120)
