"""Word games: a language model that was trained to learn from its rewards, beside itself before that, and controls.

All games are of words and wordings that training never had. If the model learns in its context, `icrl` rises over the
episodes; if by its rewards, `zero` and `shuffled` do not; if it has learnt that from training, `base model` doesn't
either. `random` and `teacher` are no models: what guesses earn, and what there is to reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from icrl_graph.benchmarks import summary as summaries
from icrl_graph.benchmarks.demos import Rows
from icrl_graph.benchmarks.experiment import make_plan
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.pictures import draw_arms
from icrl_graph.benchmarks.results import Row
from icrl_graph.benchmarks.statistics import Difference, Estimate, curve, difference, estimate
from icrl_graph.models.registry import load_model
from icrl_graph.state.events import EpisodeEvent, is_episode
from icrl_graph.state.formatting import plus_minus, share, shorten, table
from icrl_graph.tasks.word_games.answers import earned, read_answer
from icrl_graph.tasks.word_games.instances import GAMES, read_item
from icrl_graph.topologies.methods import create_icrl

TRAINED = "local:icrl-smollm2"
BASE = "icrl_graph.benchmarks.constrained:smollm2"
"""The model that it was trained from, held to the words offered."""
FAMILIES = ("prize", "amounts")
MOST = GAMES * len(FAMILIES)
"""Games that there are."""
EPISODES = 8
LONGEST_ANSWER = 12
"""Tokens: an answer is one word, of a few of them."""
CONCURRENCY = 4
ARMS = {
    "icrl": "every prompt shows all earlier answers with their rewards",
    "best_of_n": "the same model, as many answers, no history",
    "zero": "as icrl, but every reward is shown as 0",
    "shuffled": "as icrl, but the rewards shown are other games' rewards",
    "base model": "as icrl, by the model before its training, held to the words offered",
    "random": "any of the words offered",
    "teacher": "draws a secret that fits every reward, and answers what is best then",
}
_PLAYERS = "icrl_graph.tasks.word_games.references"


def arms() -> dict[str, str]:
    """The arms by their names in the demo, as `icrl bench` takes them."""
    others = {"base model": BASE, "random": f"{_PLAYERS}:uniform", "teacher": f"{_PLAYERS}:posterior"}
    controls = {"zero": "icrl+show=zero", "shuffled": "icrl+show=shuffled"}
    played = {"icrl": "icrl", "best_of_n": "best_of_n", **controls}
    return {**played, **{name: f"icrl+model={model}" for name, model in others.items()}}


class Arm(TypedDict):
    """What one arm came to."""

    name: str
    what: str
    reward: list[Estimate]
    """Of each episode. An answer that names none of the words offered, or several, earns nothing."""
    success: list[Estimate]
    """Share of games in which an episode earns as much as can be."""
    by_family: dict[str, list[Estimate]]
    """The reward of each episode in the games of a family."""
    valid: Estimate
    """Share of answers that name one of the words offered."""
    rise: Difference
    """Reward of the last episode less that of the first, paired by game."""
    icrl_ahead: Difference
    """Reward of icrl in the second half of the episodes less this arm's, paired by game."""
    calls: int


class Summary(TypedDict):
    """What demo.json holds."""

    arms: list[Arm]


def choose(count: int, seed: int) -> list[str]:
    """Held-out games of the families in turn; for the same seed the first ones of a longer list are the same."""
    numbers = Random(seed).sample(range(GAMES), GAMES)
    return [f"{family}:wordings:{number}" for number in numbers for family in FAMILIES][:count]


def opening_game(seed: int) -> str:
    """The first game with a prize among six words: a lucky first guess is rarest there."""
    prizes = (item for item in choose(MOST, seed) if item.startswith("prize:"))
    return next(item for item in prizes if len(read_item(item).game.options) == 6)


def opening(seed: int) -> Iterator[Text]:
    """One game of the trained model, episode by episode, and beside it the same game of the base model.

    Raises:
        MissingExtra: a model, or what serves it, is not installed.
    """
    item = opening_game(seed)
    yield Text(str(read_item(item).task))
    yield Text(f"  {'':11}{'trained model':24}base model", style="dim")
    for after, before in zip(_play(TRAINED, item, seed), _play(BASE, item, seed), strict=True):
        yield Text.assemble(f"  episode {after['round'] + 1}  ", *_said(after), "    ", *_said(before))
    yield Text()


def _play(model: str, item: str, seed: int) -> Iterator[EpisodeEvent]:
    options: Any = {"rounds": EPISODES, "schedule": "plain", "max_response_tokens": LONGEST_ANSWER}
    graph, inputs = create_icrl(load_model(model), earned, **options).compile(), read_item(item).inputs()
    return filter(is_episode, graph.stream(inputs, context={"seed": seed}, stream_mode="custom"))


def _said(episode: EpisodeEvent) -> tuple[str, tuple[str, str]]:
    """An answer, and its reward; green if none earns more."""
    answer = "".join(filter(str.isprintable, shorten(episode["response"] or "(nothing)", 16)))
    return f"{answer:16}", (f"{share(episode['reward'] or 0.0):>4}", "green" if episode["metric"] else "")


def plans(count: int, seed: int) -> dict[str, Plan]:
    """The comparison: all arms on the same held-out games.

    Args:
        count: games, from 2.
        seed: chooses them.

    Raises:
        MissingExtra: a model, or what serves it, is not installed.
    """
    load_model(TRAINED)  # before anything is written
    options = {"max_response_tokens": LONGEST_ANSWER, "bounds": [0, 1]}
    plan, _ = make_plan(
        "words", [*arms().values()], model=TRAINED, items=choose(count, seed), rounds=EPISODES, options=options,
        concurrency=CONCURRENCY,
    )  # fmt: skip
    return {"": plan}


def summarize(plans: Mapping[str, Plan], rows: Mapping[str, Rows], left_out: Sequence[str] = ()) -> Summary:
    """Means and 95 % intervals by arm and episode.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    plan = plans[""]
    tables = {arm: _unanswered_is_0(played) for arm, played in summaries.tables_of(plan, rows[""]).items()}
    icrl = _later(tables["icrl"])
    return Summary(arms=[_arm(name, tables[arm], icrl) for name, arm in zip(ARMS, plan.arms, strict=True)])


def _unanswered_is_0(played: summaries.Table) -> summaries.Table:
    """A reply without a word names none of those offered."""
    return replace(played, scale=replace(played.scale, unscored=0))


def _later(played: summaries.Table) -> Any:
    """The rewards of the second half of the episodes, a row for each game."""
    later = played.reward[..., EPISODES // 2 :]
    return later.reshape(len(later), -1)


def _arm(name: str, played: summaries.Table, icrl: Any) -> Arm:
    families = [item.partition(":")[0] for item in played.items]
    valid = played.over_rounds(_valid)
    return Arm(
        name=name,
        what=ARMS[name],
        reward=curve(played.reward, share=True),
        success=curve(played.success, share=True),
        by_family={
            family: curve(played.reward[[other == family for other in families]], share=True) for family in FAMILIES
        },
        valid=estimate(valid.reshape(len(valid), -1), share=True),
        rise=difference(played.reward[..., -1], played.reward[..., 0], share=True),
        icrl_ahead=difference(icrl, _later(played), share=True),
        calls=sum(row["usage"]["calls"] for row in played.ended),
    )


def _valid(row: Row) -> list[float | None]:
    """Whether each answer of a run names one of the words offered."""
    options = row["task_data"]["options"]
    return [float(read_answer(episode.get("response") or "", options) is not None) for episode in row["episodes"]]


def report(summary: Summary) -> Iterator[Table | str]:
    """What the figures say. Each sentence draws its conclusion from an interval, and says so where there is none."""
    arms: dict[str, Any] = {arm["name"]: arm for arm in summary["arms"]}
    yield (
        f"Columns: mean reward of episode 1 to {EPISODES}; of the last one in each of the two games, one with a prize "
        "behind one word and one with an amount for each; the share of answers that name one word offered, to which "
        "the base model is held: left alone, it talks of other things.\n"
    )
    yield _table(summary)
    rise, ahead = ({name: arm[what] for name, arm in arms.items()} for what in ("rise", "icrl_ahead"))
    yield (
        f"From the first episode to the last icrl changes by {_signed(rise['icrl'])}: "
        + _concluded("it gets better with frozen weights", "it learns", rise["icrl"])
        + "."
    )
    made = _concluded("training has made the difference", "training makes a difference", ahead["base model"])
    yield (
        f"The base model, from which it was trained, changes by {_signed(rise['base model'])}. In the second half of "
        f"the episodes icrl minus base model is {_signed(ahead['base model'])}: {made}."
    )
    own = _concluded(
        "it is its own rewards that it learns from", "it needs its own rewards", ahead["zero"], ahead["shuffled"]
    )
    yield f"There icrl minus zero is {_signed(ahead['zero'])}, minus shuffled {_signed(ahead['shuffled'])}: {own}."
    more = _concluded(
        "it does more than guess often", "it does more than guess often", ahead["best_of_n"], ahead["random"]
    )
    yield f"And icrl minus best_of_n is {_signed(ahead['best_of_n'])}, minus random {_signed(ahead['random'])}: {more}."
    yield (
        f"Minus the teacher it is {_signed(ahead['teacher'])}: "
        + (
            "there is something left to learn."
            if ahead["teacher"]["high"] < 0
            else "these figures don't tell the two apart."
            if ahead["teacher"]["low"] <= 0
            else "it is ahead of its teacher."
        )
    )


def _concluded(claim: str, doubted: str, *differences: Difference) -> str:
    """A claim, if all of these differences are above 0 with their intervals; else that this is not shown."""
    lows = [each["low"] for each in differences]
    return claim if all(low is not None and low > 0 for low in lows) else f"these figures don't show that {doubted}"


def _table(summary: Summary) -> Table:
    title = f"Word games, {_games(summary)} of words and wordings that training never had"
    shown: Table = table(title, "arm", *map(str, range(1, EPISODES + 1)), *FAMILIES, "valid")
    for arm in summary["arms"]:
        last = (arm["by_family"][family][-1] for family in FAMILIES)
        ends = (plus_minus(share(each["mean"]), each) for each in last)
        rewards = (share(each["mean"]) for each in arm["reward"])
        shown.add_row(arm["name"], *rewards, *ends, f"{arm['valid']['mean']:.0%}")
    return shown


def _signed(change: Difference) -> str:
    return plus_minus(f"{change['difference']:+.2f}", change)


def plot(summary: Summary, path: Path) -> None:
    """Draw reward and success of all arms by episode.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    titles = {"reward": "reward of the episode's answer", "success": "share of games in which no answer earns more"}
    drawing, (left, right) = draw_arms(summary["arms"], titles, EPISODES, 4.6)
    for axes in (left, right):
        axes.set(xlabel="episode")
    left.set_ylabel("mean over held-out games")
    drawing.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS), frameon=False)
    title = f"A language model with frozen weights, {_games(summary)} word games that are new to it, 95 % intervals"
    drawing.suptitle(title, fontsize=11)
    drawing.savefig(path, dpi=130)


def _games(summary: Summary) -> int:
    return summary["arms"][0]["valid"]["tasks"]
