"""Hidden color: the shipped learner and its controls.

Five arms with equal calls. If the learner learns from its rewards, `icrl` rises over the rounds; if it needs them,
`zero` and `shuffled` do not; if it does more than sample often, its best so far is above that of `best_of_n`, the same
model without a history, and of `random`, uniform guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from icrl_graph.benchmarks.demos import draw_curve, dress, figure, short
from icrl_graph.benchmarks.statistics import Interval, half_width, interval, share_interval
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.registry import learner
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.events import EpisodeEvent, is_episode
from icrl_graph.tasks import hidden_color
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from icrl_graph.topologies.settings import Settings

ROUNDS = 8
ARMS = {
    "icrl": "every prompt shows all earlier guesses with their rewards",
    "best_of_n": "the same model, as many guesses, no history",
    "zero": "as icrl, but every reward is shown as 0",
    "shuffled": "as icrl, but the rewards shown are other games' rewards",
    "random": "uniform guesses",
}


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


def opening(seed: int) -> Iterator[Text]:
    """One game, drawn as it goes."""
    game = hidden_color.tasks(1, seed=seed)[0]
    secret = game["task_data"]["secret"]
    yield Text.assemble("The hidden color is ", _swatch(secret), f" {secret}. The learner sees only its rewards.")
    graph = create_icrl(learner("hidden-color"), hidden_color.closeness, rounds=ROUNDS).compile()
    for event in filter(is_episode, graph.stream(game, context=Settings(seed=seed), stream_mode="custom")):
        guess = hidden_color.read_color(event["response"])
        drawn = _swatch(hidden_color.write_color(guess)) if guess else Text("?")
        told = f" {event['response']}  {event['reward']:.2f}  "
        yield Text.assemble(f"  round {event['round'] + 1}  ", drawn, told, ("█" * round(20 * event["reward"]), "cyan"))
    yield Text()


def _swatch(color: str) -> Text:
    return Text("      ", style=f"on #{''.join(2 * digit for digit in color[1:])}")


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
            events = filter(is_episode, graph.stream(game, context=sampled, stream_mode="custom"))
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
                solved=share_interval(solved),
                calls=len(own),
            )
        )
    return {"arms": arms}


def report(summary: dict[str, list[Arm]]) -> Iterator[Table | str]:
    """What the figures say."""
    arms = {arm["name"]: arm for arm in summary["arms"]}
    title = f"Hidden color, {_games(summary)} held-out games: mean reward of round 1 to {ROUNDS}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for heading in (*map(str, range(1, ROUNDS + 1)), "best so far", "solved", "calls"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, arm in arms.items():
        last = arm["best_by_round"][-1]
        table.add_row(
            name,
            *(short(point["mean"]) for point in arm["reward_by_round"]),
            f"{last['mean']:.2f} ±{half_width(last):.2f}",
            f"{arm['solved']['mean']:.0%}",
            str(arm["calls"]),
        )
    yield table
    gain = {name: arm["reward_by_round"][-1]["mean"] - arm["reward_by_round"][0]["mean"] for name, arm in arms.items()}
    best = {name: arm["best_by_round"][-1]["mean"] for name, arm in arms.items()}
    yield f"From the first round to the last icrl changes by {gain['icrl']:+.2f}; its weights never change."
    yield f"With its rewards zeroed the change is {gain['zero']:+.2f}, with other games' {gain['shuffled']:+.2f}."
    yield (
        f"At equal calls its best guess is at {best['icrl']:.2f}; best_of_n of the same model {best['best_of_n']:.2f}, "
        f"random {best['random']:.2f}."
    )


def plot(summary: dict[str, list[Arm]], path: Path) -> None:
    """Draw both curves of all arms.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawn = figure(10, 4.2)
    left, right = drawn.subplots(1, 2, sharey=True)
    for arm in summary["arms"]:
        draw_curve(left, arm["reward_by_round"], arm["name"])
        draw_curve(right, arm["best_by_round"], arm["name"])
    dress(left, "reward of the round's guess", ROUNDS)
    dress(right, "best reward so far", ROUNDS)
    left.set_ylabel("reward, mean over held-out games")
    right.legend(frameon=False, loc="lower right")
    title = f"Hidden color: a frozen learner, {_games(summary)} held-out games, 95 % intervals"
    drawn.suptitle(title, fontsize=11)
    drawn.savefig(path, dpi=130)


def _games(summary: dict[str, list[Arm]]) -> int:
    return summary["arms"][0]["calls"] // ROUNDS
