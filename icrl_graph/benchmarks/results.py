"""A comparison saved in a folder.

DIR/bench.json       its plan: enough to resume it; never a key or a password
DIR/results.jsonl    a line for each run: its answer, its rewards, every attempt
DIR/unfinished/      checkpoints and journals of the runs that have not ended
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from typing_extensions import TypedDict

from icrl_graph.benchmarks.files import read_versioned, write_whole
from icrl_graph.errors import ThreadMismatch
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models.addresses import FolderAddress, without_credentials
from icrl_graph.models.registry import load_model
from icrl_graph.state.episode import Episode, Usage
from icrl_graph.state.fingerprint import edited
from icrl_graph.state.formatting import command
from icrl_graph.topologies.options import at_temperature

SCHEMA_VERSION = 1
"""Of bench.json and results.jsonl."""


class Cell(NamedTuple):
    """One run of a comparison."""

    arm: str
    item: str
    seed: int


class Row(TypedDict, total=False):
    """The result of one run, as a line of results.jsonl."""

    arm: str
    item: str
    seed: int
    error: str
    """Why it failed; then the row has no result, only what it has cost."""
    task: str | list[dict[str, Any]]
    task_data: dict[str, Any]
    answer: Any
    reward: float | None
    metric: float | None
    regret: float | None
    rewarded_by: str
    stopped: str
    usage: Usage
    episodes: list[Episode]
    chosen: list[int | None]
    """After each attempt, the place of the one so far that gave the answer."""
    made: dict[str, Any]
    """By what: names and fingerprints of its parts and options; absent from what an earlier version began."""


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
    """What selects the answer: reward, majority or last; None for each arm's own selection."""


@dataclass(frozen=True)
class Plan:
    """A comparison, in names and numbers. A name may also be "python:NAME", of an object that no folder can hold.

    Attributes:
        benchmark: a name, "path.py:name" of a `Benchmark`, or a .jsonl file.
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
        call_timeout: seconds for one attempt, of a model named "openai:...".
        total_usd: US dollars for all runs together, or None. A comparison that has spent them is resumed with more.
        total_calls: paid calls, the same.
        total_seconds: seconds by the clock that the comparison may take, the same.
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

    def caps(self) -> dict[str, float]:
        """The caps on all runs together, as a budget names them.

        Raises:
            ValueError: one is not above 0.
        """
        named = {"usd": self.total_usd, "calls": self.total_calls, "time": self.total_seconds}
        caps = {name: cap for name, cap in named.items() if cap is not None}
        for name, cap in caps.items():
            if not 0 < cap < math.inf:
                raise ValueError(f"{TOTALS[name]} must be a finite number above 0, got {cap}")
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
        same_server = judge.partition(":")[0] in ("openai", self.model.partition(":")[0])
        return self._load(judge, self.judge_base_url or (self.base_url if same_server else None))

    def _load(self, model: str, base_url: str | None) -> Any:
        options = {"max_retries": 0, "timeout": self.call_timeout} if model.startswith("openai:") else {}
        return load_model(model, base_url=base_url, **options)

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


_MADE = ("code", "began")
"""What bench.json holds beside the plan: by what its runs are made (`Code`), and since when, in ISO 8601."""
WRITERS = ("model", "reflector", "critic")
"""Parts that a run which has failed may be repeated with other ones of."""
Code = Mapping[str, Mapping[str, str]]
"""By arm, the fingerprints of its parts by their names."""
_MAY_GROW = ("arms", "limit", "seeds")
"""Fields that set which runs there are, not what a run is."""
TOTALS: Mapping[str, str] = {"usd": "total_usd", "calls": "total_calls", "time": "total_seconds"}
"""Fields that cap all runs together, by the name of the cap."""
ADDRESSES = ("base_url", "judge_base_url")
"""Fields that say where calls are made."""
_MAY_CHANGE = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "attempts",
    "call_timeout",
    *ADDRESSES,
    *TOTALS.values(),
)
"""Fields that set how fast calls are made, where, and how many of them now."""
_ADDED = ("judge_base_url", *TOTALS.values())
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
        ThreadMismatch: it holds another comparison, one with other code, or one of another version.
    """
    known: dict[str, Any] = (
        {} if code is None else {"code": code, "began": datetime.now(UTC).isoformat(timespec="seconds")}
    )
    if not (folder / "bench.json").exists():
        if folder.exists() and (not folder.is_dir() or any(file.name != "bench.tmp" for file in folder.iterdir())):
            raise ValueError(f"{folder} is not an empty folder; give another one")
        merged = plan
    else:
        saved = read_plan(folder)
        fixed = [name for name in Plan.__dataclass_fields__ if name not in (*_MAY_GROW, *_MAY_CHANGE)]
        pairs = [(name, getattr(saved, name), _plain(getattr(plan, name))) for name in fixed]
        if changed := [f"{name} {before!r} -> {after!r}" for name, before, after in pairs if _plain(before) != after]:
            raise ThreadMismatch(f"{folder} holds another comparison ({', '.join(changed)}); give another folder")
        saved_code = saved_code_of(folder)
        _check_code(folder, saved_code or {}, code or {})
        known = {} if saved_code is None else {**_saved(folder), "code": {**saved_code, **(code or {})}}
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


class Results(NamedTuple):
    """The results in a folder."""

    rows: dict[Cell, Row]
    """The latest of each run."""
    damaged: list[int]
    """The lines of results.jsonl, from 1, that can't be read: their runs are repeated."""


def read_results(folder: Path) -> Results:
    """The runs that have ended or failed so far; a line that can't be read is skipped and reported."""
    return _read(folder, lambda number, problem: None)


def checked_results(folder: Path) -> Results:
    """`read_results`, for who pays for what is missing, or shows what is there.

    Raises:
        ValueError: a line is neither a whole row nor one whose writing was broken off, so somebody has edited the file.
    """

    def refuse(number: int, problem: str) -> None:
        raise ValueError(
            f"{folder / 'results.jsonl'}, line {number}: {problem}. A line is the row of a run, as it was written: put "
            "the file back; or delete the line, and its run is paid again"
        )

    return _read(folder, refuse)


def _read(folder: Path, refuse: Callable[[int, str], None]) -> Results:
    rows: dict[Cell, Row] = {}
    damaged = []
    path = folder / "results.jsonl"
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else [], 1):
        if not line.strip():
            continue
        try:
            row: Row = json.loads(line)
            rows[Cell(row["arm"], row["item"], row["seed"])] = row
            problem = wrong_in_row(row)
        except (ValueError, KeyError, TypeError):
            damaged.append(number)
            problem = _broken_off(line)
        if problem is not None:
            refuse(number, problem)
    return Results(rows, damaged)


_BEGINNING = b'{"arm": '
"""Of a row, as `append` writes it."""


def _broken_off(line: bytes) -> str | None:
    """What is wrong with a line that can't be read; None if its writing was broken off, as in a crash."""
    text = line.rstrip(b"\0")  # that a file system puts where a power cut has lost what was written
    if not text.startswith(_BEGINNING):
        return None if _BEGINNING.startswith(text) else f"{text[:40]!r} is not the beginning of a row"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        at_the_end = error.pos >= len(error.doc) - len("-Infinity") or error.msg.startswith("Unterminated string")
        return None if at_the_end else str(error)
    except UnicodeDecodeError as error:
        return None if error.start >= len(text) - len("\u2028".encode()) else str(error)
    return "it does not name its arm, item and seed"


def wrong_in_row(row: Row) -> str | None:
    """What is wrong with a row, such as a reward that is a text; None if nothing is."""
    values: Mapping[str, Any] = row
    wanted = {"usage": _USAGE, "error": _TEXT} if "error" in row else _ENDED
    for name, (valid, form) in wanted.items():
        if name not in values:
            return f"{name!r} is missing"
        if not valid(values[name]):
            return f"{name!r} should be {form}, got {values[name]!r:.80}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_episode(value: Any) -> bool:
    if not (isinstance(value, dict) and all(isinstance(value.get(name), int) for name in ("round", "candidate"))):
        return False
    parts = [value.get(name) for name in ("plan", "reward", "shown", "costs")]
    return all(isinstance(part, dict) for part in parts) and _is_score(value["reward"].get("value"))


_TEXT = (lambda value: isinstance(value, str), "a text")
_SCORE = (_is_score, "a number or null")
_USAGE = (lambda value: isinstance(value, dict) and all(map(_is_number, value.values())), "numbers by name")
_ENDED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "task": (lambda value: isinstance(value, str | list), "a text or messages"),
    "task_data": (lambda value: isinstance(value, dict), "values by name"),
    "reward": _SCORE,
    "metric": _SCORE,
    "regret": _SCORE,
    "rewarded_by": _TEXT,
    "stopped": _TEXT,
    "usage": _USAGE,
    "episodes": (lambda value: isinstance(value, list) and all(map(_is_episode, value)), "the attempts, each whole"),
    "chosen": (
        lambda value: isinstance(value, list) and all(each is None or isinstance(each, int) for each in value),
        "places of attempts",
    ),
}
"""What the row of a run that has ended must have: whether a value is right, and what it should be."""


@contextmanager
def appending(folder: Path) -> Iterator[IO[bytes]]:
    """Open results.jsonl for `append`; a line that a crash left partly written there is ended first.

    Raises:
        BlockingIOError: another process works in the folder.
    """
    with (folder / "results.jsonl").open("ab+") as file:
        _lock(file, folder)
        if file.tell() and not _ends_a_line(file):
            file.write(b"\n")
        yield file


def _lock(file: IO[bytes], folder: Path) -> None:
    """Keep other processes out until the file is closed, where the system supports it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"another process works in {folder}; wait for it, or give another folder") from None


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def append(file: IO[bytes], row: Row) -> None:
    """Add a row; it is durable when this returns."""
    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    file.flush()
    os.fsync(file.fileno())


def row_of(cell: Cell, inputs: Mapping[str, Any], values: Mapping[str, Any], chosen: Sequence[int | None]) -> Row:
    """The row of a run that has ended."""
    names = ("answer", "reward", "metric", "regret", "rewarded_by", "stopped", "usage", "episodes")
    made = {"made": {name: of for name, of in values["made"].items() if name != "at"}} if values.get("made") else {}
    row: Any = {**cell._asdict(), **inputs, **{name: values[name] for name in names}, "chosen": list(chosen), **made}
    return cast(Row, row)


def failure(cell: Cell, reason: str, usage: Usage | None = None) -> Row:
    """The row of a run that failed."""
    return Row(arm=cell.arm, item=cell.item, seed=cell.seed, error=reason, usage=usage or {})


def has_ended(rows: Mapping[Cell, Row], cell: Cell) -> bool:
    """Whether a run's result is there."""
    return cell in rows and "error" not in rows[cell]
