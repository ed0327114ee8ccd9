"""Win rates: the answers of a comparison's methods, each against that of one method to the same task.

A judge is shown each pair in both orders (`evaluators.pairwise_judge`); `rejudge` asks it. A method that has not
answered has lost, without a question. A judge with a position bias turns with the order, and then counts as 0.5: its
bias draws a rate towards .5, never past it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.benchmarks.arms import read_arm
from icrl_graph.benchmarks.length_control import length_controlled
from icrl_graph.benchmarks.plan import Again, Plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.statistics import Estimate, estimate
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.judge import pairwise_judge
from icrl_graph.state.episode import Episode, is_lost
from icrl_graph.state.loading import absolute

OTHER = "against"
"""Where the other answer stands in the task data of a row."""


class WinRate(TypedDict):
    """How often the answers of one method are better than those of another, both orders of a pair taken together."""

    arm: str
    against: str
    rate: Estimate
    """The mean over tasks; a tie is 0.5."""
    controlled: Estimate
    """The same of answers of equal length: see `length_control`."""
    turned: float | None
    """The share of the judged pairs on which the judge's verdicts differ: those that turn with the order."""
    length: float | None
    """The mean length of its answers, in characters."""
    other_length: float | None
    """That of the answers that they are compared with."""


def pairs_plan(
    saved: Plan, folder: Path, judge: str, against: str | None = None, rubric: str | None = None, **changed: Any
) -> Plan:
    """The plan by which the answers of a comparison are compared with those of one arm.

    Args:
        saved: that of the comparison.
        folder: where it is saved.
        judge: a model by its name.
        against: the arm that all others are compared with; default the first.
        rubric: what the judge compares by; default the benchmark's own.
        changed: other fields of the plan, such as judge_base_url and total_usd; what it was made at and might spend is
            not taken over.

    Raises:
        ValueError: there is no such arm.
    """
    again = Again(
        folder=str(folder.resolve()),
        evaluator=None,
        judge=absolute(judge),
        rubric=rubric,
        as_metric=False,
        select="last",
        against=saved.arms[0] if against is None else read_arm(against).name,
    )
    none = dict.fromkeys(("solved_at", "base_url", "judge_base_url", "total_usd", "total_calls", "total_seconds"))
    fields: Any = {**none, **changed}
    return replace(saved, again=again, **fields)


def pairwise_of(plan: Plan, again: Again) -> BoundEvaluator:
    """The judge of the pairs of a comparison.

    Raises:
        ValueError: no judge is named, or nothing says what it judges by.
    """
    if again["judge"] is None:
        raise ValueError("name the judge that compares the answers")
    rubric = again["rubric"] or find_benchmark(plan.benchmark).rubric
    if rubric is None:
        raise ValueError(f"{plan.benchmark} has no rubric of its own: give one, by which the judge compares answers")
    return pairwise_judge(plan.load_judge(again["judge"]), rubric, reference=OTHER)


def pairs(plan: Plan, rows: Mapping[Cell, Row], against: str) -> dict[Cell, Row]:
    """Each answer with that of one arm to the same task and seed, as a row of one attempt that is to be judged.

    Of runs whose calls all failed nothing is known: they are left out.

    Raises:
        ValueError: there is no such arm, or no answer of another one to the same task.
    """
    arm = read_arm(against).name
    if arm not in plan.arms:
        raise ValueError(f"no arm {against!r} is in this comparison; choose one of {', '.join(plan.arms)}")
    known = {cell: row for cell, row in rows.items() if not all(map(is_lost, row["episodes"]))}
    others = {cell: known.get(cell._replace(arm=arm)) for cell in known if cell.arm != arm}
    paired = {cell: _pair(known[cell], other) for cell, other in others.items() if other is not None}
    if not paired:
        raise ValueError(f"nothing can be compared with {arm!r}: no other method has done a task that it has done")
    return paired


def _pair(row: Row, other: Row) -> Row:
    data = {**row["task_data"], OTHER: _answering(other).get("response")}
    return {**row, "task_data": data, "episodes": [_answering(row)], "chosen": [0]}


def _answering(row: Row) -> Episode:
    """The attempt that gave the answer; where there is none, the last one, without what it says."""
    place = row["chosen"][-1]
    if place is not None:
        return row["episodes"][place]
    last: Any = {"error": "no answer", **row["episodes"][-1]}
    return cast(Episode, {name: held for name, held in last.items() if name not in ("response", "answer")})


def is_of_pairs(plan: Plan) -> bool:
    """Whether the answers of a comparison were compared with those of one arm."""
    return plan.again is not None and "against" in plan.again


def judge_of(plan: Plan) -> str | None:
    """The judge that has judged the answers again."""
    return None if plan.again is None else plan.again["judge"]


def win_rates(plan: Plan, rows: Mapping[Cell, Row]) -> list[WinRate]:
    """The win rates of a comparison whose answers were compared with those of one arm.

    Raises:
        ValueError: it is no such comparison, or nothing has been compared yet.
        MissingExtra: scipy is not installed.
    """
    if plan.again is None or "against" not in plan.again:
        raise ValueError("the answers of this comparison were not compared with each other; see `icrl win-rates`")
    ended = {cell: row for cell, row in rows.items() if "error" not in row}
    if not ended:
        raise ValueError("no answers have been compared yet")
    arms = [arm for arm in plan.arms if any(cell.arm == arm for cell in ended)]
    against = plan.again["against"]
    return [_win_rate(arm, against, {cell: row for cell, row in ended.items() if cell.arm == arm}) for arm in arms]


def _win_rate(arm: str, against: str, rows: Mapping[Cell, Row]) -> WinRate:
    items, seeds = list(dict.fromkeys(cell.item for cell in rows)), 1 + max(cell.seed for cell in rows)
    places = {item: at for at, item in enumerate(items)}
    wins, longer = np.full((len(items), seeds), np.nan), np.zeros((len(items), seeds))
    turned, lengths = [], []
    for (_, item, seed), row in rows.items():
        at = places[item], seed
        wins[at] = np.nan if (value := _won(row)) is None else value
        own, other = row["episodes"][0].get("response"), row["task_data"][OTHER]
        if own is not None and other is not None:
            longer[at] = len(own) - len(other)  # where one has no answer, length is not why the other wins
            lengths.append((len(own), len(other)))
        if row["reward"] is not None:
            turned.append(bool(row["episodes"][0]["reward"].get("spread")))
    means: list[Any] = [round(sum(each) / len(lengths), 1) for each in zip(*lengths, strict=True)] or [None, None]
    return WinRate(
        arm=arm,
        against=against,
        rate=estimate(wins, share=True),
        controlled=length_controlled(wins, longer),
        turned=round(sum(turned) / len(turned), 6) if turned else None,
        length=means[0],
        other_length=means[1],
    )


def _won(row: Row) -> float | None:
    """1 if an answer is better than the other, 0 if it is worse; None where neither is there, or no verdict."""
    if row["reward"] is not None:
        return row["reward"]
    own, other = row["answer"] is not None, row["task_data"][OTHER] is not None
    return None if own == other else float(own)


def doubts(plan: Plan) -> list[str]:
    """What speaks against the judge of win rates, in words: that it has also given the rewards, or an answer."""
    judge = judge_of(plan)
    writers = {plan.model, *(read_arm(arm).model for arm in plan.arms)}
    lines = []
    if judge is not None and judge == plan.judge:
        lines.append(f"{judge} has also given the rewards: what has learned to please it wins. Take another judge.")
    if judge in writers:
        lines.append(f"{judge} has also written answers: a model may prefer its own. Take another judge.")
    return lines
