"""What the rows of a comparison come to: figures by method, by round and by budget, and differences between methods.

Rounds are counted from 0; the candidates of a round stand side by side, in the place of rounds. A run that reached its
target counts on with its answer. What is unscored is left out of every mean, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.benchmarks.arms import makes_independent_attempts
from icrl_graph.benchmarks.results import Cell, Plan, Row
from icrl_graph.benchmarks.statistics import Difference, Estimate, corrected, curve, difference, estimate, pass_at_k
from icrl_graph.state.episode import Episode, Usage, add_usage, answer_of, value_of
from icrl_graph.state.selection import metric_of

UNITS = ("calls", "tokens", "usd")
"""What a budget can be of."""
POINTS = 40
"""Of a curve over a budget, at most."""


class Point(TypedDict):
    """A budget, and what the answers are worth that it pays for."""

    budget: float
    value: Estimate


class Method(TypedDict):
    """What one arm came to."""

    arm: str
    rewarded_by: str
    runs: int
    failed: int
    attempts: int
    unanswered: int
    """Attempts without a response or an answer."""
    unscored: int
    """Attempts with an answer that could not be judged."""
    stopped: dict[str, int]
    reward: list[Estimate]
    """By round, of the attempt: what the method sees."""
    metric: list[Estimate]
    """By round, of the attempt: what is reported."""
    best: list[Estimate]
    """By round, the highest reward so far."""
    answer: list[Estimate]
    """By round, the metric of what would be answered then."""
    solved: list[Estimate]
    """By round, the share of runs whose answer then solves the task; empty where nothing counts as solved."""
    by_instruction: dict[str, Estimate]
    """The mean reward of the rounds that asked for this, such as explore and exploit."""
    regret: Estimate
    equal: dict[str, Estimate]
    """At equal calls: by measure."""
    budget: dict[str, list[Point]]
    """By unit: the first of the measures over what was spent."""
    by_task: dict[str, Estimate]
    """At equal calls, by task: the metric of the answer where it is measured, else the first of the measures. Tasks
    that are named alike up to a colon, such as the variations of one, are one task here."""
    pass_at: dict[str, Estimate]
    """By k, for attempts that don't see each other: the share of tasks solved by at least one of k."""
    usage: Usage
    """Of the runs that have ended, without what judging them again has cost."""
    spent_by: dict[str, Usage]
    """By node: generate, evaluate, reflect, select; rejudge, where they were judged again."""


class Pair(Difference):
    """A difference between an arm and the first one, over the same tasks, at equal calls.

    A method that makes fewer calls, such as a single answer, is judged by what it has.
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
    """The calls that a run of the first method can make: what every method is judged at."""
    measures: list[str]
    """What is compared, the most telling first: success (the share solved), metric, reward."""
    methods: list[Method]
    pairs: list[Pair]
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
    equal = {arm: {name: table.at("calls", calls, name) for name in measures} for arm, table in tables.items()}
    return Summary(
        benchmark=plan.benchmark,
        model=plan.model,
        tasks=len(first.items),
        seeds=len(first.runs[0]),
        equal_calls=calls,
        measures=measures,
        methods=[_method(arm, table, measures, failed[arm], equal[arm]) for arm, table in tables.items()],
        usage=add_usage(*(row.get("usage", {}) for row in rows.values())),
        pairs=[pair for name in measures for pair in _pairs(name, {arm: equal[arm][name] for arm in equal})],
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
    return {
        arm: Table(items, [[ended.get(Cell(arm, item, seed)) for seed in seeds] for item in items], plan.solved_at)
        for arm in plan.arms
        if arm in arms
    }


def _measures(plan: Plan, rows: Sequence[Row]) -> list[str]:
    metrics = [
        episode["reward"]["metric"] for row in rows for episode in row["episodes"] if "metric" in episode["reward"]
    ]
    solved = ["success"] if plan.solved_at is not None else []
    is_finer = any(value not in (None, 0, 1) for value in metrics)
    return [*solved, *(["metric"] if metrics and (is_finer or not solved) else []), "reward"]


def _mean(measure: str, values: Any) -> Estimate:
    return estimate(values, share=measure == "success")


def _pairs(measure: str, values: Mapping[str, Any]) -> list[Pair]:
    first, *others = values
    differences = corrected([difference(values[arm], values[first], share=measure == "success") for arm in others])
    named = zip(others, differences, strict=True)
    return [Pair(**difference, arm=arm, against=first, measure=measure) for arm, difference in named]


@dataclass(frozen=True)
class Table:
    """The runs of one arm, (tasks, seeds); None where one is missing. Its arrays have a NaN there."""

    items: Sequence[str]
    runs: Sequence[Sequence[Row | None]]
    solved_at: float | None

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

    @cached_property
    def reward(self) -> Any:
        """Of each attempt."""
        return self.over_rounds(lambda row: [value_of(episode) for episode in row["episodes"]])

    @cached_property
    def metric(self) -> Any:
        """Of each attempt."""
        return self.over_rounds(lambda row: [metric_of(episode) for episode in row["episodes"]])

    @property
    def best(self) -> Any:
        """The highest reward up to each attempt."""
        return np.fmax.accumulate(self.reward, axis=2)

    def answered(self, measure: str) -> Any:
        """Of what would be the answer after each attempt: its reward, its metric, or 1 if that solves the task."""
        read = value_of if measure == "reward" else metric_of

        def of_choice(row: Row) -> list[float | None]:
            return [None if place is None else read(row["episodes"][place]) for place in row["chosen"]]

        values = self.over_rounds(of_choice, lasting=True)
        if measure != "success":
            return values
        return np.where(np.isnan(values), np.nan, values >= self.solved_at)

    def spent(self, unit: str) -> Any:
        """What was spent until each attempt was judged; infinite for those that were not made."""
        values = self.over_rounds(lambda row: spent_until(row["episodes"], unit))
        return np.where(np.isnan(values), np.inf, values)

    def at(self, unit: str, budget: float, measure: str) -> Any:
        """An array (tasks, seeds): what the answers are worth that a budget pays for."""
        paid = (self.spent(unit) <= budget * (1 + 1e-9)).sum(axis=2)
        values = np.take_along_axis(self.answered(measure), np.maximum(paid - 1, 0)[:, :, None], axis=2)[:, :, 0]
        return np.where(paid > 0, values, np.nan)

    def most_calls(self, rounds: int) -> int:
        """The calls that its runs could make; where all stopped at their target, those that they would have made."""
        made = [spent_until(row["episodes"], "calls")[-1] for row in self.ended]
        if any(row["stopped"] != "success" for row in self.ended):
            return round(max(made))
        return round(max(*made, rounds * sum(made) / sum(len(row["episodes"]) for row in self.ended)))


def spent_until(episodes: Sequence[Episode], unit: str) -> list[float]:
    """What was spent until each attempt was judged, and until the last one was judged and the answer selected.

    Reflections on an attempt come after that.

    Args:
        episodes: of one run.
        unit: "calls", "tokens" (in and out) or "usd".
    """
    judged = [add_usage(*(e["costs"].get(node, {}) for node in ("generate", "evaluate"))) for e in episodes]
    later = [e["costs"].get("reflect", {}) for e in episodes]
    before = [
        0.0,
        *accumulate(amount(one, unit) + amount(other, unit) for one, other in zip(judged, later, strict=True)),
    ]
    until = [earlier + amount(usage, unit) for earlier, usage in zip(before, judged, strict=False)]
    until[-1] += sum(amount(e["costs"].get("select", {}), unit) for e in episodes)
    return until


def amount(usage: Usage, unit: str) -> float:
    """Calls, tokens (in and out) or dollars."""
    if unit == "tokens":
        return usage.get("input", 0) + usage.get("output", 0)
    return usage.get("calls", 0) if unit == "calls" else usage.get("usd", 0.0)


def is_known(usage: Usage, unit: str) -> bool:
    """Whether all that was spent is known in a unit: dollars are not, where a price is missing."""
    return amount(usage, unit) > 0 and not (unit == "usd" and usage.get("unpriced", 0) > 0)


def _by_task(items: Sequence[str], measure: str, values: Any) -> dict[str, Estimate]:
    tasks = [item.partition(":")[0] for item in items]
    places = {task: [at for at, other in enumerate(tasks) if other == task] for task in dict.fromkeys(tasks)}
    return {task: _mean(measure, values[at]) for task, at in places.items()}


def _method(arm: str, table: Table, measures: list[str], failed: int, equal: Mapping[str, Any]) -> Method:
    episodes = [episode for row in table.ended for episode in row["episodes"]]
    unanswered = sum(answer_of(episode) is None for episode in episodes)
    by_node = spent_by(episodes)
    usage = add_usage(*(spent for node, spent in by_node.items() if node != "rejudge"))
    by_task = "metric" if "metric" in measures else measures[0]
    return Method(
        arm=arm,
        rewarded_by=" and ".join(sorted({row["rewarded_by"] for row in table.ended})),
        runs=len(table.ended),
        failed=failed,
        attempts=len(episodes),
        unanswered=unanswered,
        unscored=sum(value_of(episode) is None for episode in episodes) - unanswered,
        stopped=dict(Counter(row["stopped"] for row in table.ended)),
        reward=curve(table.reward),
        metric=_curve(table.metric),
        best=curve(table.best),
        answer=_curve(table.answered("metric")),
        solved=curve(table.answered("success"), share=True) if "success" in measures else [],
        by_instruction=_by_instruction(table),
        regret=estimate([[np.nan if row is None else _number(row["regret"]) for row in seeds] for seeds in table.runs]),
        equal={name: _mean(name, equal[name]) for name in measures},
        budget={unit: _over_budget(table, unit, measures[0]) for unit in UNITS if is_known(usage, unit)},
        by_task=_by_task(table.items, by_task, equal[by_task]),
        pass_at=_pass_at(arm, table) if "success" in measures else {},
        usage=usage,
        spent_by=by_node,
    )


def _curve(values: Any) -> list[Estimate]:
    """A curve; of nothing but 0 and 1 as shares, whose interval is honest where all tasks agree."""
    return curve(values, share=bool(np.isin(values[~np.isnan(values)], (0, 1)).all()))


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _by_instruction(table: Table) -> dict[str, Estimate]:
    names = [episode["plan"]["instruction"] for row in table.ended for episode in row["episodes"]]

    def mean_of(row: Row | None, name: str) -> float:
        episodes = [] if row is None else [e for e in row["episodes"] if e["plan"]["instruction"] == name]
        values = [value for episode in episodes if (value := value_of(episode)) is not None]
        return float(np.mean(values)) if values else np.nan

    return {
        name: estimate([[mean_of(row, name) for row in seeds] for seeds in table.runs]) for name in dict.fromkeys(names)
    }


def _over_budget(table: Table, unit: str, measure: str) -> list[Point]:
    """From where every run has made its first attempt, up to the dearest run."""
    spent = table.spent(unit)
    first, last = spent[:, :, 0], np.where(np.isinf(spent), 0, spent)
    lowest, highest = float(first[np.isfinite(first)].max()), float(last.max())
    even = np.linspace(lowest, highest, POINTS)
    budgets = np.unique(even.round() if unit == "calls" else even)
    values = np.stack([table.at(unit, budget, measure) for budget in budgets], axis=2)
    points = curve(values, share=measure == "success")
    return [Point(budget=float(budget), value=value) for budget, value in zip(budgets, points, strict=True)]


def _pass_at(arm: str, table: Table) -> dict[str, Estimate]:
    """Only of attempts that are independent of each other."""
    if not makes_independent_attempts(arm):
        return {}
    if any(row["stopped"] == "success" for row in table.ended):
        return {}  # how many attempts a run has made tells whether it was solved
    tried = [[metric_of(e) for row in seeds if row is not None for e in row["episodes"]] for seeds in table.runs]
    scored = [metrics for task in tried if (metrics := [metric for metric in task if metric is not None])]
    counts = [(len(metrics), sum(metric >= (table.solved_at or 0.0) for metric in metrics)) for metrics in scored]
    fewest = min((made for made, _ in counts), default=0)
    ks = [2**power for power in range(12) if 2**power <= fewest]
    return {str(k): estimate([[pass_at_k(made, solved, k)] for made, solved in counts]) for k in ks}


def spent_by(episodes: Sequence[Episode]) -> dict[str, Usage]:
    """What each node has spent on these attempts."""
    nodes = dict.fromkeys(node for episode in episodes for node in episode["costs"])
    return {node: add_usage(*(episode["costs"].get(node, {}) for episode in episodes)) for node in nodes}
