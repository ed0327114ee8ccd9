"""JSON files that say by their form which version wrote them, and are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from icrl_graph.errors import ThreadMismatch


def write_whole(path: Path, values: Mapping[str, Any]) -> None:
    """Write a whole file or none."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace")
    os.replace(unfinished, path)


def read_versioned(path: Path, form: int, names: Collection[str], what: str) -> dict[str, Any]:
    """The values of a file.

    Args:
        path: the file.
        form: its form, as this version writes it.
        names: what it holds, no more and no less.
        what: what its folder should hold, for the error.

    Raises:
        ValueError: there is no such file, or it can't be read.
        ThreadMismatch: it was written by another version.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = stored.pop("form")
    except FileNotFoundError:
        raise ValueError(f"{path.parent} holds no {what}: there is no {path}") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} can't be read: {error!r}") from None
    if found != form:
        raise ThreadMismatch(f"{path.parent} was written in form {found}, this package reads {form}")
    if strange := set(stored) ^ set(names):
        raise ValueError(f"{path} can't be read: it lacks or adds {', '.join(sorted(strange))}")
    values: dict[str, Any] = stored
    return values
