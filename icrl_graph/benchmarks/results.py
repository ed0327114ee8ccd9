"""The results of a comparison, in results.jsonl: a line for each run, with its answer and every attempt."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from typing_extensions import TypedDict

from icrl_graph.execution.folder_lock import lock_folder
from icrl_graph.prompts.text import as_json
from icrl_graph.state.checks import is_number
from icrl_graph.state.episode import Episode, Usage


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
    with _not_collecting():
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


@contextmanager
def _not_collecting() -> Iterator[None]:
    """Have Python look for no garbage: in rows there is none, and it would go through all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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


def _is_score(value: Any) -> bool:
    return value is None or is_number(value)


def _is_episode(value: Any) -> bool:
    if not (isinstance(value, dict) and all(isinstance(value.get(name), int) for name in ("round", "candidate"))):
        return False
    parts = [value.get(name) for name in ("plan", "reward", "shown", "costs")]
    return all(isinstance(part, dict) for part in parts) and _is_score(value["reward"].get("value"))


_TEXT = (lambda value: isinstance(value, str), "a text")
_SCORE = (_is_score, "a number or null")
_USAGE = (lambda value: isinstance(value, dict) and all(map(is_number, value.values())), "numbers by name")
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
        lock_folder(file, folder)
        if file.tell() and not _ends_a_line(file):
            file.write(b"\n")
        yield file


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


def answer_as_text(row: Row) -> str:
    """The answer of a run that has ended; one with a form as JSON, empty where there is none."""
    answer = row["answer"]
    return "" if answer is None else answer if isinstance(answer, str) else as_json(answer)


def has_ended(rows: Mapping[Cell, Row], cell: Cell) -> bool:
    """Whether a run's result is there."""
    return cell in rows and "error" not in rows[cell]
