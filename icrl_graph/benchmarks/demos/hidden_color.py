"""Hidden color: the shipped learner and its controls.

Five arms with equal calls. If the learner learns from its rewards, `icrl` rises over the rounds; if it needs them,
`zero` and `shuffled` do not; if it does more than sample often, its best so far is above that of `best_of_n`, the same
model without a history, and of `random`, uniform guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from icrl_graph.benchmarks.demos import Rows
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.pictures import draw_arms
from icrl_graph.benchmarks.statistics import Difference, Estimate, curve, difference, estimate
from icrl_graph.benchmarks.summary import tables_of
from icrl_graph.models.registry import learner
from icrl_graph.state.events import is_episode
from icrl_graph.state.formatting import plus_minus, share, table
from icrl_graph.tasks import hidden_color
from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.settings import Settings

ROUNDS = 8


class Control(NamedTuple):
    """An arm of the demo."""

    arm: str
    """As `icrl bench` takes it."""
    what: str


ARMS = {
    "icrl": Control("icrl", "every prompt shows all earlier guesses with their rewards"),
    "best_of_n": Control("best_of_n", "the same model, as many guesses, no history"),
    "zero": Control("icrl+show=zero", "as icrl, but every reward is shown as 0"),
    "shuffled": Control("icrl+show=shuffled", "as icrl, but the rewards shown are other games' rewards"),
    "random": Control("icrl+model=icrl_graph.tasks.hidden_color:uniform", "uniform guesses"),
}


class Arm(TypedDict):
    """What one arm came to."""

    name: str
    what: str
    reward_by_round: list[Estimate]
    """Of each round's guess."""
    best_by_round: list[Estimate]
    """Of the best guess so far."""
    gain: Difference
    """Of the last round over the first, paired by game."""
    icrl_ahead: Difference
    """How much better the best guess of icrl is, paired by game."""
    solved: Estimate
    """Share of games in which the color itself was found."""
    calls: int


class Summary(TypedDict):
    """What demo.json holds."""

    arms: list[Arm]


def opening(seed: int) -> Iterator[Text]:
    """One game, drawn round by round."""
    game = hidden_color.tasks(1, seed=seed)[0]
    secret = game["task_data"]["secret"]
    yield Text.assemble("The hidden color is ", _swatch(secret), f" {secret}. The learner sees only its rewards.")
    graph = create_icrl(learner("hidden-color"), hidden_color.closeness, rounds=ROUNDS).compile()
    for event in filter(is_episode, graph.stream(game, context=Settings(seed=seed), stream_mode="custom")):
        guess = hidden_color.read_color(event["response"])
        color = _swatch(hidden_color.write_color(guess)) if guess else Text("?")
        words = f" {event['response']}  {event['reward']:.2f}  "
        yield Text.assemble(
            f"  round {event['round'] + 1}  ", color, words, ("█" * round(20 * event["reward"]), "cyan")
        )
    yield Text()


def _swatch(color: str) -> Text:
    return Text("      ", style=f"on #{''.join(2 * digit for digit in color[1:])}")


def plans(count: int, seed: int) -> dict[str, Plan]:
    """The comparison: all arms on the same held-out games.

    Args:
        count: games.
        seed: chooses them.
    """
    games = [game["task_data"]["secret"] for game in hidden_color.tasks(count, seed=seed)]
    arms = [control.arm for control in ARMS.values()]
    model = "learner:hidden-color"
    plan = Plan("hidden-color", arms, model, items=games, limit=count, rounds=ROUNDS, solved_at=1.0, concurrency=1)
    return {"": plan}


def summarize(plans: Mapping[str, Plan], rows: Mapping[str, Rows], left_out: Sequence[str] = ()) -> Summary:
    """Means and 95 % intervals by arm and round.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    tables = tables_of(plans[""], rows[""])
    icrl = tables["icrl"].best[..., -1]
    return Summary(
        arms=[
            Arm(
                name=name,
                what=what,
                reward_by_round=curve(tables[arm].reward),
                best_by_round=curve(tables[arm].best),
                gain=difference(tables[arm].reward[..., -1], tables[arm].reward[..., 0], share=True),
                icrl_ahead=difference(icrl, tables[arm].best[..., -1], share=True),
                solved=estimate(tables[arm].answered("success")[..., -1], share=True),
                calls=sum(row["usage"]["calls"] for row in tables[arm].ended),
            )
            for name, (arm, what) in ARMS.items()
        ]
    )


def report(summary: Summary) -> Iterator[Table | str]:
    """What the figures say. Each sentence draws its conclusion from an interval, and says so where there is none."""
    arms: dict[str, Any] = {arm["name"]: arm for arm in summary["arms"]}
    title = f"Hidden color, {_games(summary)} held-out games: mean reward of round 1 to {ROUNDS}"
    shown = table(title, "arm", *map(str, range(1, ROUNDS + 1)), "best so far", "solved", "calls")
    for name, arm in arms.items():
        rewards, best = (share(point["mean"]) for point in arm["reward_by_round"]), arm["best_by_round"][-1]
        solved = f"{arm['solved']['mean']:.0%}"
        shown.add_row(name, *rewards, plus_minus(share(best["mean"]), best), solved, str(arm["calls"]))
    yield shown
    gain = {name: arm["gain"] for name, arm in arms.items()}
    changes = {name: plus_minus(f"{change['difference']:+.2f}", change) for name, change in gain.items()}
    best = {name: share(arm["best_by_round"][-1]["mean"]) for name, arm in arms.items()}
    ahead = arms["best_of_n"]["icrl_ahead"]
    yield (
        f"From the first round to the last icrl changes by {changes['icrl']}; its weights never change."
        + ("" if gain["icrl"]["low"] > 0 else " These figures don't show that it improves.")
    )
    yield (
        f"With its rewards zeroed the change is {changes['zero']}, with other games' {changes['shuffled']}: "
        + (
            "it is its own rewards that it improves by."
            if all(gain["icrl"]["low"] > gain[name]["high"] for name in ("zero", "shuffled"))
            else "these figures don't show that it needs its own rewards."
        )
    )
    yield (
        f"At equal calls its best guess is at {best['icrl']}; best_of_n of the same model {best['best_of_n']}, random "
        f"{best['random']}. icrl minus best_of_n is {plus_minus(format(ahead['difference'], '+.2f'), ahead)}: "
        + (
            "it does more than sample often."
            if ahead["low"] > 0
            else "these figures don't show that it does more than sample often."
        )
    )


def plot(summary: Summary, path: Path) -> None:
    """Draw both curves of all arms.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    titles = {"reward_by_round": "reward of the round's guess", "best_by_round": "best reward so far"}
    drawing, (left, right) = draw_arms(summary["arms"], titles, ROUNDS, 4.2)
    left.set_ylabel("reward, mean over held-out games")
    right.legend(frameon=False, loc="lower right")
    title = f"Hidden color: a frozen learner, {_games(summary)} held-out games, 95 % intervals"
    drawing.suptitle(title, fontsize=11)
    drawing.savefig(path, dpi=130)


def _games(summary: Summary) -> int:
    return summary["arms"][0]["solved"]["tasks"]
