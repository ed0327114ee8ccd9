"""Which keyword arguments a function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
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
    return offered_names(names, required, offered, what)


def offered_names(names: Collection[str], required: set[str], offered: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Which of the offered arguments are among some names.

    Args:
        names: of the arguments that can be passed.
        required: those without which it can't be called.
        offered: names of the arguments that there are.
        what: what to call it in an error.

    Raises:
        ValueError: a required argument is not offered, or can't be passed by name.
    """
    if unknown := required - (set(names) & set(offered)):
        raise ValueError(
            f"the {what} asks for {', '.join(map(repr, sorted(unknown)))}; it is called with the arguments that it "
            f"names among {', '.join(offered)}"
        )
    return tuple(name for name in offered if name in names)
