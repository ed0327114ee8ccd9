"""Parts by name: those that are shipped, and custom ones by path, module or entry point; and what a part is called.

A name is one of the shipped ones, some of them with a number, as "last:5"; or "path.py:name" or "module:name" of an
object that is imported; or the name of an entry point that an installed package declares, in the group of its kind:
icrl_graph.topologies, icrl_graph.memories, icrl_graph.schedules, icrl_graph.spreads, icrl_graph.layouts,
icrl_graph.ablations, icrl_graph.stops, icrl_graph.benchmarks, icrl_graph.models, icrl_graph.evaluators,
icrl_graph.credits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, TypeVar

from icrl_graph.state.loading import load

Part = TypeVar("Part")


class Number(NamedTuple):
    """The number after the colon of a name such as "last:5"."""

    symbol: str
    """For it in a list of choices, as in "last:N"."""
    pattern: str
    read: Callable[[str], Any]
    range: str


INTEGER = Number("N", r"0*[1-9][0-9]*", int, "N an integer from 1")
SHARE = Number("P", r"0?\.[0-9]+|[01](\.0*)?", float, "P from 0 to 1")
POSITIVE_SHARE = Number("P", r"(?=.*[1-9])(0?\.[0-9]+|1(\.0*)?)", float, "P above 0 and at most 1")
REAL = Number("X", r"-?[0-9]+(\.[0-9]+)?", float, "X a number")

Numbered = Mapping[str, tuple[Callable[[Any], Part], Number]]
"""By name: what makes the part of a number, and which numbers there are."""


def pick(kind: str, name: str, parts: Mapping[str, Part]) -> Part:
    """The part of that name, where there are no custom ones.

    Raises:
        ValueError: there is none of that name; lists the choices.
    """
    if not isinstance(name, str) or name not in parts:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(map(repr, parts))}")
    return parts[name]


def choices(shipped: Iterable[str], numbered: Numbered[Any] | None = None) -> tuple[str, ...]:
    """The shipped names, as in "all", "last:N"."""
    return (*shipped, *(f"{name}:{number.symbol}" for name, (_, number) in (numbered or {}).items()))


def find(
    kind: str, spec: Any, shipped: Mapping[str, Part], numbered: Numbered[Part] | None = None, *, imports: bool = True
) -> Part:
    """The part that a name stands for, or the part itself where that is handed over.

    Args:
        kind: such as "memory".
        spec: a name as described at the top of this module, or anything that is not text.
        shipped: the parts that need no number.
        numbered: those that take one.
        imports: whether code may be imported by path. Not where the name may come from elsewhere, such as over HTTP.

    Raises:
        ValueError: there is no such part, its number is out of range, or importing it failed; names the choices.
    """
    if not isinstance(spec, str):
        return spec  # type: ignore[no-any-return]
    if spec in shipped:
        return shipped[spec]
    name, _, number = spec.partition(":")
    if numbered and name in numbered:
        make, accepted = numbered[name]
        if re.fullmatch(accepted.pattern, number):
            return make(accepted.read(number))
    elif names_an_object(spec):
        if not imports:
            raise ValueError(f"a run imports no code: name the custom {kind} {spec!r} where the graph is built")
        return load(spec)  # type: ignore[no-any-return]
    elif point := _entry_points(kind).get(spec):
        try:
            return point.load()  # type: ignore[no-any-return]
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"the {kind} {spec!r} of an installed package can't be loaded: {reason}") from error
    ranges = dict.fromkeys(accepted.range for _, accepted in (numbered or {}).values())
    names = ", ".join([*choices(shipped, numbered), *_entry_points(kind)])
    limits = f", with {', '.join(ranges)}" if ranges else ""
    choice = f"choose one of {names}{limits}, or name a custom one" if names else "name it"
    raise ValueError(f"unknown {kind} {spec!r}; {choice} as path.py:name or module:name")


def names_an_object(spec: str) -> bool:
    """Whether a name has the form of "path.py:name" or "module:name"."""
    where, _, attribute = spec.rpartition(":")
    return bool(where) and attribute.isidentifier()


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return {point.name: point for point in entry_points(group=f"icrl_graph.{plural}")}


def installed(kind: str) -> tuple[str, ...]:
    """The names of the entry points of a kind."""
    return tuple(_entry_points(kind))


def unbound(part: Any) -> Any:
    """A Runnable without the arguments that are bound to it."""
    if not hasattr(part, "invoke"):
        return part
    from langchain_core.runnables import RunnableBinding  # here: an isolated evaluator's worker needs no LangChain

    while isinstance(part, RunnableBinding):
        part = part.bound
    return part


def name_of_part(part: Any) -> str:
    """The name of a model or an evaluator, as a saved run holds it."""
    part = unbound(part)
    names = (getattr(part, attribute, None) for attribute in _NAME_ATTRIBUTES)
    return next((name for name in names if isinstance(name, str) and name), type(part).__qualname__)


_NAME_ATTRIBUTES = ("model_name", "model", "model_id", "name", "__qualname__")
"""Where chat models, Runnables, evaluators and functions have their names; the first that is set counts."""
