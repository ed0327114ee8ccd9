"""Which keyword arguments a function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from typing import Any


def accepted_names(function: Callable[..., Any], offered: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Which of the offered keyword arguments a function takes.

    Args:
        function: the function.
        offered: names of the arguments that it may take.
        what: what to call the function in an error.

    Raises:
        ValueError: it needs an argument that is not offered, takes one by position only, or its signature is unknown.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ValueError(f"the signature of the {what} {function!r} can't be read; wrap it in a function") from None
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    required = {name for name, p in named.items() if p.default is p.empty}
    names = {name for name, p in named.items() if p.kind is not p.POSITIONAL_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= set(offered)
    return names_among(offered, names, required, what)


def names_among(offered: tuple[str, ...], names: Container[str], required: set[str], what: str) -> tuple[str, ...]:
    """Which of the offered keyword arguments are among the names that something takes.

    Raises:
        ValueError: it requires one that is not offered, or that it does not take by name.
    """
    if unknown := sorted(name for name in required if name not in offered or name not in names):
        raise ValueError(
            f"the {what} asks for {', '.join(map(repr, unknown))}; it is called with the arguments that it "
            f"names among {', '.join(offered)}"
        )
    return tuple(name for name in offered if name in names)
