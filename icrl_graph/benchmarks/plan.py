"""What a comparison compares, and the folder that it is saved in.

DIR/bench.json       its plan: enough to resume it; never a key or a password
DIR/results.jsonl    a line for each run (see `icrl_graph.benchmarks.results`)
DIR/unfinished/      checkpoints and journals of the runs that have not ended, where they are not in a database
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired
from uuid import uuid4

from typing_extensions import TypedDict

from icrl_graph.benchmarks.files import read_versioned, write_whole
from icrl_graph.benchmarks.results import read_results
from icrl_graph.errors import ThreadMismatch
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.run_file import check_postgres, local, reach_postgres
from icrl_graph.models.addresses import FolderAddress, server_of_further, without_credentials
from icrl_graph.models.registry import load_model
from icrl_graph.state.checks import is_number
from icrl_graph.state.fingerprint import edited
from icrl_graph.state.formatting import command
from icrl_graph.topologies.options import at_temperature

ENGINES = ("process", "ray")
"""Where runs are played: in this process, or on the machines of a Ray cluster."""
SCHEMA_VERSION = 1
"""Of bench.json and results.jsonl."""


class Again(TypedDict):
    """How the answers of a comparison were judged or selected again."""

    folder: str
    """The comparison that they are from."""
    evaluator: str | None
    judge: str | None
    rubric: str | None
    as_metric: bool
    """The new judgement is the metric; the rewards stay as they were."""
    select: str | None
    """What selects the answer: reward, majority, last_majority or last; None for each arm's own selection."""
    against: NotRequired[str]
    """The arm with whose answers those of the others were compared; then nothing but the answers was judged."""


@dataclass(frozen=True)
class Plan:
    """A comparison, in names and numbers. A name may also be "python:NAME", of an object that no folder can hold.

    Attributes:
        benchmark: a name, "path.py:name" of a `Benchmark`, or a data set with its fields.
        arms: as they are written.
        model: "provider:name", or "path.py:name" of an object.
        judge: the model that gives the rewards, or None.
        rubric: what it judges by, or None for the benchmark's own.
        evaluator: "path.py:name", or None for the benchmark's own.
        metric: the same, or None.
        items: names or patterns of names of its tasks; none for all.
        limit: number of tasks.
        rounds: attempts at each task.
        seeds: runs of each arm on each task.
        solved_at: the metric from which a task counts as solved, or None.
        base_url: the models' server, or None.
        judge_base_url: the judge's server; None for the models', where the judge speaks its protocol.
        temperature: for every call, or None.
        options: settings and parts that all arms share.
        again: how its answers, those of another comparison, were judged or selected again; None if they are its own.
        concurrency: runs, and paid calls, at once.
        requests_per_minute: paid calls, or None for no limit.
        tokens_per_minute: in and out, on average, or None for no limit.
        attempts: attempts per call, retries of transient errors included.
        call_timeout: seconds for one attempt, of a model named "openai:..." or "local:...".
        total_usd: US dollars for all runs together, or None. A comparison that has spent them is resumed with more.
        total_calls: paid calls, the same.
        total_seconds: seconds by the clock that the comparison may take, the same.
        send_seed: whether models that take a seed get one.
        switch_base_url: the server of the models to switch to; None for the models', as for the judge.
        engine: where runs are played: one of `ENGINES`.
        ray_address: of the Ray cluster; None for the one that Ray finds.
        db: the PostgreSQL database in which runs are saved until they end; None for files of the folder.
    """

    benchmark: str
    arms: Sequence[str]
    model: str
    judge: str | None = None
    rubric: str | None = None
    evaluator: str | None = None
    metric: str | None = None
    items: Sequence[str] = field(default_factory=list)
    limit: int = 50
    rounds: int = 8
    seeds: int = 1
    solved_at: float | None = None
    base_url: str | None = None
    temperature: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    again: Again | None = None
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 6
    call_timeout: float = 600.0
    judge_base_url: str | None = None
    total_usd: float | None = None
    total_calls: int | None = None
    total_seconds: float | None = None
    send_seed: bool = True
    switch_base_url: str | None = None
    db: str | None = None
    engine: str = "process"
    ray_address: str | None = None

    def caps(self) -> dict[str, float]:
        """The caps on all runs together, as a budget names them.

        Raises:
            ValueError: one is not above 0.
        """
        named = {"usd": self.total_usd, "calls": self.total_calls, "time": self.total_seconds}
        caps = {name: cap for name, cap in named.items() if cap is not None}
        for name, cap in caps.items():
            if not (is_number(cap) and 0 < cap < math.inf):
                raise ValueError(f"{TOTALS[name]} must be a finite number above 0, got {cap!r:.80}")
        return caps

    def shared(self) -> dict[str, Any]:
        """The options of all arms."""
        return {**at_temperature(self.temperature), **self.options}

    def load(self, model: str) -> Any:
        """A model by its name; its calls are retried by the rate limit alone.

        Raises:
            ValueError: there is none of that name.
        """
        return self._load(model, self.base_url)

    def load_judge(self, judge: str) -> Any:
        """A judge by its name: `load`, at the judge's own server where that is given."""
        address = server_of_further(judge, self.judge_base_url, self.model, self.base_url)
        return self._load(judge, address, role="judge")

    def load_switch(self, model: str) -> Any:
        """A model to switch to, by its name: `load`, at its own server where that is given."""
        address = server_of_further(model, self.switch_base_url, self.model, self.base_url)
        return self._load(model, address, role="switch_model")

    def _load(self, model: str, base_url: str | None, role: str = "model") -> Any:
        options = {"max_retries": 0, "timeout": self.call_timeout} if model.startswith(("openai:", "local:")) else {}
        return load_model(model, base_url=base_url, role=role, **options)

    def rate_limit(self) -> RateLimit:
        """The rate limit of all its calls.

        Raises:
            ValueError: a number is not above 0.
        """
        return RateLimit(
            max_concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_attempts=self.attempts,
        )


_MADE = ("code", "began", "id")
"""What bench.json holds beside the plan: by what its runs are made (`Code`), since when, in ISO 8601, and, where they
are saved in a database, with what their names begin there."""
WRITERS = ("model", "switch_model", "reflector", "critic")
"""Parts that a run which has failed may be repeated with other ones of."""
Code = Mapping[str, Mapping[str, str]]
"""By arm, the fingerprints of its parts by their names."""
_MAY_GROW = ("arms", "limit", "seeds")
"""Fields that set which runs there are, not what a run is."""
TOTALS: Mapping[str, str] = {"usd": "total_usd", "calls": "total_calls", "time": "total_seconds"}
"""Fields that cap all runs together, by the name of the cap."""
ADDRESSES = ("base_url", "judge_base_url", "switch_base_url", "db")
"""Fields that say where calls are made, and where runs are saved."""
MAY_CHANGE = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "attempts",
    "call_timeout",
    *ADDRESSES,
    *TOTALS.values(),
    "engine",
    "ray_address",
)
"""Fields that set how fast calls are made, where, by whom, and how many now. Of `db`, the user and the password."""
_ADDED = ("judge_base_url", *TOTALS.values(), "send_seed", "switch_base_url", "db", "engine", "ray_address")
"""Fields that a bench.json of an earlier version does not have."""


def open_folder(folder: Path, plan: Plan, code: Code | None = None) -> Plan:
    """Start a comparison in a folder, or resume the one that is there.

    Arms, tasks and seeds may be added to it, and are never removed.

    Args:
        folder: where it is saved.
        plan: what is compared.
        code: the fingerprints of its parts.

    Returns:
        The plan, with the arms, tasks and seeds that were there.

    Raises:
        ValueError: the folder holds something else.
        JournalError: the database of a new comparison can't be reached.
        ThreadMismatch: it holds another comparison, one with other code, or one of another version.
    """
    local(folder, "a comparison is saved in a folder")
    if plan.db is not None:
        check_postgres(plan.db)
    known: dict[str, Any] = (
        {} if code is None else {"code": code, "began": datetime.now(UTC).isoformat(timespec="seconds")}
    )
    if not (folder / "bench.json").exists():
        if folder.exists() and (not folder.is_dir() or any(file.name != "bench.tmp" for file in folder.iterdir())):
            raise ValueError(f"{folder} is not an empty folder; give another one")
        merged = plan
        if plan.db is not None:
            reach_postgres(plan.db)  # the folder stays with its database: a wrong name is not saved
            known["id"] = uuid4().hex
    else:
        saved = read_plan(folder)
        if saved.db != without_credentials(plan.db):
            where = [without_credentials(each) or "files of the folder" for each in (saved.db, plan.db)]
            raise ThreadMismatch(
                f"the runs of {folder} are saved in {where[0]}, with what was paid for them, not in {where[1]}: give "
                "that, or another folder"
            )
        grows = ("arms",) if any("+allocate=" in arm for arm in saved.arms) else _MAY_GROW  # calls are handed out once
        fixed = [name for name in Plan.__dataclass_fields__ if name not in (*grows, *MAY_CHANGE)]
        pairs = [(name, getattr(saved, name), _plain(getattr(plan, name))) for name in fixed]
        if changed := [f"{name} {before!r} -> {after!r}" for name, before, after in pairs if _plain(before) != after]:
            raise ThreadMismatch(f"{folder} holds another comparison ({', '.join(changed)}); give another folder")
        saved_code = saved_code_of(folder)
        _check_code(folder, saved_code or {}, code or {})
        known = {name: value for name, value in _saved(folder).items() if name in _MADE}
        known |= {} if saved_code is None else {"code": {**saved_code, **(code or {})}}
        merged = replace(
            plan,
            arms=[*saved.arms, *(arm for arm in plan.arms if arm not in saved.arms)],
            limit=max(saved.limit, plan.limit),
            seeds=max(saved.seeds, plan.seeds),
        )
    folder.mkdir(parents=True, exist_ok=True)
    saved_addresses = {name: without_credentials(getattr(merged, name)) for name in ADDRESSES}
    write_whole(folder / "bench.json", {"form": SCHEMA_VERSION, **known, **asdict(merged), **saved_addresses})
    (folder / "unfinished").mkdir(exist_ok=True)
    return merged


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def read_plan(folder: Path) -> Plan:
    """The plan of a folder's comparison; no key of this environment is sent to an address that it names alone.

    Raises:
        ValueError: the folder holds no comparison, or bench.json can't be read.
        ThreadMismatch: it was written by another version.
    """
    plan = Plan(**{name: value for name, value in _saved(folder).items() if name not in _MADE})
    addresses: Any = {name: FolderAddress(address) for name in ADDRESSES if (address := getattr(plan, name))}
    return replace(plan, **addresses)


def _saved(folder: Path) -> dict[str, Any]:
    path, names = folder / "bench.json", Plan.__dataclass_fields__
    return read_versioned(path, SCHEMA_VERSION, names, "comparison", [*_ADDED, *_MADE])


def saved_code_of(folder: Path) -> Code | None:
    """The fingerprints of a comparison's parts; None if an earlier version began it, which knew none."""
    code: Code | None = _saved(folder).get("code")
    return code


def id_of(folder: Path) -> str:
    """With what the names of a comparison's runs begin in a database.

    Raises:
        ValueError: its runs are not saved in one.
    """
    try:
        return str(_saved(folder)["id"])
    except KeyError:
        raise ValueError(f"the runs of {folder} are saved in the folder itself") from None


def _check_code(folder: Path, saved: Code, now: Code) -> None:
    """Raise if a part has other code than the runs that are there were made with."""
    changed = dict.fromkeys(part for arm, code in now.items() for part in edited(saved.get(arm, {}), code))
    if any("error" in row for row in read_results(folder).rows.values()):  # what made runs fail may be mended
        changed = {part: None for part in changed if part not in WRITERS}
    if changed:
        remedy = "give another folder, or what the runs there were made with"
        if changed.keys() & {"evaluator", "metric"}:
            again = command("rejudge", folder, "--out", "NEW")
            remedy += f"; or judge the saved answers again, without paying for new ones: {again}"
        raise ThreadMismatch(f"{folder} holds runs from before the {' and the '.join(changed)} was edited; {remedy}")
