"""Does a model learn in its context? What it comes to episode by episode, beside controls that take its rewards away.

A comparison is played on a benchmark whose tasks hide something that only rewards tell (`ARMS`). What it shows is read
off its rows, for each group of tasks apart: "prize:words:17" is of the group "prize:words". An episode is an attempt
that was answered; calls that an outage has lost are none.

Two numbers are told apart. Success at episode k is that of the k-th episode, whatever came before. Success within k,
the p@k of LaMer (arXiv 2512.16848), is that of any of the first k; it rises with blind guesses, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.benchmarks.experiment import make_plan
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.scheduler import read_clock
from icrl_graph.benchmarks.scores import answered_first
from icrl_graph.benchmarks.statistics import Bracket, Difference, Estimate, difference, estimate
from icrl_graph.benchmarks.summary import Table, tables_of
from icrl_graph.meta_rl import swapped
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import add_usage, answer_of

CONTROLS: Mapping[str, str] = {
    "zero": "icrl+show=zero",
    "shuffled": "icrl+show=shuffled",
    "no memory": "icrl+memory=none",
    "swapped": swapped.ARM,
}
"""What takes away what could be learnt from: all rewards are 0, each is one of another task, no prompt shows an earlier
episode, each shows those of another task."""


class Suite(NamedTuple):
    """A benchmark, and the players without a model that it is compared with."""

    benchmark: str
    references: Mapping[str, str]
    """By name: the module and the function. The last is the best one: regret is to it."""
    episodes: int
    """Of each task, where nothing else is asked for."""
    controls: Mapping[str, str]
    """The arms that have nothing to learn from, by name."""
    evaluator: str = ""
    """What rewards an answer, by name, where histories are swapped."""
    splits: Mapping[str, str] = {}
    """By the name of a split, what its tasks have new."""


_WORDS, _GAMES = "icrl_graph.tasks.word_games.references", "icrl_graph.environments.games.references"
SUITES: Mapping[str, Suite] = {
    "words": Suite(
        "words",
        {"random": f"{_WORDS}:uniform", "teacher": f"{_WORDS}:posterior"},
        8,
        CONTROLS,
        "icrl_graph.tasks.word_games.answers:earned",
        {"seeds": "other games of its words", "words": "new words", "wordings": "new words and wordings"},
    ),
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
    return {"icrl": "icrl", **suite.controls, **references}


def benchmark_arms(suite: Suite) -> list[str]:
    """The arms that the benchmark plays: all but that of swapped histories."""
    return [arm for arm in arms(suite).values() if arm != swapped.ARM]


def swapped_plan(plan: Plan, rows: Mapping[Cell, Row], suite: Suite, folder: Path) -> Plan | None:
    """Write the tasks of swapped histories into the folder of a comparison; returns the plan that plays them.

    It has the same model. What it may spend in total is what the comparison has left; None where that is nothing.
    """
    path = folder / "swapped.jsonl"
    count = swapped.write(rows, group_of, plan.rounds, path)
    numbers = {name: getattr(plan, name) for name in ("model", "base_url", "concurrency", "send_seed")}
    spent: Any = {**add_usage(*(row.get("usage", {}) for row in rows.values())), "seconds": read_clock(folder)}
    kinds = {"total_usd": "usd", "total_calls": "calls", "total_seconds": "seconds"}
    left = {
        total: most - (spent.get(kind) or 0)
        for total, kind in kinds.items()
        if (most := getattr(plan, total)) is not None
    }
    if min(left.values(), default=1) <= 0:
        return None
    made, _ = make_plan(
        path, [swapped.PLAYED], evaluator=suite.evaluator, limit=count, rounds=1, solved_at=plan.solved_at,
        options=plan.options, **numbers, **left,
    )  # fmt: skip
    return made


def chosen_items(suite: Suite, patterns: Sequence[str], count: int) -> list[str]:
    """The first tasks of each group of a suite, all groups or those of some patterns.

    Raises:
        ValueError: no task has such a name, or a group has a single one: its history can't be swapped with another's.
    """
    groups: dict[str, list[str]] = {}
    for item in find_benchmark(suite.benchmark).choose(patterns):
        groups.setdefault(group_of(item), []).append(item)
    if alone := [items[0] for items in groups.values() if len(items) < 2]:
        raise ValueError(f"give two tasks of each group at least, to swap their histories: {alone[0]!r} is alone")
    return [item for items in groups.values() for item in items[:count]]


class Played(TypedDict):
    """What a player comes to, episode by episode."""

    reward: list[Bracket]
    """At each episode."""
    success: list[Bracket]
    """At each episode."""
    within: list[Bracket]
    """Success in any of the first k episodes."""
    after_failure: list[Bracket]
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
    """Reward of the last episode less that of the first."""
    over: dict[str, Difference]
    """Reward in the second half of the episodes less that of each control, task by task."""
    learns: bool
    """Whether it rises, and is above every control: all intervals are above 0."""
    says: str
    """That in words."""


def learning(plan: Plan, rows: Mapping[Cell, Row], suite: Suite) -> list[Learning]:
    """What a comparison of the arms of a suite shows, group by group.

    Args:
        plan: of the comparison.
        rows: its runs.
        suite: what it is of.

    Returns:
        A group of which some arm has no run that has ended shows nothing, and is left out; the control of swapped
        histories may be missing.

    Raises:
        MissingExtra: scipy is not installed.
    """
    groups: dict[str, dict[Cell, Row]] = {}
    for cell, row in rows.items():
        if "error" not in row:
            groups.setdefault(group_of(cell.item), {})[cell] = answered_first(row, plan.rounds)
    every = replace(plan, arms=[*arms(suite).values()])
    tables = {group: tables_of(every, played) for group, played in groups.items()}
    return [_learning(group, suite, of) for group, of in tables.items() if of.keys() >= {*benchmark_arms(suite)}]


def check_families(suite: Suite, families: Sequence[str]) -> None:
    """Raise `ValueError` if a suite has no such family."""
    known = {item.partition(":")[0]: None for item in find_benchmark(suite.benchmark).items()}
    for family in families:
        pick("family", family, known)


def claims(groups: Sequence[Learning], suite: Suite, trained: Sequence[str] = ()) -> list[str]:
    """What all groups together show, in words: for each split, the families in which a model learns in its context.

    Args:
        groups: as `learning` gives them, named "family:split".
        suite: what they are of.
        trained: the families that the model was trained on, which the others are told apart from; none if that is not
            known.
    """
    shown = {tuple(group["group"].split(":")): group["learns"] for group in groups}
    families = list(dict.fromkeys(family for family, _ in shown))
    held_out = [family for family in families if family not in trained]
    kinds = (
        {" of families that it was trained on": trained, " of families held out": held_out}
        if trained
        else {"": families}
    )
    return [
        _claim(f"{new}{kind}", learns)
        for kind, of in kinds.items()
        for split, new in suite.splits.items()
        if (learns := {family: shown[family, split] for family in of if (family, split) in shown})
    ]


def _claim(where: str, learns: Mapping[str, bool]) -> str:
    yes, no = ([family for family, does in learns.items() if does is wanted] for wanted in (True, False))
    told = {"it learns in its context": yes, "that is not shown": no}
    parts = [f"{what} in {', '.join(of)}" for what, of in told.items() if of]
    return f"On {where}, {'; '.join(parts)}."


def group_of(item: str) -> str:
    """The group of a task."""
    return item.rpartition(":")[0]


def _learning(group: str, suite: Suite, tables: Mapping[str, Table]) -> Learning:
    players = {name: tables[arm] for name, arm in arms(suite).items() if arm in tables}
    best, share = [*players][-1], "reward" in players["icrl"].scale.shares
    first, last = (players["icrl"].reward[..., at] for at in (0, -1))
    rise = difference(last, first, share=share)
    later = _later(players["icrl"])
    over = {name: difference(later, _later(players[name]), share=share) for name in suite.controls if name in players}
    return Learning(
        group=group,
        tasks=len(first),
        players={name: _played(table, None if name == best else players[best]) for name, table in players.items()},
        rise=rise,
        over=over,
        learns=all(map(_is_above_0, (rise, *over.values()))),
        says=_said(rise, over),
    )


def _later(table: Table) -> Any:
    """The rewards of the second half of the episodes, a row for each task."""
    later = table.reward[..., table.rounds // 2 :]
    return later.reshape(len(later), -1)


def _played(table: Table, best: Table | None) -> Played:
    regret = None if best is None else estimate((best.reward - table.reward).sum(axis=2))
    news = np.where(table.had_success, np.nan, table.over_rounds(_are_new))
    return Played(
        reward=table.curve("reward", lambda table: table.reward),
        success=table.curve("success", lambda table: table.success),
        within=table.curve("success", lambda table: np.fmax.accumulate(table.success, axis=2)),
        after_failure=table.curve("success", lambda table: np.where(table.had_success, np.nan, table.success)),
        new_after_failure=estimate(news.reshape(len(news), -1), share=True),
        regret=regret,
    )


def _are_new(row: Row) -> list[float | None]:
    """Whether each answer of a run is none that was given before; the first has nothing to repeat."""
    answers = [answer_of(episode) for episode in row["episodes"]]
    return [None if at == 0 else float(answer not in answers[:at]) for at, answer in enumerate(answers)]


def _is_above_0(one: Difference) -> bool:
    return one["low"] is not None and one["low"] > 0


def _said(rise: Difference, over: Mapping[str, Difference]) -> str:
    alike = [name for name, one in over.items() if not _is_above_0(one)]
    if not _is_above_0(rise):
        return "no rise that is clear of 0"
    if alike:
        return f"it rises, but not clearly above {', '.join(alike)}: that is not learning from its context"
    return f"learns in its context: it rises, and is above {', '.join(over)}"


def find_suite(name: str) -> Suite:
    """The suite of a name.

    Raises:
        ValueError: there is none; lists the choices.
    """
    return pick("suite", name, SUITES)
