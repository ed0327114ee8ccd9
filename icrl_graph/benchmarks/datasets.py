"""Rows of data sets as people have them: JSON lines, CSV, Parquet, and data sets of Hugging Face's hub.

    tasks.jsonl  tasks.csv  tasks.parquet
    hf:owner/name                 a data set of the hub with one configuration and one split
    hf:owner/name/config/split    any other
    tasks.csv?task=question,target=answer,id=number

What follows the question mark says from which columns tasks are made (`read_fields`). A data set of the hub is read by
its rows endpoint (https://huggingface.co/docs/dataset-viewer/rows), and kept with a checksum in the user's cache, so
that it is read once and stays what it was; where that fails, by the package `datasets`, if it is installed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.files import write_whole
from icrl_graph.errors import missing_extra

Row = Mapping[str, Any]
"""The cells of a row by their columns."""
Fields = Mapping[str, str]
"""By field of a task (task, id, or a key of its task data), the column that it is read from; empty: rows are tasks."""
Rows = Iterator[tuple[str, Row]]
"""Rows, each with its place for errors, such as "line 3"."""

HUB = "hf:"
ENDPOINT = "https://datasets-server.huggingface.co"
PAGE = 100
"""Rows of one request, the most that the endpoint gives."""
MOST_ROWS = 10_000
"""Of a data set that is read by the endpoint: more would be too many requests for it."""
TIMEOUT = 30.0
"""Seconds for one of them."""


def is_data_set(name: str) -> bool:
    """Whether a name is that of a data set."""
    source, _ = split_name(name)
    return source.startswith(HUB) or Path(source).suffix.lower() in _FORMATS


def split_name(name: str) -> tuple[str, Fields]:
    """The source and the fields of a name such as "tasks.csv?task=question".

    Raises:
        ValueError: what follows the question mark names no fields.
    """
    source, mark, told = name.rpartition("?")
    return (source, read_fields(told)) if mark else (name, {})


def with_fields(name: str, fields: str) -> str:
    """The name of a data set whose tasks are made from these columns.

    Raises:
        ValueError: it is no data set, or the fields have another form.
    """
    if not is_data_set(name):
        kinds = ", ".join(_FORMATS)
        raise ValueError(f"columns are those of a data set, a file ({kinds}) or hf:owner/name; {name!r} is none")
    read_fields(fields)
    return f"{name}?{fields}"


def read_fields(text: str) -> Fields:
    """The fields that a text such as "task=problem,target=answer,id=number" names.

    Args:
        text: on the left of each equals sign task, id, or the name that the cell has in the task data; on the right a
            column, or a path into one that holds objects, such as reward_model.ground_truth.

    Raises:
        ValueError: it has another form, names a field twice, or no task.
    """
    parts = (pair.partition("=") for pair in text.split(","))
    pairs = [(field.strip(), column.strip()) for field, _, column in parts]
    fields = dict(pairs)
    if not all(field and column for field, column in pairs) or len(fields) < len(pairs) or "task" not in fields:
        raise ValueError(
            "fields are named like task=problem,target=answer, each once and task among them: on the left task, id or "
            f"a key of the task data, on the right a column; got {text!r}"
        )
    return fields


def entry_of(row: Row, fields: Fields) -> Row:
    """The task that a row holds, an object with `task`, `task_data` and perhaps `id`.

    Raises:
        ValueError: there is no such column, or no value in it.
    """
    if not fields:
        return row
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is an object, with a value for each column, got {row!r:.80}")
    cells = {field: _cell(row, column) for field, column in fields.items()}
    top: dict[str, Any] = {field: cells.pop(field) for field in ("task", "id") if field in cells}
    return {**top, "task_data": cells}


def _cell(row: Row, column: str) -> Any:
    value: Any = row
    for name in [column] if column in row else column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise ValueError(f"no column {column!r}; there are {', '.join(map(str, row))}")
        value = value[name]
    if value is None or value == "":
        raise ValueError(f"the column {column!r} has no value")
    return value


def read_rows(source: str) -> Rows:
    """The rows of a data set.

    Args:
        source: a file, or "hf:owner/name".

    Raises:
        ValueError: it can't be read; says why, and what may help.
        OSError: there is no such file.
        MissingExtra: a package is missing that reads files of its kind.
    """
    if source.startswith(HUB):
        return ((f"row {number}", row) for number, row in enumerate(_of_hub(source), 1))
    return rows_of(Path(source))


def rows_of(path: Path) -> Rows:
    """The rows of a file, of JSON lines if its name ends otherwise; raises as `read_rows` does."""
    return _FORMATS.get(path.suffix.lower(), _json_lines)(path)


def _json_lines(path: Path) -> Rows:
    data = path.read_bytes()
    # in any Unicode, with or without a mark ahead; splitlines() would also split within a text
    for number, line in enumerate(data.decode(json.detect_encoding(data)).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: not JSON: {error}") from None
            yield f"line {number}", row


def _object(pairs: list[tuple[str, Any]]) -> Row:
    _check_once([name for name, _ in pairs])
    return dict(pairs)


def _check_once(columns: Sequence[str]) -> None:
    """Raise ValueError if two columns have one name: of their values, only one would be read."""
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise ValueError(f"{twice!r} stands twice among {', '.join(columns)}")


def _csv(path: Path) -> Rows:
    text = path.read_bytes().decode("utf-8-sig")
    csv.field_size_limit(
        max(csv.field_size_limit(), len(text))
    )  # a text may be longer than Python's 131,072 characters
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_once(reader.fieldnames or [])
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num}: as many cells as columns are needed: {reader.fieldnames}")
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: not CSV: {error}") from None


def _parquet(path: Path) -> Rows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise missing_extra("pyarrow, which reads .parquet,", "parquet") from None
    try:
        rows = read_table(path).to_pylist()
    except ArrowException as error:
        raise ValueError(f"not Parquet: {error}") from None
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


_FORMATS: Mapping[str, Callable[[Path], Rows]] = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}


# ------------------------------------------------------------------------------------------------------------- the hub


def kept_at(source: str) -> Path:
    """Where the rows of a data set of the hub are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "icrl_graph" / "datasets" / f"{source.removeprefix(HUB).replace('/', '--')}.json"


def _of_hub(source: str) -> list[Row]:
    form = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?:/([^/?#]+)/([^/?#]+))?", source.removeprefix(HUB))
    if form is None:
        raise ValueError(f"a data set of the hub is named hf:owner/name or hf:owner/name/config/split, got {source!r}")
    path = kept_at(source)
    if path.exists():
        return _kept(path)
    name, config, split = form.groups()
    try:
        rows = _by_endpoint(name, config, split)
    except ValueError as problem:
        if find_spec("datasets") is None:
            advice = "or download it and give the file; or pip install 'icrl-graph[datasets]'"
            raise ValueError(f"{problem}; {advice}") from None
        return _by_datasets(name, config, split, problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, {"source": source, "sha256": _checksum(rows), "rows": rows})
    return rows


def _checksum(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _kept(path: Path) -> list[Row]:
    try:
        kept = json.loads(path.read_bytes())
        rows: list[Row] = kept["rows"]
        is_whole = kept["sha256"] == _checksum(rows)
    except (ValueError, LookupError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path} is not what was read from the hub: delete it, and that is read again")
    return rows


def _by_endpoint(name: str, config: str | None, split: str | None) -> list[Row]:
    import httpx2  # here: most comparisons read no data set

    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx2.Client(base_url=ENDPOINT, timeout=TIMEOUT, headers=headers) as client:
        if config is None or split is None:
            config, split = _only_split(_told(client, "/splits", dataset=name), name)
        rows: list[Row] = []
        total = 1
        while len(rows) < total:
            part = {"dataset": name, "config": config, "split": split, "offset": len(rows), "length": PAGE}
            told = _told(client, "/rows", **part)
            page, total = _page(told)
            if total > MOST_ROWS:
                raise ValueError(f"{name} has {total} rows, and the hub's endpoint is asked for {MOST_ROWS} at most")
            if not page:
                raise ValueError(f"{name}: the hub has given {len(rows)} of its {total} rows")
            rows += page
    return rows


def _told(client: Any, path: str, **parameters: Any) -> Any:
    """What the endpoint says to a request.

    Raises:
        ValueError: it can't be reached, or answers with an error, or with something that is no JSON.
    """
    import httpx2

    name = parameters["dataset"]
    try:
        response = client.get(path, params=parameters)
    except httpx2.RequestError as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{name} can't be read from {ENDPOINT}: {reason}. It is kept once it was read") from None
    try:
        told = response.json()
    except (ValueError, RecursionError):
        told = None
    if response.status_code == 200 and isinstance(told, dict):
        return told
    words = told.get("error") if isinstance(told, dict) else f"no JSON but {response.text[:60]!r}"
    advice = {
        401: "; if it is private or gated, set HF_TOKEN",
        404: "; if it is private, set HF_TOKEN",
        429: f"; wait {response.headers.get('Retry-After', 'a few')} seconds and repeat",
    }.get(response.status_code, "")
    raise ValueError(f"{name}: the hub answers {response.status_code}, {words}{advice}")


def _only_split(told: Any, name: str) -> tuple[str, str]:
    try:
        splits = [(split["config"], split["split"]) for split in told["splits"]]
    except (LookupError, TypeError):
        raise ValueError(f"{name}: the hub gives no list of splits but {told!r:.80}") from None
    if len(splits) != 1:
        names = ", ".join(f"{HUB}{name}/{config}/{split}" for config, split in splits)
        raise ValueError(f"{name} has {len(splits)} splits; name one of {names}")
    return splits[0]


def _page(told: Any) -> tuple[list[Row], int]:
    try:
        total, cut = int(told["num_rows_total"]), [row for row in told["rows"] if row.get("truncated_cells")]
        rows = [row["row"] for row in told["rows"]]
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError(f"the hub gives no rows but {told!r:.80}") from None
    if cut:
        columns = ", ".join(cut[0]["truncated_cells"])
        raise ValueError(f"the hub has cut off {columns} of row {cut[0].get('row_idx')}: its cells are too long for it")
    return rows, total


def _by_datasets(name: str, config: str | None, split: str | None, problem: ValueError) -> list[Row]:
    """The rows by the package `datasets`, which has a cache of its own."""
    import datasets

    try:
        found = datasets.load_dataset(name, config, split=split)
        if split is None:
            (found,) = found.values()
        return list(found)
    except Exception as error:  # of many kinds, also of the clients beneath it
        reason = str(error).strip() or type(error).__name__
        raise ValueError(
            f"{problem}; and the package datasets: {reason:.300}; or download it and give the file"
        ) from None
