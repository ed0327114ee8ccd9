"""Arguments that are checked before anything is paid: the error names the argument, its value and what it may be."""

from __future__ import annotations

import inspect
from numbers import Integral, Real
from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_above_0(**numbers: Any) -> None:
    """Raise ValueError unless each is None or a number above 0."""
    for name, number in numbers.items():
        if number is not None and not (is_number(number) and number > 0):
            raise ValueError(f"{name} must be above 0, got {number!r:.80}")


def check_counts(**numbers: Any) -> None:
    """Raise ValueError unless each is a whole number from 1 that can be saved."""
    for name, number in numbers.items():
        is_whole = isinstance(number, Integral) and is_number(number)
        if not (is_whole and number < 2**63):
            raise ValueError(f"{name} must be a whole number below 2**63, got {number!r:.80}")
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, got {number!r}")


def check_function(name: str, function: Any, *arguments: str) -> None:
    """Raise ValueError unless it is None or a plain function that takes these arguments, by their places."""
    if function is None:
        return
    called = f"{name} is a plain function, called with {', '.join(arguments)}"
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f"{called}; got {function!r:.80}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some builtins nobody knows it
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{called}; of {getattr(function, '__name__', function)}{signature}: {error}") from None


def check_control(control: Any) -> None:
    """Raise ValueError unless it is None or what LangGraph ends runs by."""
    from langgraph.runtime import RunControl  # here: an isolated evaluator's worker needs no LangGraph

    if not isinstance(control, RunControl | None):
        raise ValueError(f"control is a langgraph.runtime.RunControl, got {control!r:.80}")
