"""The demo: the shipped learner on hidden color, with its controls, on held-out tasks and through the real graphs.

Five arms with equal calls. If the learner learns from its rewards, `icrl` rises over the rounds; if it needs them,
`zero` and `shuffled` do not; if it does more than sample often, its best so far is above that of `best_of_n`, the same
model without a history, and of `random`, uniform guesses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.ablations import shuffled
from icrl_graph.errors import missing_extra
from icrl_graph.games import hidden_color
from icrl_graph.models import FunctionModel, learner
from icrl_graph.nodes import EpisodeEvent
from icrl_graph.settings import Settings
from icrl_graph.topologies import create_best_of_n, create_icrl

ROUNDS = 8
ARMS = {
    "icrl": "every prompt shows all earlier guesses with their rewards",
    "best_of_n": "the same model, as many guesses, no history",
    "zero": "as icrl, but every reward is shown as 0",
    "shuffled": "as icrl, but the rewards shown are other games' rewards",
    "random": "uniform guesses",
}


class Interval(TypedDict):
    """A mean over tasks with its 95 % interval (normal approximation, 1.96 standard errors)."""

    mean: float
    low: float
    high: float


class Arm(TypedDict):
    """What one arm came to."""

    name: str
    what: str
    reward_by_round: list[Interval]
    """Of each round's guess."""
    best_by_round: list[Interval]
    """Of the best guess so far."""
    solved: Interval
    """Share of games in which the color itself was found."""
    calls: int


class Row(TypedDict):
    """One guess, as a line of results.jsonl."""

    arm: str
    task: int
    secret: str
    round: int
    response: str | None
    reward: float | None
    solved: bool


def play(count: int, seed: int, progress: Callable[[str, int], None] | None = None) -> Iterator[Row]:
    """Play all arms on the same held-out games.

    Args:
        count: games.
        seed: chooses the games and seeds every sample.
        progress: called with the arm and the number of games done, after each game.
    """
    games: list[Any] = hidden_color.tasks(count, seed=seed)
    model = learner("hidden-color")
    pool: list[float] = []
    for name in ARMS:
        graph = {
            "icrl": lambda: create_icrl(model, hidden_color.closeness, rounds=ROUNDS),
            "best_of_n": lambda: create_best_of_n(model, hidden_color.closeness, n=ROUNDS),
            "zero": lambda: create_icrl(model, hidden_color.closeness, rounds=ROUNDS, show="zero"),
            "shuffled": lambda: create_icrl(model, hidden_color.closeness, rounds=ROUNDS, show=shuffled(pool)),
            "random": lambda: create_icrl(
                FunctionModel(reply=hidden_color.uniform), hidden_color.closeness, rounds=ROUNDS
            ),
        }[name]().compile(name=name)
        for number, game in enumerate(games):
            sampled = Settings(seed=seed * count + number)
            events = cast(Iterator[EpisodeEvent], graph.stream(game, context=sampled, stream_mode="custom"))
            for row in _rows(name, number, game["task_data"]["secret"], events):
                if name == "icrl" and row["reward"] is not None:
                    pool.append(row["reward"])
                yield row
            if progress is not None:
                progress(name, number + 1)


def _rows(name: str, number: int, secret: str, events: Iterator[EpisodeEvent]) -> Iterator[Row]:
    for event in events:
        yield Row(
            arm=name,
            task=number,
            secret=secret,
            round=event["round"] + event["candidate"],  # candidates stand side by side, in the place of rounds
            response=event["response"],
            reward=event["reward"],
            solved=event["metric"] == 1.0,
        )


def summarize(rows: Sequence[Row]) -> dict[str, list[Arm]]:
    """Means and intervals by arm and round; what summary.json holds."""
    arms = []
    for name, what in ARMS.items():
        own = [row for row in rows if row["arm"] == name]
        count = max(row["task"] for row in own) + 1
        rewards, solved = np.full((count, ROUNDS), np.nan), np.zeros(count, dtype=bool)
        for row in own:
            if row["reward"] is not None:
                rewards[row["task"], row["round"]] = row["reward"]
            solved[row["task"]] |= row["solved"]
        best = np.fmax.accumulate(rewards, axis=1)
        arms.append(
            Arm(
                name=name,
                what=what,
                reward_by_round=[interval(rewards[:, k]) for k in range(ROUNDS)],
                best_by_round=[interval(best[:, k]) for k in range(ROUNDS)],
                solved=interval(solved.astype(float)),
                calls=len(own),
            )
        )
    return {"arms": arms}


def interval(values: Any) -> Interval:
    """Mean and 95 % interval of what is scored among the values."""
    scored = np.asarray(values, dtype=float)
    scored = scored[~np.isnan(scored)]
    mean = float(scored.mean())
    half = 1.96 * float(scored.std(ddof=1)) / math.sqrt(len(scored)) if len(scored) > 1 else math.inf
    low, high = max(0.0, mean - half), min(1.0, mean + half)  # rewards and shares both lie in [0, 1]
    return Interval(mean=round(mean, 4), low=round(low, 4), high=round(high, 4))


def plot(summary: dict[str, list[Arm]], path: Path) -> None:
    """Draw both curves of all arms.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise missing_extra("matplotlib", "report") from missing
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    rounds = np.arange(1, ROUNDS + 1)
    for arm in summary["arms"]:
        for axes, curve in ((left, arm["reward_by_round"]), (right, arm["best_by_round"])):
            (line,) = axes.plot(rounds, [p["mean"] for p in curve], marker="o", markersize=3.5, label=arm["name"])
            axes.fill_between(
                rounds, [p["low"] for p in curve], [p["high"] for p in curve], alpha=0.18, color=line.get_color()
            )
    for axes, title in ((left, "reward of the round's guess"), (right, "best reward so far")):
        axes.set(title=title, xlabel="round", ylim=(0, 1.02), xticks=rounds)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("reward, mean over held-out games")
    right.legend(frameon=False, loc="lower right")
    games = summary["arms"][0]["calls"] // ROUNDS
    figure.suptitle(f"Hidden color: a frozen learner, {games} held-out games, 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=130)


def write(rows: Sequence[Row], summary: dict[str, list[Arm]], folder: Path) -> None:
    """Write results.jsonl and summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
