"""What the rows of a comparison come to: figures by method, by round and by budget, and differences between methods.

Rounds are counted from 0; the candidates of a round stand side by side, in the place of rounds. A run that reached its
target counts on with its answer. Where some is unscored, a mean is told as the lowest and the highest that it can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import accumulate
from typing import Any, cast

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.benchmarks.arms import allocated_to, controls_of, is_best_of_n, makes_independent_attempts
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.scores import Scale, scale_of
from icrl_graph.benchmarks.statistics import (
    Bracket,
    Difference,
    Estimate,
    bracketed,
    bracketed_difference,
    corrected,
    curve,
    difference,
    estimate,
    majority_at_k,
    pass_at_k,
    ratio,
)
from icrl_graph.prompts.text import as_json, text_of
from icrl_graph.state.episode import (
    Episode,
    Usage,
    add_usage,
    answer_of,
    is_lost,
    outgrown,
    told_switch,
    value_of,
    warnings_of,
)
from icrl_graph.state.formatting import shorten
from icrl_graph.state.reward import data_in
from icrl_graph.state.selection import was_judged_again

UNITS = ("calls", "tokens", "usd")
"""What a budget can be of."""
POINTS = 40
"""Of a curve over a budget, at most."""
ALL_ROUNDS, RISE = "reward, all attempts", "reward, rise"
"""Measures of the learning itself, not of the answer: the mean reward of all attempts of a run; and that of their last
half less that of their first half."""
SHORTEST_TOLD = 3
"""Characters of task data that count as told by feedback: shorter ones are found in any text."""


class Point(TypedDict):
    """A budget, and what the answers are worth that it pays for."""

    budget: float
    value: Bracket


class Method(TypedDict):
    """What one arm came to."""

    arm: str
    rewarded_by: str
    runs: int
    failed: int
    attempts: int
    unanswered: int
    """Attempts without a response or an answer, those that were lost to a provider that is down included."""
    unscored: int
    """Attempts with an answer that could not be judged."""
    stopped: dict[str, int]
    reward: list[Bracket]
    """By round, of the attempt: what the method sees."""
    metric: list[Bracket]
    """By round, of the attempt: what is reported."""
    best: list[Bracket]
    """By round, the highest reward so far."""
    answer: list[Bracket]
    """By round, the metric of what would be answered then."""
    solved: list[Bracket]
    """By round, the share of runs whose answer then solves the task; empty where nothing counts as solved."""
    by_instruction: dict[str, Bracket]
    """The mean reward of the rounds that asked for this, such as explore and exploit."""
    all_rounds: Bracket
    """The mean reward of all attempts of a run."""
    rise: Difference | None
    """The mean reward of the last half of a run's attempts less that of the first half, tested against 0 and corrected
    over the methods. None where runs have ended by their rewards: the last attempt is then the best by construction."""
    metric_rise: Difference | None
    """The same of the metric; None also where the metric is the reward."""
    new: list[Estimate]
    """By round, the share of attempts whose answer no earlier attempt of the run has given."""
    repeated: Estimate
    """The share of a run's attempts, after the first and until one solves the task, that repeat an earlier answer."""
    told: int
    """Runs in which feedback shows task data, which is meant for the evaluator alone."""
    per_solved: dict[str, Bracket]
    """By unit, what was spent for each task solved by the answers of the runs, of all that was spent in them."""
    regret: Bracket
    equal: dict[str, Bracket]
    """At equal calls: by measure."""
    budget: dict[str, list[Point]]
    """By unit: the first of the measures over what was spent."""
    by_task: dict[str, Bracket]
    """At equal calls, by task: the metric of the answer where it is measured, else the first of the measures. Tasks
    that are named alike up to a colon, such as the variations of one, are one task here."""
    pass_at: dict[str, Bracket]
    """By k, for attempts that don't see each other: the share of tasks solved by at least one of k. That of k = 1 is
    the share of attempts that solve their task, which others call avg@n."""
    majority_at: dict[str, Bracket]
    """By k, for the same attempts where some give the same answer: the share of tasks that the most frequent answer of
    k solves."""
    usage: Usage
    """Of the runs that have ended, without what judging them again has cost."""
    spent_by: dict[str, Usage]
    """By node: generate, evaluate, reflect, select; rejudge, where they were judged again."""
    warnings: list[str]
    """What must be known to read its figures, in words: what is unscored, what had no answer, what noise has chosen."""


class Pair(Difference):
    """A difference between an arm and another one over the same tasks: the first one, or one that is its control.

    Of answers at equal calls; a method that makes fewer calls, such as a single answer, is judged by what it has. Of
    `ALL_ROUNDS` and `RISE` by all attempts.
    """

    arm: str
    against: str
    measure: str


class Summary(TypedDict):
    """What a comparison came to."""

    benchmark: str
    model: str
    tasks: int
    seeds: int
    equal_calls: int
    """The calls that a run of the first method can make: what every method is judged at, but one whose calls are
    allocated, which is judged by all that it made."""
    allocated: dict[str, int]
    """By such a method, the calls that it could make in all its runs together."""
    spans: dict[str, float]
    """How far apart the lowest and the highest reward, and metric, of any attempt are."""
    measures: list[str]
    """What is compared, the most telling first: success (the share solved), metric, reward."""
    methods: list[Method]
    pairs: list[Pair]
    learning: list[Pair]
    """How they learn, by `ALL_ROUNDS` and `RISE`: against the first method, and each against its own controls."""
    usage: Usage
    """All that was spent, also by runs that failed."""


def summarize(plan: Plan, rows: Mapping[Cell, Row]) -> Summary:
    """All figures of a comparison.

    Raises:
        ValueError: no run has ended.
        MissingExtra: scipy is not installed.
    """
    tables = tables_of(plan, rows)
    first = next(iter(tables.values()))
    failed = Counter(cell.arm for cell, row in rows.items() if "error" in row)
    measures = _measures(plan, [row for table in tables.values() for row in table.ended])
    calls = first.most_calls(plan.rounds)
    methods: list[Any] = [_method(arm, table, measures, failed[arm], calls) for arm, table in tables.items()]
    for name in ("rise", "metric_rise"):
        told = [method for method in methods if method[name] is not None]
        for method, tested in zip(told, corrected([method[name] for method in told]), strict=True):
            method[name] = tested
    return Summary(
        benchmark=plan.benchmark,
        model=plan.model,
        tasks=len(first.items),
        seeds=len(first.runs[0]),
        equal_calls=calls,
        allocated={arm: total for arm in tables if (total := allocated_to(arm)) is not None},
        spans={
            "reward": _span([table.reward for table in tables.values()]),
            "metric": _span([table.metric for table in tables.values()]),
        },
        measures=measures,
        methods=methods,
        usage=add_usage(*(row.get("usage", {}) for row in rows.values())),
        pairs=[pair for name in measures for pair in _pairs(name, tables, calls)],
        learning=[pair for name in (ALL_ROUNDS, RISE) for pair in _pairs(name, tables, calls) if pair["tasks"]],
    )


def tables_of(plan: Plan, rows: Mapping[Cell, Row]) -> dict[str, Table]:
    """By arm, the runs that have ended; all over the same tasks and seeds.

    Raises:
        ValueError: no run has ended.
    """
    ended = {cell: row for cell, row in rows.items() if "error" not in row}
    if not ended:
        raise ValueError("no run has ended yet, so there is nothing to sum up")
    items, seeds = list(dict.fromkeys(cell.item for cell in ended)), range(max(cell.seed for cell in ended) + 1)
    arms = {cell.arm for cell in ended}
    scale = scale_of(plan, ended.values())
    return {
        arm: Table(
            items,
            [[ended.get(Cell(arm, item, seed)) for seed in seeds] for item in items],
            scale,
            allocated_to(arm) is not None,
        )
        for arm in plan.arms
        if arm in arms
    }


def _span(scores: Sequence[Any]) -> float:
    known = np.concatenate([of_arm.ravel() for of_arm in scores])
    known = known[np.isfinite(known)]
    return float(np.ptp(known)) if len(known) else 0.0


def _measures(plan: Plan, rows: Sequence[Row]) -> list[str]:
    metrics = [
        episode["reward"]["metric"] for row in rows for episode in row["episodes"] if "metric" in episode["reward"]
    ]
    solved = ["success"] if plan.solved_at is not None else []
    is_finer = any(value not in (None, 0, 1) for value in metrics)
    return [*solved, *(["metric"] if metrics and (is_finer or not solved) else []), "reward"]


def _pairs(measure: str, tables: Mapping[str, Table], calls: int) -> list[Pair]:
    first, *others = tables
    named = [(arm, first) for arm in others]
    if measure in (ALL_ROUNDS, RISE):
        named += [(arm, control) for arm in others for control in controls_of(arm, others)]
        named = [(arm, against) for arm, against in named if _may_be_compared(arm, against, tables)]
    differences = corrected([_difference(measure, tables[arm], tables[other], calls) for arm, other in named])
    return [
        Pair(**difference, arm=arm, against=against, measure=measure)
        for (arm, against), difference in zip(named, differences, strict=True)
    ]


def _may_be_compared(one: str, other: str, tables: Mapping[str, Table]) -> bool:
    """Whether how two arms learn can be compared: where one may end by its rewards, the other must, too.

    Who stops at its best has a higher mean, also where all is chance.
    """
    has_ended = any(tables[arm].ends_by_rewards for arm in (one, other))
    never_does = any(tables[arm].is_allocated or is_best_of_n(arm) for arm in (one, other))
    return not (has_ended and never_does)


def _difference(measure: str, one: Table, other: Table, calls: int) -> Difference:
    if measure in (ALL_ROUNDS, RISE):
        read = Table.means if measure == ALL_ROUNDS else Table.rises
        return _apart(read(one), read(other), "reward" in one.scale.bounds)
    ones, others = (table.in_all_ways(lambda table: table.at_equal(calls, measure)) for table in (one, other))
    return _apart(ones, others, measure in one.scale.bounds, share=measure in one.scale.shares)


def _apart(ones: Sequence[Any], others: Sequence[Any], bounded: bool, share: bool = False) -> Difference:
    """The difference of two arrays, each in all ways."""
    of = partial(difference, share=share)
    plain = of(ones[0], others[0])
    if not bounded or (_same(*ones) and _same(*others)):
        return plain
    return bracketed_difference(plain, of(ones[1], others[2]), of(ones[2], others[1]))


def _same(values: Any, lowest: Any, highest: Any) -> bool:
    return np.array_equal(values, lowest, equal_nan=True) and np.array_equal(values, highest, equal_nan=True)


def _once(read: Callable[[Any, str], Any]) -> cached_property[Callable[[str], Any]]:
    """A method of a measure or unit that computes once what it gives for each: it goes through all runs."""
    return cached_property(lambda table: cache(partial(read, table)))


@dataclass(frozen=True)
class Table:
    """The runs of one arm, (tasks, seeds); None where one is missing. Its arrays have a NaN there."""

    items: Sequence[str]
    runs: Sequence[Sequence[Row | None]]
    scale: Scale
    is_allocated: bool = False
    """Whether its calls were handed out among its runs."""

    @cached_property
    def ended(self) -> list[Row]:
        """Those that are there."""
        return [row for seeds in self.runs for row in seeds if row is not None]

    @cached_property
    def rounds(self) -> int:
        """Of the longest run."""
        return max(len(row["episodes"]) for row in self.ended)

    def over_rounds(self, read: Callable[[Row], Sequence[float | None]], *, lasting: bool = False) -> Any:
        """An array (tasks, seeds, rounds) of what is read from each run, a number for each of its attempts.

        Args:
            read: gives the numbers of a run.
            lasting: the last of them counts on when a run has ended, however it did; else only after a success.
        """
        values = np.full((len(self.runs), len(self.runs[0]), self.rounds), np.nan)
        for task, seeds in enumerate(self.runs):
            for seed, row in enumerate(seeds):
                if row is not None:
                    numbers = np.array(read(row), dtype=float)
                    values[task, seed, : len(numbers)] = numbers
                    if lasting or row["stopped"] == "success":
                        values[task, seed, len(numbers) :] = numbers[-1]
        return values

    @property
    def reward(self) -> Any:
        """Of each attempt."""
        return self._attempts("reward")

    @property
    def metric(self) -> Any:
        """Of each attempt."""
        return self._attempts("metric")

    @property
    def success(self) -> Any:
        """Of each attempt: 1 if it solves the task, else 0."""
        return self._attempts("success")

    @property
    def had_success(self) -> Any:
        """Whether an attempt before it has solved the task, of each attempt."""
        had = np.fmax.accumulate(self.success, axis=2) > 0
        return np.concatenate([np.zeros_like(had[..., :1]), had[..., :-1]], axis=2)

    @_once
    def _attempts(self, measure: str) -> Any:
        def scores(row: Row) -> list[float | None]:
            found = [self.scale.of_attempt(episode, measure) for episode in row["episodes"]]
            if not was_judged_again(row["episodes"]):
                return found
            own = self.scale.of_answer(row, len(found) - 1, measure)  # a lucky judgement has ended it: it doesn't last
            return found + [own] * (self.rounds - len(found) if row["stopped"] == "success" else 0)

        return self.over_rounds(scores)

    @property
    def best(self) -> Any:
        """The highest reward up to each attempt."""
        return np.fmax.accumulate(self.reward, axis=2)

    def answered(self, measure: str) -> Any:
        """Of what would be the answer after each attempt: its reward, its metric, or 1 if that solves the task."""
        return _known(self._answers(measure))

    @_once
    def _answers(self, measure: str) -> Any:
        """The same, infinite where only those judgements know it that have chosen it."""
        return self.over_rounds(
            lambda row: [self.scale.of_answer(row, at, measure) for at in range(len(row["episodes"]))], lasting=True
        )

    @_once
    def spent(self, unit: str) -> Any:
        """What was spent until each attempt was judged; infinite for those that were not made."""
        values = self.over_rounds(lambda row: spent_until(row["episodes"], unit))
        return np.where(np.isnan(values), np.inf, values)

    def at(self, unit: str, budget: float, measure: str) -> Any:
        """An array (tasks, seeds): what the answers are worth that a budget pays for."""
        paid = (self.spent(unit) <= budget * (1 + 1e-9)).sum(axis=2)
        values = np.take_along_axis(self._answers(measure), np.maximum(paid - 1, 0)[:, :, None], axis=2)
        return _known(np.where(paid[:, :, None] > 0, values, np.nan))[:, :, 0]

    def at_equal(self, calls: int, measure: str) -> Any:
        """The same within as many calls of each run; where they were handed out among the runs, of all of them."""
        return self.at("calls", np.inf if self.is_allocated else calls, measure)

    def in_all_ways(self, read: Callable[[Table], Any]) -> list[Any]:
        """What is read from it with what is unscored left out, at the lowest and at the highest score possible."""
        return [read(table) for table in self._ways]

    @cached_property
    def _ways(self) -> list[Table]:
        return [replace(self, scale=replace(self.scale, unscored=way)) for way in (None, 0, 1)]

    def curve(self, measure: str, read: Callable[[Table], Any]) -> list[Bracket]:
        """The estimates of what is read from it, an array (tasks, seeds, points)."""
        share, bounds = measure in self.scale.shares, self.scale.bounds.get(measure)
        return bracketed(*self.in_all_ways(read), share=share, bounds=bounds)

    def estimate(self, measure: str, read: Callable[[Table], Any]) -> Bracket:
        """The same of one point: an array (tasks, seeds)."""
        return self.curve(measure, lambda table: np.asarray(read(table), dtype=float)[:, :, None])[0]

    @cached_property
    def ends_by_rewards(self) -> bool:
        """Whether any run has ended, or has got its calls, by its rewards."""
        return self.is_allocated or any(row["stopped"] not in _NOT_BY_REWARDS for row in self.ended)

    def means(self, measure: str = "reward") -> list[Any]:
        """In all ways, arrays (tasks, seeds): the mean over the attempts of each run."""
        return self.in_all_ways(lambda table: _mean(table._attempts(measure)))

    def halves(self, measure: str) -> tuple[list[Any], list[Any]]:
        """In all ways, arrays (tasks, seeds): the mean over the first and over the last half of a run's attempts.

        Of an odd number the one in the middle is in neither. A run that has solved its task has all its rounds.
        """

        def attempts(row: Row | None) -> int:
            return 0 if row is None else self.rounds if row["stopped"] == "success" else len(row["episodes"])

        made = np.array([[attempts(row) for row in seeds] for seeds in self.runs])[:, :, None]
        place = np.arange(self.rounds)
        is_first, is_last = place < made // 2, (place >= made - made // 2) & (place < made)

        def mean_of(half: Any) -> list[Any]:
            return self.in_all_ways(lambda table: _mean(np.where(half, table._attempts(measure), np.nan)))

        return mean_of(is_first), mean_of(is_last)

    def rises(self, measure: str = "reward") -> list[Any]:
        """In all ways, arrays (tasks, seeds): the last half of a run's attempts less the first half."""
        first, last = self.halves(measure)
        return [last[0] - first[0], last[1] - first[2], last[2] - first[1]]

    def most_calls(self, rounds: int) -> int:
        """The calls that its runs could make; where all stopped at their target, those that they would have made."""
        made = [spent_until(row["episodes"], "calls")[-1] for row in self.ended]
        if any(row["stopped"] != "success" for row in self.ended):
            return round(max(made))
        return round(max(*made, rounds * sum(made) / sum(len(row["episodes"]) for row in self.ended)))


_NOT_BY_REWARDS = ("rounds", "calls", "tokens", "usd", "time", "failures", "evaluator")
"""What stops a run whatever its rewards are."""


def _mean(values: Any) -> Any:
    """Over the last axis, of what is known; NaN where nothing is."""
    return np.ma.masked_invalid(values).mean(axis=-1).filled(np.nan)


def _known(values: Any) -> Any:
    """Points at which an answer is known by those judgements alone that have chosen it are no figures at all.

    The mean over the runs that are known there would be that of a selection of them.
    """
    return np.where(np.isinf(values).any(axis=(0, 1)), np.nan, values)


def spent_until(episodes: Sequence[Episode], unit: str) -> list[float]:
    """What was spent until each attempt was judged, and until the last one was judged and the answer selected.

    Reflections on an attempt come after that.

    Args:
        episodes: of one run.
        unit: "calls", "tokens" (in and out) or "usd".
    """

    def spent_on(node: str) -> list[float]:
        return [amount(episode["costs"].get(node, {}), unit) for episode in episodes]

    judged = [one + other for one, other in zip(spent_on("generate"), spent_on("evaluate"), strict=True)]
    before = [0.0, *accumulate(one + other for one, other in zip(judged, spent_on("reflect"), strict=True))]
    until = [earlier + spent for earlier, spent in zip(before, judged, strict=False)]
    until[-1] += sum(spent_on("select"))
    return until


def amount(usage: Usage, unit: str) -> float:
    """Calls, tokens (in and out) or dollars."""
    if unit == "tokens":
        return usage.get("input", 0) + usage.get("output", 0)
    return usage.get("calls", 0) if unit == "calls" else usage.get("usd", 0.0)


def is_known(usage: Usage, unit: str) -> bool:
    """Whether all that was spent is known in a unit: dollars are not, where a price is missing."""
    return amount(usage, unit) > 0 and not (unit == "usd" and usage.get("unpriced", 0) > 0)


def _by_task(table: Table, measure: str, read: Callable[[Table], Any]) -> dict[str, Bracket]:
    places: dict[str, list[int]] = {}
    for at, item in enumerate(table.items):
        places.setdefault(item.partition(":")[0], []).append(at)
    ways = [values[:, :, None] for values in table.in_all_ways(read)]
    share, bounds = measure in table.scale.shares, table.scale.bounds.get(measure)
    return {
        task: bracketed(*(values[at] for values in ways), share=share, bounds=bounds)[0] for task, at in places.items()
    }


def _method(arm: str, table: Table, measures: list[str], failed: int, calls: int) -> Method:
    episodes = [episode for row in table.ended for episode in row["episodes"]]
    unanswered = sum(answer_of(episode) is None for episode in episodes)
    by_node = spent_by(episodes)
    usage = add_usage(*(spent for node, spent in by_node.items() if node != "rejudge"))
    by_task = "metric" if "metric" in measures else measures[0]
    units = [unit for unit in UNITS if is_known(usage, unit)]
    has_metric = any("metric" in episode["reward"] for episode in episodes)

    def within(measure: str) -> Callable[[Table], Any]:
        return lambda table: table.at_equal(calls, measure)

    method = Method(
        arm=arm,
        rewarded_by=" and ".join(sorted({row["rewarded_by"] for row in table.ended})),
        runs=len(table.ended),
        failed=failed,
        attempts=len(episodes),
        unanswered=unanswered,
        unscored=sum(value_of(episode) is None for episode in episodes) - unanswered,
        stopped=dict(Counter(row["stopped"] for row in table.ended)),
        reward=table.curve("reward", lambda table: table.reward),
        metric=table.curve("metric", lambda table: table.metric),
        best=table.curve("reward", lambda table: table.best),
        answer=table.curve("metric", lambda table: table.answered("metric")),
        solved=table.curve("success", lambda table: table.answered("success")) if "success" in measures else [],
        by_instruction=_by_instruction(table),
        all_rounds=table.estimate("reward", lambda table: _mean(table.reward)),
        rise=_rise(table, "reward"),
        metric_rise=_rise(table, "metric") if has_metric else None,
        new=curve(_are_new(table), share=True),
        repeated=estimate(1 - _mean(np.where(_are_open(table), _are_new(table), np.nan)), share=True),
        told=sum(map(_tells_data, table.ended)),
        per_solved={unit: _per_solved(table, unit) for unit in units if "success" in measures},
        regret=table.estimate("regret", _regret),
        equal={name: table.estimate(name, within(name)) for name in measures},
        budget={unit: _over_budget(table, unit, measures[0]) for unit in units},
        by_task=_by_task(table, by_task, within(by_task)),
        pass_at=_pass_at(arm, table) if "success" in measures else {},
        majority_at=_majority_at(arm, table) if "success" in measures else {},
        usage=usage,
        spent_by=by_node,
        warnings=[],
    )
    return {**method, "warnings": list(_warnings(method, table, calls))}


def _rise(table: Table, measure: str) -> Difference | None:
    if table.ends_by_rewards:
        return None
    first, last = table.halves(measure)
    return _apart(last, first, measure in table.scale.bounds)


def _are_new(table: Table) -> Any:
    """An array (tasks, seeds, rounds): 1 where an attempt's answer is given for the first time in its run, else 0."""

    def marks(row: Row) -> list[float | None]:
        answers = [answer_of(episode) for episode in row["episodes"]]
        names = [None if answer is None else " ".join(as_json(answer).split()) for answer in answers]
        found = [None if name is None else float(name not in names[:at]) for at, name in enumerate(names)]
        return found + [None] * (table.rounds - len(found))

    return table.over_rounds(marks)


def _are_open(table: Table) -> Any:
    """An array (tasks, seeds, rounds): whether an attempt is not the first, and none before it has solved the task."""
    solved = np.zeros_like(table.reward) if table.scale.solved_at is None else np.nan_to_num(table.success)
    before = np.cumsum(solved, axis=2) - solved
    return (before == 0) & (np.arange(table.rounds) > 0)


def _tells_data(row: Row) -> bool:
    """Whether what a prompt may see of any judgement holds task data that neither the task nor the answer holds."""
    data, task = row.get("task_data", {}), text_of(row.get("task", ""))
    return bool(data) and any(
        data_in(words, data, f"{task}\n{episode.get('response', '')}", shortest=SHORTEST_TOLD) is not None
        for episode in row["episodes"]
        if (words := episode["shown"].get("feedback"))
    )


def _per_solved(table: Table, unit: str) -> Bracket:
    spent = np.where(np.isinf(table.spent(unit)), np.nan, table.spent(unit))
    most = np.ma.masked_invalid(spent).max(axis=2).filled(np.nan)
    ways: list[Any] = [
        ratio(most, solved) for solved in table.in_all_ways(lambda table: table.answered("success")[:, :, -1])
    ]
    plain, fewest, all_solved = ways
    if fewest == all_solved:
        return cast(Bracket, plain)
    ends = {"mean": None, "low": all_solved["low"], "high": fewest["high"]}
    return cast(Bracket, {**plain, **ends, "lowest": all_solved["mean"], "highest": fewest["mean"]})


def _regret(table: Table) -> Any:
    unknown = np.nan if table.scale.unscored is None else 0.0  # only counted: it has no bounds
    values = [[np.nan if row is None else row["regret"] for row in seeds] for seeds in table.runs]
    return [[unknown if value is None else value for value in seeds] for seeds in values]


def _by_instruction(table: Table) -> dict[str, Bracket]:
    names = [episode["plan"]["instruction"] for row in table.ended for episode in row["episodes"]]

    def mean_of(table: Table, row: Row | None, name: str) -> float:
        episodes = [] if row is None else [e for e in row["episodes"] if e["plan"]["instruction"] == name]
        scores = [score for e in episodes if (score := table.scale.of_attempt(e, "reward")) is not None]
        return float(np.mean(scores)) if scores else np.nan

    def means(name: str) -> Callable[[Table], Any]:
        return lambda table: [[mean_of(table, row, name) for row in seeds] for seeds in table.runs]

    return {name: table.estimate("reward", means(name)) for name in dict.fromkeys(names)}


def _over_budget(table: Table, unit: str, measure: str) -> list[Point]:
    """From where every run has made its first attempt, up to the dearest run."""
    spent = table.spent(unit)
    first, last = spent[:, :, 0], np.where(np.isinf(spent), 0, spent)
    lowest, highest = float(first[np.isfinite(first)].max()), float(last.max())
    even = np.linspace(lowest, highest, POINTS)
    budgets = np.unique(even.round() if unit == "calls" else even)
    points = table.curve(
        measure, lambda table: np.stack([table.at(unit, budget, measure) for budget in budgets], axis=2)
    )
    return [Point(budget=float(budget), value=value) for budget, value in zip(budgets, points, strict=True)]


def _pass_at(arm: str, table: Table) -> dict[str, Bracket]:
    def chances(k: int) -> Callable[[Table], Any]:
        return lambda table: [
            [pass_at_k(len(task), round(sum(score for _, score in task)), k) if len(task) >= k else np.nan]
            for task in _marked(table)
        ]

    return {str(k): table.estimate("success", chances(k)) for k in _ks(arm, table)}


MOST_VOTES = 64
"""Of a majority, at most: a vote of more takes long to compute."""


def _majority_at(arm: str, table: Table) -> dict[str, Bracket]:
    def chance(task: Sequence[tuple[str | None, float]], k: int) -> float:
        right = {answer for answer, score in task if answer is not None and score == 1}
        return majority_at_k([answer for answer, _ in task], right, k) if len(task) >= k else np.nan

    def chances(k: int) -> Callable[[Table], Any]:
        return lambda table: [[chance(task, k)] for task in _marked(table)]

    ks = [k for k in _ks(arm, table) if k <= MOST_VOTES]
    answers = ([answer for answer, _ in task if answer is not None] for task in _marked(table)) if ks else ()
    if all(len(set(task)) == len(task) for task in answers):  # texts of many words: each is an answer of its own
        return {}
    return {str(k): table.estimate("success", chances(k)) for k in ks}


def _ks(arm: str, table: Table) -> list[int]:
    """Numbers of attempts that each task has; none where attempts are not independent of each other."""
    if not makes_independent_attempts(arm):
        return []
    if any(row["stopped"] == "success" for row in table.ended):
        return []  # how many attempts a run has made tells whether it was solved
    counts = [len(task) for task in _marked(replace(table, scale=replace(table.scale, unscored=0))) if task]
    return [2**power for power in range(12) if 2**power <= min(counts, default=0)]


def _marked(table: Table) -> list[list[tuple[str | None, float]]]:
    """By task, of each attempt that is scored, its answer, None where it is none, and whether it solves the task."""
    tried = [[e for row in seeds if row is not None for e in row["episodes"]] for seeds in table.runs]
    scored = [[(e, s) for e in task if (s := table.scale.of_attempt(e, "success")) is not None] for task in tried]
    return [[(_named(answer_of(episode)), score) for episode, score in task] for task in scored]


def _named(answer: Any) -> str | None:
    return None if answer in (None, "") else as_json(answer)


def spent_by(episodes: Sequence[Episode]) -> dict[str, Usage]:
    """What each node has spent on these attempts."""
    nodes = dict.fromkeys(node for episode in episodes for node in episode["costs"])
    return {node: add_usage(*(episode["costs"].get(node, {}) for episode in episodes)) for node in nodes}


def least_scored(method: Method) -> tuple[str, Bracket]:
    """The measure at equal calls of which the fewest answers are scored, and its figure."""
    return min(method["equal"].items(), key=lambda pair: pair[1].get("scored", method["runs"]))


def scored_of(method: Method) -> str:
    """How many of its answers are scored at equal calls, in words."""
    _, least = least_scored(method)
    return f"{least['scored']} of {least['of']}" if "scored" in least else f"{method['runs']} of {method['runs']}"


def _warnings(method: Method, table: Table, calls: int) -> Iterator[str]:
    """What must be known to read the figures of a method."""
    arm, runs, episodes = method["arm"], table.ended, [e for row in table.ended for e in row["episodes"]]
    measure, least = least_scored(method)
    if "scored" in least:
        told = "it is told as the lowest and the highest that it can be"
        unknown = "its mean is over these alone, for how low and high it can be is not declared (bounds)"
        reason = _reason(e["reward"].get("error") for e in episodes if value_of(e) is None and answer_of(e) is not None)
        reason = reason or _reason(each.get("error") for e in episodes for each in e.get("reported") or [])
        scored = f"scored {least['scored']} of {least['of']} answers by {measure}"
        yield f"{arm}: {scored}; {unknown if least['lowest'] is None else told}.{reason}"
    if method["unscored"]:
        yield f"{arm}: {method['unscored']} of {method['attempts']} attempts have an answer that could not be scored."
    silent = [row for row in runs if row["answer"] is None and not all(map(is_lost, row["episodes"]))]
    if silent:
        reason = _reason(e.get("error") for row in silent for e in row["episodes"])
        yield f"{arm}: {len(silent)} of {len(runs)} runs gave no answer, and have not solved their tasks.{reason}"
    if warned := [warning for row in runs for warning in warnings_of(row["episodes"])[:1]]:
        yield f"{arm}: in {len(warned)} of {len(runs)} runs {warned[0]}."
    if cuts := [cut for row in runs if (cut := outgrown(row["episodes"]))]:
        yield f"{arm}: in {len(cuts)} of {len(runs)} runs the history was shortened: in one, {cuts[0]}."
    if switches := [note for row in runs if (note := told_switch(row["episodes"]))]:
        yield f"{arm}: {len(switches)} of {len(runs)} runs have switched: one {switches[0]}."
    again = was_judged_again(episodes)
    if again and any(one["tasks"] == 0 and "of" not in one for one in method["equal"].values()):
        yield (
            f"{arm}: what it answers within {calls} calls was not judged again, and is not known by other judgements "
            "than chose it. Put it first, or give it fewer rounds."
        )
    if not again and "judged" in method["rewarded_by"] and all(map(_is_luckiest, runs)):
        yield (
            f"{arm}: the judgements that chose its answers are also reported, and where they are noisy that reward is "
            "too high. Have the leaders judged again (retests), or believe a metric of another evaluator."
        )


def _is_luckiest(row: Row) -> bool:
    """Whether the answer is what was rewarded most, of several attempts."""
    values = [value for episode in row["episodes"] if (value := value_of(episode)) is not None]
    place = row["chosen"][-1]
    return len(values) > 1 and place is not None and value_of(row["episodes"][place]) == max(values)


def _reason(errors: Iterable[str | None]) -> str:
    """The first of them, as a sentence; empty without any."""
    error = next((error for error in errors if error), None)
    return "" if error is None else f" Such as: {shorten(error, 200)}"
