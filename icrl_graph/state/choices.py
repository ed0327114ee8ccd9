"""Parts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Part = TypeVar("Part")


def pick(kind: str, name: str, parts: Mapping[str, Part]) -> Part:
    """The part of that name.

    Raises:
        ValueError: there is none; names the choices.
    """
    if not isinstance(name, str) or name not in parts:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(map(repr, parts))}")
    return parts[name]
