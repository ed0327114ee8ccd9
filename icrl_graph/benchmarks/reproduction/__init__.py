"""`reproduce`: a table of a paper played again, and held against what was published.

    from icrl_graph.benchmarks import reproduce

    table = reproduce("game24", data="24.csv", model="openai:gpt-4.1-mini", limit=10, rounds=8, folder="runs/game24")
    print(table)
    print(table.to_latex())

A table is data (`presets`), of which plans are made that `compare` could have made: each in a folder of its own, which
`icrl report`, `icrl show` and `icrl rejudge` read.

DIR/reproduction.json    which table, and whether with the rows of `fair`
DIR/BENCHMARK/           a comparison
DIR/BENCHMARK-wins/      its answers in pairs, where the table has win rates
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from langgraph.runtime import RunControl

from icrl_graph.benchmarks.api import Comparison, execute
from icrl_graph.benchmarks.arms import read_arm
from icrl_graph.benchmarks.experiment import PYTHON, Experiment, Objects, check_learners, make_plan, prepare
from icrl_graph.benchmarks.files import read_versioned, write_whole
from icrl_graph.benchmarks.plan import TOTALS, Plan
from icrl_graph.benchmarks.registry import OWN, find_benchmark
from icrl_graph.benchmarks.reproduction import formats
from icrl_graph.benchmarks.reproduction.lines import Line, departures, lines
from icrl_graph.benchmarks.reproduction.presets import SAME, TABLES, Part, Preset, Row
from icrl_graph.benchmarks.scheduler import OnProgress, read_clock
from icrl_graph.benchmarks.win_rates import pairs_plan
from icrl_graph.execution.run_file import local
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import Usage, add_usage
from icrl_graph.state.formatting import cost

SCHEMA_VERSION = 1
"""Of reproduction.json."""
SAVED = "reproduction.json"
EXACT = "none"
"""As a judge: the exact verifier gives the rewards."""
OWN_TASKS = "own"
"""As data: the tasks of this package."""
_MATCHED = re.compile(r"best_of_n\+n=\d+")


def reproduce(
    table: str,
    *,
    model: Any = None,
    judge: Any = None,
    pair_judge: str | None = None,
    data: str | PathLike[str] | None = None,
    items: Sequence[str] = (),
    limit: int | None = None,
    rounds: int | None = None,
    methods: Sequence[str] = (),
    parts: Sequence[str] = (),
    fair: bool = False,
    total_usd: float | None = None,
    total_calls: int | None = None,
    total_seconds: float | None = None,
    folder: str | PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
    control: RunControl | None = None,
    **settings: Any,
) -> Reproduction:
    """Play a table of a paper again: its methods, models, tasks, rounds and metrics, or what stands in for them.

    The same call with the same folder resumes it. What of the paper's settings is not kept, the table says.

    Args:
        table: one of `TABLES`: game24, writing, scienceworld, math, abstracts, ablations, orbit-scienceworld.
        model: default the paper's; any that `compare` takes.
        judge: gives the rewards, where a model does: default the paper's, or the model if one is given. "none" for the
            exact verifier.
        pair_judge: compares answers for win rates: default the paper's, or the judge if a model is given. With `fair`
            it is neither the model nor the judge.
        data: your copy of the published tasks, which most tables need, such as "24.csv"; "own" for this package's.
        items: names of tasks, or patterns such as "find-*"; default all.
        limit: number of tasks; default the paper's.
        rounds: attempts at each task; default the paper's.
        methods: rows by the names of the table, or patterns such as "ICRL*"; default all. The first row stays.
        parts: benchmarks, where a table is of several, such as "aime"; default all.
        fair: add Best-of-N at as many tokens as ICRL, and each baseline in several settings.
        total_usd: US dollars for all of it together, what was spent in this folder before included. Once it is spent no
            call is begun; the same call with more does the rest.
        total_calls: paid calls, the same.
        total_seconds: seconds that it may take by the clock, the same.
        folder: new, or one in which the same was begun; default a new temporary one, which is not deleted.
        on_progress: called with a `Progress` whenever something has happened.
        control: its `request_drain()` ends it once the calls in flight have answered.
        settings: the further arguments of `compare`, such as base_url, concurrency, seeds, temperature and prices.

    Returns:
        The table, also where single runs failed.

    Raises:
        ValueError: there is no such table, its data are missing, or an argument is wrong. Nothing was paid.
        ModelError: no run can succeed: the key, the model's name or the address is wrong.
    """
    request = Request(
        table, model, judge, pair_judge, data, items, limit, rounds, methods, parts, fair, total_usd, total_calls,
        total_seconds, settings,
    )  # fmt: skip
    path = Path(tempfile.mkdtemp(prefix="icrl-")) if folder is None else Path(folder)
    return request.play(path, on_progress or (lambda progress: None), control)


@dataclass(frozen=True)
class Request:
    """What is to be reproduced, and by what; the arguments of `reproduce`."""

    table: str
    model: Any = None
    judge: Any = None
    pair_judge: str | None = None
    data: str | PathLike[str] | None = None
    items: Sequence[str] = ()
    limit: int | None = None
    rounds: int | None = None
    methods: Sequence[str] = ()
    parts: Sequence[str] = ()
    fair: bool = False
    total_usd: float | None = None
    total_calls: int | None = None
    total_seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def chosen(self) -> list[Part]:
        """The parts of the table that are played.

        Raises:
            ValueError: there is no such table or part.
        """
        preset = find_table(self.table)
        known = {part.benchmark: part for part in preset.parts}
        return [pick("part", name, known) for name in self.parts] or [*known.values()]

    def plan(self, part: Part) -> tuple[Plan, Objects]:
        """The plan of a part, and the objects that were passed in place of names.

        Raises:
            ValueError: its data are missing, no method is named so, or an argument is wrong.
        """
        check_learners(part.benchmark, [self.model])  # whatever else is missing: no other argument mends it
        rounds = part.rounds if self.rounds is None else self.rounds
        rows = self._rows(part)
        arms = [arm for row in rows if (arm := arm_of(row, part, rounds)) is not None]
        names = Plan.__dataclass_fields__
        numbers = {name: value for name, value in self.settings.items() if name in names and name != "options"}
        options = {name: value for name, value in self.settings.items() if name not in names}
        return make_plan(
            self._benchmark(part),
            list(dict.fromkeys(arms)),
            model=part.model if self.model is None else self.model,
            judge=self._judge(part),
            items=self.items,
            limit=part.tasks if self.limit is None and not self.items else self.limit,
            rounds=rounds,
            options={**part.options, **options},
            **{total: getattr(self, total) for total in TOTALS.values()},
            **numbers,
        )

    def _rows(self, part: Part) -> list[Row]:
        first, *others = [*part.rows, *(part.fair if self.fair else ())]
        found = [row for row in others if not self.methods or any(_is_named(row, each) for each in self.methods)]
        for each in self.methods:
            if not any(_is_named(row, each) for row in [first, *found]):
                names = ", ".join(dict.fromkeys(row.name for row in [first, *others]))
                raise ValueError(f"no row of {self.table} is named like {each!r}; they are {names}")
        return [first, *found]

    def _benchmark(self, part: Part) -> str:
        if self.data is None and not part.data:
            return part.benchmark
        if self.data is None:
            raise ValueError(
                f"{self.table} is played on the tasks of {part.data} ({part.where}), which this package does not have: "
                f"give your copy as data, as in --data {part.data}, or --data {OWN_TASKS} for tasks of its own"
            )
        if str(self.data) == OWN_TASKS:
            return part.own or part.benchmark
        if find_benchmark(part.benchmark).own is None:
            raise ValueError(
                f"{part.benchmark} has its tasks from elsewhere, and reads none from data={str(self.data)!r}"
            )
        if len(parts := self.chosen()) > 1:
            names = " or ".join(each.benchmark for each in parts)
            raise ValueError(f"data={str(self.data)!r} has the tasks of one part: say of which, as by --part {names}")
        return f"{part.benchmark}{OWN}{self.data}"

    def _judge(self, part: Part) -> Any:
        judge = self.judge
        if judge is None and part.judge is not None:
            own = part.judge if self.model is None else SAME
            judge = (part.model if self.model is None else self.model) if own == SAME else own
        if isinstance(judge, str) and judge.startswith("learner:"):
            raise ValueError(f"{judge} plays one game, and can't judge: name a judge, or {EXACT!r} for exact rewards")
        return None if judge == EXACT else judge

    def pairs(self, part: Part, plan: Plan, folder: Path) -> Plan | None:
        """The plan by which a part's answers are compared in pairs; None where the table has no win rates.

        Raises:
            ValueError: `fair`, and the judge is no other one than has answered or given the rewards.
        """
        if part.pair_judge is None or len(plan.arms) == 1:
            return None
        judge = self.pair_judge or (part.pair_judge if self.model is None else plan.judge or plan.model)
        if judge.startswith(PYTHON):
            raise ValueError("answers are compared by a model that has a name: give one as pair_judge")
        if self.fair and judge in (plan.model, plan.judge):
            raise ValueError(
                f"{judge} has written the answers or given the rewards, and a fair table is judged by another model: "
                "name one, as in --pair-judge openai:gpt-5"
            )
        own: dict[str, Any] = {"judge_base_url": plan.judge_base_url or plan.base_url}
        return pairs_plan(plan, folder, judge, plan.arms[0], **own)

    @cached_property
    def experiments(self) -> list[tuple[Part, Experiment, Objects]]:
        """By part, all that its plan names, looked up and checked; and the objects in place of names.

        Raises:
            ValueError: something is wrong.
        """
        parts = self.chosen()
        if self.pair_judge is not None and all(part.pair_judge is None for part in parts):
            raise ValueError(
                f"{self.table} has no win rates, for which pair_judge={self.pair_judge!r} compares answers"
            )
        plans = [(part, *self.plan(part)) for part in parts]
        made = [(part, prepare(plan, objects), objects) for part, plan, objects in plans]
        for part, plan, _ in plans:
            if pairs := self.pairs(part, plan, Path()):
                pairs.load_judge(pairs.again["judge"])  # type: ignore[index,arg-type]
        return made

    def preview(self, response_tokens: int = 300) -> dict[str, dict[str, Usage]]:
        """By part and arm, what it is estimated to cost; see `icrl_graph.preview`.

        Best-of-N at equal tokens is taken to cost as much as the first arm. Of what comparing pairs costs only the
        calls are known ahead.

        Raises:
            ValueError: something is wrong.
        """
        estimates: dict[str, dict[str, Usage]] = {}
        for part, experiment, _ in self.experiments:
            plan = experiment.plan
            costs = experiment.preview(response_tokens)
            if self.fair and _base(part, plan) is not None:
                costs["best_of_n, as many tokens"] = costs[plan.arms[0]]
            if part.pair_judge is not None:
                costs["win rates"] = Usage(calls=2 * (len(plan.arms) - 1) * len(experiment.items()) * plan.seeds)
            estimates[part.benchmark] = costs
        return estimates

    def play(self, folder: Path, on_progress: OnProgress, control: RunControl | None = None) -> Reproduction:
        """Play it in a folder, or resume it there; arguments and errors as of `reproduce`."""
        experiments = self.experiments  # nothing is written if something is wrong
        _open(folder, self.table, self.fair)
        budget = _Budget(self, folder)
        for part, experiment, objects in experiments:
            place = folder / part.benchmark
            for each, where in self._steps(part, experiment.plan, place):
                capped = budget.capped(each, where)
                if isinstance(capped, str):
                    return replace(Reproduction.read(folder), left=capped)
                done = execute(capped, where, on_progress, control, {} if each.again else objects)
                if done.left is not None:
                    return Reproduction.read(folder).with_left(done)
                if done.failures:  # what follows would be made from a part of it
                    break
        return Reproduction.read(folder)

    def _steps(self, part: Part, plan: Plan, place: Path) -> Iterator[tuple[Plan, Path]]:
        """One after another: the comparison, with Best-of-N at equal tokens, and its answers in pairs."""
        yield plan, place
        if self.fair and (arm := _matched(part, Comparison.read(place))):
            plan = replace(plan, arms=[*plan.arms, arm])
            yield plan, place
        if pairs := self.pairs(part, plan, place):
            yield pairs, _pairs_of(place)


def find_table(name: str) -> Preset:
    """The table of a name.

    Raises:
        ValueError: there is none; lists the choices.
    """
    return pick("table", name, TABLES)


def arm_of(row: Row, part: Part, rounds: int, matched: str | None = None) -> str | None:
    """The arm of a row as it is played; None where it is not known yet how many samples take as many tokens."""
    if "{matched}" in row.arm:
        return matched
    return row.arm.format(rounds=rounds, samples=max(1, round(part.samples * rounds / part.rounds)))


def _is_named(row: Row, pattern: str) -> bool:
    return fnmatchcase(row.name.lower(), pattern.lower())


def _base(part: Part, plan: Plan) -> str | None:
    """The arm of Best-of-N that one at equal tokens is measured by."""
    arms = (arm_of(row, part, plan.rounds) or "" for row in (*part.rows, *part.fair))
    return next((arm for arm in arms if arm in plan.arms and re.fullmatch(r"best_of_n(\+n=\d+)?", arm)), None)


def matched_of(part: Part, plan: Plan) -> str | None:
    """The arm of Best-of-N at equal tokens of a comparison, if it was begun."""
    others = {arm_of(row, part, plan.rounds) for row in (*part.rows, *part.fair)}
    return next((arm for arm in plan.arms if _MATCHED.fullmatch(arm) and arm not in others), None)


def _matched(part: Part, comparison: Comparison) -> str | None:
    """Best-of-N with as many samples as take the tokens of the first arm, in and out, those of the judge included."""
    plan = comparison.plan
    base = _base(part, plan)
    if base is None or not any("{matched}" in row.arm for row in part.fair):
        return None
    if (begun := matched_of(part, plan)) is not None:
        return begun
    spent = {
        arm: sum(row["usage"].get("input", 0) + row["usage"].get("output", 0) for row in comparison.rows.values()
                 if row["arm"] == arm)
        for arm in (plan.arms[0], base)
    }  # fmt: skip
    if not all(spent.values()):  # models that are not priced by tokens
        return None
    samples = read_arm(base).options.get("n", plan.rounds)
    return f"best_of_n+n={max(1, round(int(samples) * spent[plan.arms[0]] / spent[base]))}"


def _pairs_of(place: Path) -> Path:
    return place.with_name(f"{place.name}-wins")


def _open(folder: Path, table: str, fair: bool) -> None:
    local(folder, "a table is reproduced in a folder")
    if (folder / SAVED).exists():
        saved = _read(folder)
        if saved["table"] != table:
            raise ValueError(f"{folder} holds the table {saved['table']}, not {table}; give another folder")
        fair = fair or saved["fair"]
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; give another one")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SAVED, {"form": SCHEMA_VERSION, "table": table, "fair": fair})


def _read(folder: Path) -> dict[str, Any]:
    return read_versioned(folder / SAVED, SCHEMA_VERSION, ("table", "fair"), "table that was reproduced")


@dataclass(frozen=True)
class _Budget:
    """What may be spent on a whole table."""

    request: Request
    folder: Path

    def capped(self, plan: Plan, place: Path) -> Plan | str:
        """A plan that may spend what the others have left; a text if that is nothing."""
        others = [path.parent for path in self.folder.glob("*/bench.json") if path.parent != place]
        spent: Mapping[str, Any] = add_usage(*(Comparison.read(other).spent for other in others))
        used = {"usd": spent.get("usd", 0.0), "calls": spent.get("calls", 0), "time": sum(map(read_clock, others))}
        totals = {TOTALS[kind]: getattr(self.request, TOTALS[kind]) for kind in used}
        left = {TOTALS[kind]: total - used[kind] for kind in used if (total := totals[TOTALS[kind]]) is not None}
        if empty := next((name for name, amount in left.items() if amount <= 0 < totals[name]), None):
            return f"{empty} is spent: {plan.benchmark} was not begun, or not ended"
        return replace(plan, **left)


@dataclass(frozen=True)
class Reproduction:
    """A table of a paper beside what was played; printed, the table.

    Attributes:
        folder: where it is saved.
        table: its name.
        preset: what it is of.
        fair: whether it has the rows of `fair`.
        comparisons: by part, what was played.
        pairs: by part, its answers in pairs.
        left: what a total budget left undone, in words; None if there is nothing.
    """

    folder: Path
    table: str
    preset: Preset
    fair: bool
    comparisons: Mapping[str, Comparison]
    pairs: Mapping[str, Comparison]
    left: str | None = None

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> Reproduction:
        """The table that `reproduce` has saved in a folder, as far as it was played.

        Raises:
            ValueError: the folder holds none.
        """
        path = Path(folder)
        saved = _read(path)
        preset = find_table(saved["table"])
        places = {part.benchmark: path / part.benchmark for part in preset.parts}
        begun = {name: place for name, place in places.items() if (place / "bench.json").exists()}
        wins = {name: _pairs_of(place) for name, place in begun.items() if (_pairs_of(place) / "bench.json").exists()}
        played, pairs = ({name: Comparison.read(place) for name, place in of.items()} for of in (begun, wins))
        return cls(path, saved["table"], preset, saved["fair"], played, pairs)

    def with_left(self, done: Comparison) -> Reproduction:
        """The same, with the comparison that a total budget has ended, as it knows what its unended runs have cost."""
        kind = "pairs" if done.plan.again else "comparisons"
        held: Mapping[str, Comparison] = getattr(self, kind)
        of = {name: done if each.folder == done.folder else each for name, each in held.items()}
        changed: Any = {kind: of, "left": str(done.left)}
        return replace(self, **changed)

    @property
    def all(self) -> list[Comparison]:
        """All that was played, pairs included."""
        return [*self.comparisons.values(), *self.pairs.values()]

    @property
    def usage(self) -> Usage:
        """What all of it has cost."""
        return add_usage(*(each.spent for each in self.all))

    @property
    def lines(self) -> list[Line]:
        """Its rows.

        Raises:
            MissingExtra: scipy is not installed (extra `report`).
        """
        parts = [part for part in self.preset.parts if part.benchmark in self.comparisons]
        return [
            line
            for part in parts
            for line in self._of(part, self.comparisons[part.benchmark], self.pairs.get(part.benchmark))
        ]

    def _of(self, part: Part, comparison: Comparison, pairs: Comparison | None) -> list[Line]:
        plan, matched = comparison.plan, matched_of(part, comparison.plan)
        rows = [*part.rows, *(part.fair if self.fair else ())]
        played = [(row, arm) for row in rows if (arm := arm_of(row, part, plan.rounds, matched)) in plan.arms and arm]
        return list(lines(part, played, comparison, pairs))

    @property
    def differences(self) -> dict[str, list[str]]:
        """By part, what differs from the paper: the settings of this table first, then what always does."""
        found = {part.benchmark: part for part in self.preset.parts if part.benchmark in self.comparisons}
        return {
            name: [*departures(part, self.comparisons[name], self.pairs.get(name)), *part.differs]
            for name, part in found.items()
        }

    def to_text(self, width: int = 120) -> str:
        """The table for a terminal."""
        return formats.text(self, width)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return formats.markdown(self)

    def to_latex(self) -> str:
        """The table in LaTeX; it needs the package booktabs."""
        return formats.latex(self)

    def __repr__(self) -> str:
        ending = f"Spent: {cost(self.usage)}. Saved in {self.folder}"
        return "\n".join([self.to_text(), *([f"{self.left}."] if self.left else []), ending])


__all__ = ["TABLES", "Reproduction", "Request", "find_table", "reproduce"]
