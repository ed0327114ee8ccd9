"""Files that are complete or not there: JSON that states its schema version, and what is exported."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from icrl_graph.errors import ThreadMismatch


def write_whole(path: Path, values: Mapping[str, Any]) -> None:
    """Write a complete file of JSON or none."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a complete file or none."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    os.replace(unfinished, path)


def file_for(folder: Path, name: str, ending: str, taken: Collection[Path]) -> Path:
    """A file that is called as something else is, such as an arm, and is none of those that are taken."""
    path = folder / f"{re.sub(r'[^A-Za-z0-9.+=-]+', '_', name)}.{ending}"
    return path.with_name(f"{path.stem}-{len(taken)}.{ending}") if path in taken else path


def read_versioned(
    path: Path, schema_version: int, names: Collection[str], what: str, optional: Collection[str] = ()
) -> dict[str, Any]:
    """The values of a file.

    Args:
        path: the file.
        schema_version: the one that this package reads.
        names: the keys that it has, no more and no less.
        what: what its folder should hold, for the error.
        optional: keys, among the names or beside them, that it may lack or have.

    Raises:
        ValueError: there is no such file, or it can't be read.
        ThreadMismatch: it was written by another version.
    """
    try:
        stored = json.loads(path.read_bytes())  # in any Unicode: an editor may have put a mark ahead
        version = stored.pop("form")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path.parent} holds no {what}: there is no {path}") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} can't be read: {error!r}") from None
    if version != schema_version:
        raise ThreadMismatch(
            f"{path.parent} was written in schema version {version}, this package reads {schema_version}"
        )
    if unexpected := (set(stored) ^ set(names)) - set(optional):
        raise ValueError(f"{path} can't be read: it lacks or adds {', '.join(sorted(unexpected))}")
    values: dict[str, Any] = stored
    return values
