"""Registered comparisons: what is claimed, and how it will be tested, frozen before the first call.

DIR/registered.json    claims, arms, tasks, seeds, the test, the least difference that it is likely to find, and a hash

The first arm is the one that is claimed to be better than each of the others. Whoever publishes the hash ahead can show
later that nothing was chosen by the results; the report says whether what was run is what was registered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from icrl_graph.benchmarks.experiment import NO_OBJECTS, Experiment, Objects, prepare
from icrl_graph.benchmarks.files import read_versioned, write_whole
from icrl_graph.benchmarks.plan import MAY_CHANGE, Code, Plan, open_folder, saved_code_of
from icrl_graph.benchmarks.results import Cell, Row, has_ended, read_results
from icrl_graph.benchmarks.statistics import detectable
from icrl_graph.benchmarks.summary import Summary
from icrl_graph.prompts.text import as_json
from icrl_graph.state.formatting import listed, share

FILE = "registered.json"
SCHEMA_VERSION = 1
TEST = (
    "answers at equal calls, paired over tasks; two-sided permutation test of sign flips, p corrected for all claims "
    "(Holm), alpha .05"
)


class Registered(TypedDict):
    """What was registered."""

    at: str
    """When, in ISO 8601."""
    claims: list[str]
    """The arms than which the first one is claimed to be better."""
    measure: str
    """By what: success, metric or reward."""
    test: str
    tasks: dict[str, str]
    """By name, a hash of what each task says and of its task data."""
    least: float | None
    """The difference in what is solved that is likely to be found (power .8, if 3 of 10 tasks come out differently);
    None if none is."""
    plan: dict[str, Any]
    """All that sets which runs there are and what a run is."""
    code: dict[str, dict[str, str]]
    """By arm, the fingerprints of its parts."""
    sha256: str
    """Of all the above, as JSON with its keys in order."""


def register(plan: Plan, folder: Path, objects: Objects = NO_OBJECTS) -> Registered:
    """Register a comparison in its folder, before its first call; the same one again changes nothing.

    Raises:
        ValueError: there are runs already, or the folder has another registration.
        ThreadMismatch: the folder holds another comparison.
        MissingExtra: scipy is not installed.
    """
    experiment = prepare(plan, objects)
    now = _content(experiment)
    if (before := read_registered(folder)) is not None:
        if changed := [name for name in _FROZEN if as_json(before[name]) != as_json(now[name])]:  # type: ignore[literal-required]
            raise ValueError(
                f"{folder} was registered on {before['at']}, and this differs in {listed(changed)}; give another "
                "folder, or run it without registering it again: the report will say what was added"
            )
        return before
    if (folder / "bench.json").exists() and (read_results(folder).rows or any((folder / "unfinished").glob("*"))):
        raise ValueError(
            f"{folder} holds runs already, and what is claimed is registered before the first; give another"
        )
    open_folder(folder, plan, experiment.code())
    made: Any = {**now, "sha256": _sha256(now)}
    write_whole(folder / FILE, {"form": SCHEMA_VERSION, **made})
    return cast(Registered, made)


_FROZEN = ("claims", "measure", "test", "tasks", "plan", "code")


def _content(experiment: Experiment) -> Any:
    plan, items = experiment.plan, experiment.items()
    measure = "success" if plan.solved_at is not None else "metric" if experiment.metric is not None else "reward"
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "claims": list(plan.arms[1:]),
        "measure": measure,
        "test": TEST,
        "tasks": {item: _sha256(experiment.benchmark.inputs(item)) for item in items},
        "least": detectable(len(items), comparisons=max(1, len(plan.arms) - 1)),
        "plan": _fixed(plan),
        "code": {arm: dict(parts) for arm, parts in experiment.code().items()},
    }


def _fixed(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in asdict(plan).items() if name not in MAY_CHANGE}


def _sha256(value: Any) -> str:
    return hashlib.sha256(as_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def read_registered(folder: Path) -> Registered | None:
    """What a folder's comparison was registered as; None if it was not.

    Raises:
        ValueError: the file can't be read.
        ThreadMismatch: another version wrote it.
    """
    if not (folder / FILE).exists():
        return None
    values: Any = read_versioned(folder / FILE, SCHEMA_VERSION, Registered.__annotations__, "registration")
    return cast(Registered, values)


def told(folder: Path, plan: Plan, rows: Mapping[Cell, Row], summary: Summary) -> list[str]:
    """What was registered, whether that is what was run, and what has come of each claim, as sentences; else none."""
    found = read_registered(folder)
    if found is None:
        return []
    first, tasks, seeds = found["plan"]["arms"][0], len(found["tasks"]), found["plan"]["seeds"]
    least = "no difference" if found["least"] is None else f"a difference of {share(found['least'])}"
    departed = list(departures(found, plan, rows, saved_code_of(folder)))
    claimed = f"{first} has more {found['measure']} than {listed(found['claims'])}" if found["claims"] else "nothing"
    return [
        f"Registered on {found['at']}, before the first call (sha256 {found['sha256']}): {claimed}; "
        f"{tasks} tasks x {seeds} seeds, by which {least} in what is solved is likely to be found.",
        f"What was run is not what was registered: {'; '.join(departed)}."
        if departed
        else "What was run is what was registered.",
        *_outcomes(found, summary),
    ]


def departures(found: Registered, plan: Plan, rows: Mapping[Cell, Row], code: Code | None) -> Iterator[str]:
    """How what was run differs from what was registered, in words."""
    if _sha256({name: value for name, value in found.items() if name != "sha256"}) != found["sha256"]:
        yield f"{FILE} was edited after it was written"
    now, was = _fixed(plan), found["plan"]
    arms = [arm for arm in now["arms"] if arm not in was["arms"]]
    if arms:
        yield f"{', '.join(arms)} was added later"
    for name in sorted(was.keys() - {"arms"}):
        if as_json(was[name]) != as_json(now.get(name)):
            yield f"{name} is {now.get(name)!r:.80}, registered was {was[name]!r:.80}"
    ended = {cell: row for cell, row in rows.items() if has_ended(rows, cell)}
    if more := {cell.item for cell in ended} - found["tasks"].keys():
        yield f"{len(more)} further tasks were played"
    inputs = ((cell.item, {"task": row["task"], "task_data": row["task_data"]}) for cell, row in ended.items())
    if other := {item for item, each in inputs if found["tasks"].get(item, _sha256(each)) != _sha256(each)}:
        yield f"{len(other)} tasks say something else, such as {sorted(other)[0]}"
    cells = [Cell(arm, item, seed) for arm in was["arms"] for item in found["tasks"] for seed in range(was["seeds"])]
    if missing := sum(cell not in ended for cell in cells):
        yield f"{missing} of {len(cells)} runs have not ended"
    parts = {
        part for arm, one in found["code"].items() for part in one if one[part] != (code or {}).get(arm, {}).get(part)
    }
    if parts:
        yield f"the {' and the '.join(sorted(parts))} was edited"


def _outcomes(found: Registered, summary: Summary) -> Iterator[str]:
    """What has come of each claim."""
    from icrl_graph.benchmarks.verdict import is_shown

    pairs = {pair["arm"]: pair for pair in summary["pairs"] if pair["measure"] == found["measure"]}
    outcomes: dict[str, list[str]] = {"shown": [], "refuted": [], "not shown": []}
    for arm in found["claims"]:
        if (pair := pairs.get(arm)) is None or not is_shown(pair):
            outcomes["not shown"].append(arm)
        else:
            high = pair["highest"] if pair.get("lowest") is not None else pair["difference"]
            outcomes["shown" if high is not None and high < 0 else "refuted"].append(arm)
    for outcome, arms in outcomes.items():
        if arms:
            yield f"{outcome.capitalize()}: better than {listed(arms)}."
