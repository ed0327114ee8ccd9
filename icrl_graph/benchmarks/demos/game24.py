"""Game of 24: the shipped learner and its controls, on puzzles that no part of its training has seen.

The arms take one thing away each. Where `icrl` is ahead of `best_of_n` and `no_repeats`, the history is of use; where
it is ahead of `avoid_tried` too, the rewards are, not only the variety; where `zero`, `shuffled` and `hidden` fall
back, it needs its own true rewards; where `outcome` does, it needs those of the steps. `teacher` is the algorithm that
the learner was taught: what there is to reach. All this stands on three base policies: none, a weak and a strong one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from icrl_graph.benchmarks.demos import Rows
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.pictures import draw_curve, figure, label_axes
from icrl_graph.benchmarks.results import Row
from icrl_graph.benchmarks.statistics import Difference, Estimate, curve, difference
from icrl_graph.benchmarks.summary import tables_of
from icrl_graph.models.learners import game24 as learner
from icrl_graph.models.learners.game24 import Strength
from icrl_graph.models.registry import chat_model
from icrl_graph.state.events import is_episode
from icrl_graph.state.formatting import plus_minus, share, table
from icrl_graph.tasks.game24 import game as game24
from icrl_graph.tasks.game24.puzzles import task
from icrl_graph.tasks.game24.verifier import grade
from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.settings import Settings

ROUNDS = 16
ARMS = {
    "icrl": "every prompt shows all earlier attempts with the rewards of their steps",
    "best_of_n": "the same model, as many attempts, no history; at its best temperature",
    "no_repeats": "as best_of_n, but no attempt is made twice",
    "avoid_tried": "the base policy, avoiding every step that was tried; no rewards",
    "zero": "as icrl, but every reward is shown as 0",
    "shuffled": "as icrl, but the rewards shown are other puzzles' rewards",
    "hidden": "as icrl, but no rewards are shown",
    "outcome": "as icrl, but no rewards of steps are shown; of the total it reads only whether the puzzle was solved",
    "teacher": "an explicit search that prunes what is known to fail: what the learner was taught",
}
UNREWARDED = ("best_of_n", "no_repeats", "avoid_tried", "zero", "shuffled", "hidden")
"""The arms that see no true reward."""
BASES: Mapping[Strength, Sequence[str]] = {
    "none": tuple(ARMS),
    "weak": tuple(ARMS),
    "strong": ("icrl", "best_of_n", "avoid_tried", "zero"),
}
"""The base policies, and the arms that are played on each."""
TEMPERATURES: Mapping[Strength, float] = {"none": 0.5, "weak": 1.4, "strong": 1.0}
"""Of best_of_n and no_repeats: of 0.5, 0.7, 1, 1.4, 2 and 3 the one at which best_of_n solves most of the validation
puzzles within 16 attempts; of equals, 1."""
MODELS: Mapping[Strength, str] = {
    "none": "learner:game24",
    "weak": "learner:game24-weak",
    "strong": "learner:game24-strong",
}


def _no_repeats(strength: Strength) -> game24.Reply:
    return game24.without_repeats(game24.player(lambda history, rng: learner.recall([], rng), learner.base(strength)))


def _player(rule: game24.Rule, strength: Strength) -> game24.Reply:
    return game24.player(rule, learner.base(strength))


# The models of arms: `+model=` names them.
no_repeats_none, no_repeats_weak = _no_repeats("none"), _no_repeats("weak")
avoid_tried_none, avoid_tried_weak = _player(game24.avoid_tried, "none"), _player(game24.avoid_tried, "weak")
avoid_tried_strong = _player(game24.avoid_tried, "strong")
teacher_none, teacher_weak = _player(game24.prune, "none"), _player(game24.prune, "weak")


def arms(base: Strength) -> dict[str, str]:
    """The arms on a base policy by their names in the demo, as `icrl bench` takes them."""
    sampled = f"temperature={TEMPERATURES[base]}"
    written = {
        "icrl": "icrl",
        "best_of_n": f"best_of_n+{sampled}",
        "no_repeats": f"icrl+show=hidden+{sampled}+model={__name__}:no_repeats_{base}",
        "avoid_tried": f"icrl+show=hidden+model={__name__}:avoid_tried_{base}",
        "zero": "icrl+show=zero",
        "shuffled": "icrl+show=shuffled",
        "hidden": "icrl+show=hidden",
        "outcome": "icrl+show=outcome",
        "teacher": f"icrl+model={__name__}:teacher_{base}",
    }
    return {name: written[name] for name in BASES[base]}


def plans(puzzles: Sequence[game24.Numbers]) -> dict[str, Plan]:
    """A comparison for each base policy.

    Args:
        puzzles: what is played; two or more, for the rewards of other puzzles.
    """
    items = [",".join(map(str, puzzle)) for puzzle in puzzles]
    return {
        base: Plan(
            benchmark="game24",
            arms=list(arms(base).values()),
            model=MODELS[base],
            items=items,
            limit=len(items),
            rounds=ROUNDS,
            solved_at=1.0,
            concurrency=1,
        )
        for base in BASES
    }


class Arm(TypedDict):
    """What one arm came to."""

    base: str
    name: str
    what: str
    solved_within: list[Estimate]
    """Share of puzzles solved within the first k attempts, for k from 1."""
    solved_at: list[Estimate]
    """Share of puzzles that the k-th attempt solves."""
    step_reward: list[Estimate]
    """Mean reward of the three steps of the k-th attempt."""
    icrl_ahead: dict[str, Difference]
    """How much more icrl solves within 8 and within 16, paired by puzzle."""
    calls: int


class Summary(TypedDict):
    """What demo.json holds."""

    puzzles: int
    left_out: list[str]
    """Puzzles that were asked for and not played, with the reason."""
    arms: list[Arm]


def choose(count: int, seed: int) -> list[game24.Numbers]:
    """Held-out puzzles, the same for the same seed."""
    return Random(seed).sample(game24.split("test"), count)


def held_out(rows: Mapping[int, Sequence[int]]) -> tuple[list[game24.Numbers], list[str]]:
    """Those puzzles of a ranked list that the learner may be measured on, and, with the reason, those it may not."""
    played, left_out = [], []
    for row, numbers in rows.items():
        puzzle = tuple(sorted(numbers))
        if puzzle in game24.split("test"):
            played.append(puzzle)
            continue
        why = next(
            (f"is in the {name} split" for name in ("train", "validation") if puzzle in game24.split(name)),
            "needs fractions",
        )
        left_out.append(f"row {row}, {' '.join(map(str, puzzle))}: {why}")
    return played, left_out


def opening(seed: int) -> Iterator[Text]:
    """One puzzle, attempt by attempt: green steps still lead to 24, red ones do not."""
    (puzzle,) = choose(1, seed)
    yield Text(f"Make 24 of {' '.join(map(str, puzzle))}. The learner sees what it tried and the rewards of its steps.")
    graph = create_icrl(chat_model(MODELS["none"]), grade, rounds=ROUNDS).compile()
    settings = Settings(seed=seed, target=1.0)
    for event in filter(is_episode, graph.stream(task(puzzle), context=settings, stream_mode="custom")):
        line = Text(f"  round {event['round'] + 1:<3} ")
        for step, reward in zip(event["response"].splitlines(), event["steps"], strict=False):
            line.append(f"{step.split(' (')[0]:<14} ", style="green" if reward else "red")
        yield line.append("solved" if event["metric"] else "")
    yield Text()


def summarize(plans: Mapping[str, Plan], rows: Mapping[str, Rows], left_out: Sequence[str] = ()) -> Summary:
    """Means and 95 % intervals by base, arm and round.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    made = [arm for base in BASES for arm in _summarize(base, plans[base], rows[base])]
    return Summary(puzzles=made[0]["solved_at"][0]["tasks"], left_out=list(left_out), arms=made)


def _summarize(base: Strength, plan: Plan, rows: Rows) -> Iterator[Arm]:
    tables = tables_of(plan, rows)
    solved = {arm: runs.answered("success") for arm, runs in tables.items()}
    for name, arm in arms(base).items():
        yield Arm(
            base=base,
            name=name,
            what=ARMS[name],
            solved_within=curve(solved[arm], share=True),
            solved_at=curve(tables[arm].metric, share=True),
            step_reward=curve(tables[arm].over_rounds(_step_rewards)),
            icrl_ahead={
                str(k): difference(solved["icrl"][..., k - 1], solved[arm][..., k - 1], share=True) for k in (8, ROUNDS)
            },
            calls=sum(row["usage"]["calls"] for row in tables[arm].ended),
        )


def _step_rewards(row: Row) -> list[float | None]:
    """The mean reward of the three steps of each attempt; one that was not written, or not valid, has earned none."""
    return [sum(reward or 0.0 for reward in episode["reward"].get("steps", [])) / 3 for episode in row["episodes"]]


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
    shown: Table = table(title, "arm", "1", "4", "8", "16", "16th", "step reward", "icrl ahead")
    for arm in summary["arms"]:
        if arm["base"] != base:
            continue
        within, ahead = arm["solved_within"], arm["icrl_ahead"]["8"]
        shown.add_row(
            arm["name"],
            *(share(within[k - 1]["mean"]) for k in (1, 4)),
            *(plus_minus(share(within[k - 1]["mean"]), within[k - 1]) for k in (8, 16)),
            share(arm["solved_at"][-1]["mean"]),
            " -> ".join(share(arm["step_reward"][at]["mean"]) for at in (0, -1)),
            "" if arm["name"] == "icrl" else _signed(ahead),
        )
    return shown


def _signed(difference: Difference) -> str:
    return plus_minus(f"{difference['difference']:+.2f}", difference)


def _words(summary: Summary) -> Iterator[str]:
    """Each sentence draws its conclusion from an interval, and says so where there is none to draw."""
    arms = {(arm["base"], arm["name"]): arm for arm in summary["arms"]}

    def within(base: str, name: str, k: int) -> str:
        return share(arms[base, name]["solved_within"][k - 1]["mean"])

    def at_end(name: str) -> Any:
        return arms["weak", name]["solved_at"][-1]

    def ahead(base: str, name: str, k: int) -> Any:
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
    best = min(UNREWARDED, key=lambda name: ahead("weak", name, 8)["difference"])
    lead = ahead("weak", best, 8)
    yield (
        f"On a weak base icrl solves {within('weak', 'icrl', 8)} within 8 attempts, best_of_n "
        f"{within('weak', 'best_of_n', 8)}, the best arm that sees no true reward ({best}) {within('weak', best, 8)}; "
        f"icrl minus {best} is {_signed(lead)}: "
        + (
            "part of the gain is variety, and rewards add to it."
            if lead["low"] > 0
            else "these figures don't show that rewards add to what variety gives."
        )
    )
    knows = all(at_end("icrl")["low"] > at_end(name)["high"] for name in UNREWARDED)
    others = ", ".join(f"{name} {share(at_end(name)['mean'])}" for name in UNREWARDED)
    yield (
        f"The {ROUNDS}th attempt on a weak base solves {share(at_end('icrl')['mean'])} of the puzzles ({others})"
        + (": only true rewards tell when to stop searching." if knows else ".")
    )
    lead = ahead("strong", "best_of_n", 8)
    yield (
        f"A strong base solves {within('strong', 'best_of_n', 1)} at once and {within('strong', 'best_of_n', 8)} "
        f"within 8 by sampling alone; icrl minus best_of_n is {_signed(lead)}: "
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
    drawing = figure(13, 7)
    axes = drawing.subplots(2, len(BASES), sharey=True)
    for column, base in enumerate(BASES):
        for arm in summary["arms"]:
            if arm["base"] == base:
                color = f"C{list(ARMS).index(arm['name'])}"
                style: dict[str, Any] = {
                    "label": arm["name"],
                    "color": color,
                    "linewidth": 2.4 if arm["name"] == "icrl" else 1.1,
                }
                draw_curve(axes[0, column], arm["solved_within"], **style)
                draw_curve(axes[1, column], arm["step_reward"], **style)
        label_axes(axes[0, column], f"base policy: {base}", ROUNDS)
        label_axes(axes[1, column], "", ROUNDS)
    axes[0, 0].set_ylabel("solved within k attempts")
    axes[1, 0].set_ylabel("mean step reward of the k-th attempt")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(ARMS), frameon=False)
    title = f"Game of 24: a frozen learner, {summary['puzzles']} held-out puzzles, 95 % intervals"
    drawing.suptitle(title, fontsize=12)
    drawing.savefig(path, dpi=120)
