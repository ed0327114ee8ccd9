"""Does a model learn in its context? What it comes to episode by episode, beside controls that take its rewards away.

A comparison is played on a benchmark whose tasks hide something that only rewards tell (`ARMS`). What it shows is read
off its rows, for each group of tasks apart: "prize:words:17" is of the group "prize:words".

Two numbers are told apart. Success at episode k is that of the k-th episode, whatever came before. Success within k,
the p@k of LaMer (arXiv 2512.16848), is that of any of the first k; it rises with blind guesses, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from icrl_graph.benchmarks.api import Comparison
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import Row
from icrl_graph.benchmarks.statistics import Difference, Estimate, curve, difference, estimate
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import answer_of, value_of
from icrl_graph.state.selection import metric_of

Array = NDArray[np.float64]
TRUE = "icrl"
CONTROLS: Mapping[str, str] = {
    "zero": "icrl+show=zero",
    "shuffled": "icrl+show=shuffled",
    "no memory": "icrl+memory=none",
}
"""What takes away what could be learnt from: all rewards are 0, each is one of another task, no prompt shows an earlier
episode."""


class Suite(NamedTuple):
    """A benchmark, and the players without a model that it is compared with."""

    benchmark: str
    references: Mapping[str, str]
    """By name: the module and the function. The last is the best one: regret is to it."""
    episodes: int
    controls: Mapping[str, str]


_WORDS, _GAMES = "icrl_graph.tasks.word_games.references", "icrl_graph.environments.games.references"
SUITES: Mapping[str, Suite] = {
    "words": Suite("words", {"random": f"{_WORDS}:uniform", "teacher": f"{_WORDS}:posterior"}, 8, CONTROLS),
    "games": Suite(
        "games",
        {"random": f"{_GAMES}:random", "within": f"{_GAMES}:within", "across": f"{_GAMES}:across"},
        3,
        {"no memory": CONTROLS["no memory"]},  # what a game shows tells as much as its rewards
    ),
}


def arms(suite: Suite) -> dict[str, str]:
    """The arms of a comparison, by the names that they have in the tables."""
    references = {name: f"icrl+model={where}" for name, where in suite.references.items()}
    return {"icrl": TRUE, **suite.controls, **references}


def chosen_items(suite: Suite, patterns: Sequence[str], count: int) -> list[str]:
    """The first tasks of each group of a suite, all groups or those of some patterns.

    Raises:
        ValueError: no task has such a name.
    """
    groups: dict[str, list[str]] = {}
    for item in find_benchmark(suite.benchmark).choose(patterns):
        groups.setdefault(_group(item), []).append(item)
    return [item for items in groups.values() for item in items[:count]]


class Played(TypedDict):
    """What a player comes to, episode by episode."""

    reward: list[Estimate]
    """At each episode."""
    success: list[Estimate]
    """At each episode; without any where nothing counts as success."""
    within: list[Estimate]
    """Success in any of the first k episodes."""
    after_failure: list[Estimate]
    """Success at an episode, over the tasks that had none before it: a success that is repeated is not learnt there."""
    new_after_failure: Estimate
    """The share of answers that are new, among those with nothing but failures before them."""
    regret: Estimate | None
    """Reward that the best reference has more, summed over the episodes, of tasks that are scored throughout; None of
    itself."""


class Learning(TypedDict):
    """What a group of tasks shows."""

    group: str
    tasks: int
    players: dict[str, Played]
    rise: Difference
    """Reward of the last episode less that of the first, by its true rewards."""
    over: dict[str, Difference]
    """Reward in the second half of the episodes less that of each control, task by task."""
    learns: bool
    """Whether it rises, and is above every control: all intervals are above 0."""
    says: str
    """That in words."""


def learning(comparison: Comparison, suite: Suite) -> list[Learning]:
    """What a comparison of the arms of a suite shows, group by group.

    Raises:
        ValueError: an arm is missing, or no task is finished in all of them.
    """
    rows: dict[str, dict[str, Row]] = {name: {} for name in arms(suite)}
    by_arm = {arm: name for name, arm in arms(suite).items()}
    for cell, row in comparison.rows.items():
        if "error" not in row and cell.arm in by_arm:
            rows[by_arm[cell.arm]][f"{cell.item}#{cell.seed}"] = row
    names = [item for item in rows["icrl"] if all(item in found for found in rows.values())]
    if not names:
        why = "".join(f": {row['error']}" for row in [*comparison.rows.values()][:1] if "error" in row)
        raise ValueError(f"{comparison.folder} has no task that was finished in all of {', '.join(by_arm)}{why}")
    groups: dict[str, list[str]] = {}
    for item in names:
        groups.setdefault(_group(item), []).append(item)
    return [
        _learning(
            group, suite, {name: [found[item] for item in items] for name, found in rows.items()}, comparison.plan
        )
        for group, items in groups.items()
    ]


def _group(item: str) -> str:
    return item.partition("#")[0].rpartition(":")[0] or "all"


def _learning(group: str, suite: Suite, rows: Mapping[str, Sequence[Row]], plan: Plan) -> Learning:
    best = [*suite.references][-1]
    rewards = {name: _table(found, value_of) for name, found in rows.items()}
    share = all(bool(np.nanmin(table) >= 0 and np.nanmax(table) <= 1) for table in rewards.values())
    players = {
        name: _played(found, rewards[name], plan.solved_at, None if name == best else rewards[best], share)
        for name, found in rows.items()
    }
    true = rewards["icrl"]
    half = true.shape[1] // 2
    rise = difference(true[:, -1:], true[:, :1], share=share)
    later = _mean(true[:, half:])
    over = {name: difference(later, _mean(rewards[name][:, half:]), share=share) for name in suite.controls}
    learns = all(_is_above_0(one) for one in (rise, *over.values()))
    says = _said(rise, over, learns)
    return Learning(group=group, tasks=len(true), players=players, rise=rise, over=over, learns=learns, says=says)


def _table(rows: Sequence[Row], score: Callable[[Any], float | None]) -> Array:
    """(tasks, episodes); NaN where nothing was scored, or played."""
    episodes = max(len(row["episodes"]) for row in rows)
    table = np.full((len(rows), episodes), np.nan)
    for at, row in enumerate(rows):
        for place, episode in enumerate(row["episodes"]):
            value = score(episode)
            table[at, place] = np.nan if value is None else value
    return table


def _played(rows: Sequence[Row], rewards: Array, solved_at: float | None, best: Array | None, share: bool) -> Played:
    metric = _table(rows, metric_of)
    success = np.where(np.isnan(metric), np.nan, metric >= (np.inf if solved_at is None else solved_at)).astype(float)
    before = np.concatenate([np.zeros((len(rows), 1)), np.maximum.accumulate(np.nan_to_num(success), axis=1)], axis=1)
    news = np.array([_new_after_failure(row, failed) for row, failed in zip(rows, before == 0, strict=True)])
    return Played(
        reward=_curve(rewards, share=share),
        success=_curve(success, share=True),
        within=_curve(before[:, 1:], share=True),
        after_failure=_curve(np.where(before[:, :-1] == 0, success, np.nan), share=True),
        new_after_failure=estimate(news[:, None], share=True),
        regret=None if best is None else estimate((best - rewards).sum(axis=1, keepdims=True)),
    )


def _new_after_failure(row: Row, failed: NDArray[np.bool_]) -> float:
    """The share of new answers among those with nothing but failures before; NaN where there are none."""
    answers = [answer_of(episode) for episode in row["episodes"]]
    later = [at for at in range(1, len(answers)) if failed[at]]
    return float(np.mean([answers[at] not in answers[:at] for at in later])) if later else np.nan


def _curve(values: Array, *, share: bool = False) -> list[Estimate]:
    return curve(values[:, None, :], share=share)


def _mean(values: Array) -> Array:
    """Of what is scored in each row, as a column; NaN where nothing is."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=1, keepdims=True), known.sum(axis=1, keepdims=True)
    means: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _is_above_0(one: Difference) -> bool:
    return one["low"] is not None and one["low"] > 0


def _said(rise: Difference, over: Mapping[str, Difference], learns: bool) -> str:
    if learns:
        return f"learns in its context: it rises, and is above {', '.join(over)}"
    if not _is_above_0(rise):
        return "no rise that is clear of 0"
    alike = ", ".join(name for name, one in over.items() if not _is_above_0(one))
    return f"it rises, but not clearly above {alike}: that is not learning from its context"


def find_suite(name: str) -> Suite:
    """The suite of a name.

    Raises:
        ValueError: there is none; lists the choices.
    """
    return pick("suite", name, SUITES)
