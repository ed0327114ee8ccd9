"""What a part is, beside its name: a fingerprint of the code of functions, so that an edited one is noticed.

It is made of the bytecode: so it is the same in every process, for a function that is defined again without a change,
and whatever comments and line breaks stand in it. In it are constants, defaults, the functions and classes of the same
module that it uses, and the plain values that it finds in its closure and in the globals of its module. What changes
while a program runs is left out: lists, objects, and names that the code itself binds again.

Parts of this package have none: they are known by their names. Nor has what is not made of functions, such as a chat
model. Bytecode differs between versions of Python, so fingerprints of two versions are not compared.
"""

from __future__ import annotations

import dis
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from icrl_graph.state.choices import name_of_part, unbound

_PACKAGE = __name__.partition(".")[0]
_PYTHON = str(sys.implementation.cache_tag)
_PLAIN = "plain"
_PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, type(...))
_HOLDERS = ("part", "reply", "func", "afunc", "coroutine", "bound", "steps", "steps__")
"""Where evaluators, models, Runnables, tools and decorated functions hold the functions that they are made of."""
_FUNCTION_FLAGS = 0xFFFF
"""Of a code's flags: not those of its docstring and of imports from `__future__`."""
_SILENT = ("NOP", "EXTENDED_ARG", "CACHE")
"""Instructions that depend on line breaks, or do nothing."""
_OF_A_CLASS = ("__doc__", "__qualname__", "__firstlineno__", "__static_attributes__")
"""What the body of a class sets that is not its code."""


def fingerprint(part: Any) -> str | None:
    """The fingerprint of a function, or of what is made of functions; None where there is no code to be known by."""
    try:
        known = _Known().of(part)
        return None if known is None else f"{_PYTHON}:{_digest(repr(known))}"
    except Exception:  # an object may do anything when it is looked at
        return None


def fingerprint_of_value(value: Any) -> str:
    """The fingerprint of an option: of its code where it has some, else of its value as JSON."""
    schema = getattr(value, "model_json_schema", None)
    if schema is None and (code := fingerprint(value)) is not None:
        return code
    plain = value if schema is None else schema()
    return f"value:{_digest(json.dumps(plain, sort_keys=True, default=name_of_part))}"


def differ(saved: str | None, now: str | None) -> bool:
    """Whether two fingerprints are of different things, as far as they can be compared."""
    kinds = {fingerprint.partition(":")[0] for fingerprint in (saved, now) if fingerprint is not None}
    return saved != now and len(kinds - {"value"}) <= 1


def edited(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of the parts that have other code than was saved; one without a fingerprint counts as the same."""
    return [name for name, code in now.items() if name in saved and differ(saved[name], code)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


class _Known:
    """Walks through what a part is made of, each function and class once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def of(self, part: Any) -> Any:
        """What is known of a part, as nested tuples; None if there is nothing."""
        part = unbound(part)
        if isinstance(part, FunctionType):
            return self._once(part, self._function)
        if isinstance(part, MethodType):
            return self._all([part.__func__, type(part.__self__)])
        if isinstance(part, partial):
            return self._all([part.func, *part.args, *part.keywords.items()])
        if isinstance(part, list | tuple | Mapping):
            return self._all(part.values() if isinstance(part, Mapping) else part)
        if isinstance(part, type):
            return self._once(part, self._class)
        if "__wrapped__" in getattr(part, "__dict__", ()):
            return self.of(part.__wrapped__)
        kind = type(part)
        names = [name for name in _HOLDERS if name in getattr(part, "__dict__", ()) or hasattr(kind, name)]
        called = isinstance(getattr(kind, "__call__", None), FunctionType) and not hasattr(part, "invoke")  # noqa: B004
        return self._all([*(getattr(part, name) for name in names), *([kind, *_frozen(part)] if called else [])])

    def _once(self, part: Any, look: Callable[[Any], Any]) -> Any:
        if id(part) in self._seen:
            return "again"
        self._seen.add(id(part))
        return look(part)

    def _all(self, parts: Iterable[Any]) -> Any:
        """What is known of several; None if none of them has code."""
        found = [_plain(part) or self.of(part) for part in parts]
        return tuple(found) if any(each and each[0] != _PLAIN for each in found) else None

    def _function(self, function: FunctionType) -> Any:
        cells = dict(_cells(function))
        if _is_shipped(function):
            return self._all(cells.values())
        around = [*cells.items(), *enumerate(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        values = tuple((name, self._value(value)) for name, value in around)
        return _code(function.__code__), values, tuple(self._globals(function))

    def _value(self, value: Any) -> Any:
        """What is known of a value that a function finds around it; of lists and the like, which change, nothing."""
        return _plain(value) or (None if isinstance(value, list | Mapping) else self.of(value))

    def _globals(self, function: FunctionType) -> Iterator[tuple[str, Any]]:
        """What a function uses of its own module."""
        scope = function.__globals__
        for name in sorted(_names(function.__code__, "LOAD_GLOBAL", "LOAD_NAME") & scope.keys()):
            value = scope[name]
            if plain := _plain(value):
                if not _bound_again(name, scope):
                    yield name, plain
            elif getattr(value, "__module__", None) == function.__module__:
                yield name, self._value(value)

    def _class(self, kind: type) -> Any:
        if _is_shipped(kind):
            return None
        held = ((name, getattr(each, "__func__", getattr(each, "fget", each))) for name, each in vars(kind).items())
        functions = [(name, self.of(each)) for name, each in held if isinstance(each, FunctionType)]
        plain = [(name, value) for name, each in vars(kind).items() if name[:2] != "__" and (value := _plain(each))]
        return tuple(functions), tuple(plain)


def _is_shipped(part: Any) -> bool:
    return str(part.__module__).partition(".")[0] == _PACKAGE


def _frozen(part: Any) -> list[Any]:
    """The values of an object that says that they never change."""
    return list(vars(part).values()) if getattr(getattr(part, "__dataclass_params__", None), "frozen", False) else []


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The closure of a function by name, but for what it binds again."""
    bound_again = _names(function.__code__, "STORE_DEREF")
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            if name not in bound_again:
                yield name, cell.cell_contents


def _plain(value: Any) -> Any:
    """A value that can't change, in a form that is the same in every process; None for any other."""
    if type(value) in (tuple, frozenset):
        held = [_plain(each) for each in value]
        if None in held:
            return None
        return _PLAIN, type(value).__name__, tuple(held if isinstance(value, tuple) else sorted(held, key=repr))
    return (_PLAIN, type(value).__name__, repr(value)) if type(value) in _PLAIN_TYPES else None


def _code(code: CodeType) -> Any:
    """What a code does, without names of files, numbers of lines, and what follows from line breaks."""
    instructions = [each for each in dis.get_instructions(code) if each.opname not in _SILENT]
    place, at = {}, 0
    for offset in range(0, len(code.co_code) + 2, 2):  # of what is left out, the place of what comes next
        while at < len(instructions) and instructions[at].offset < offset:
            at += 1
        place[offset] = at
    jumps = {*dis.hasjrel, *dis.hasjabs}
    steps: list[Any] = []
    for each in instructions:
        value = each.argval
        if each.opcode in jumps:
            steps.append((each.opname, place[value]))
        elif isinstance(value, tuple) and "FAST" in each.opname:  # two in one, where both stand on one line
            steps += zip(re.findall("(?:LOAD|STORE)_FAST", each.opname), value, strict=False)
        elif each.opname == "STORE_NAME" and value in _OF_A_CLASS:
            steps[-1:] = []
        else:
            name = re.sub("_FAST_.*", "_FAST", each.opname)
            steps.append((name, _code(value) if isinstance(value, CodeType) else _plain(value) or str(value)))
    guarded = [
        (place[each.start], place[each.end], place[each.target], each.depth, each.lasti)
        for each in getattr(dis.Bytecode(code), "exception_entries", ())
    ]
    taken = code.co_argcount + code.co_kwonlyargcount
    form = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FUNCTION_FLAGS)
    return form, code.co_varnames[:taken], tuple(steps), tuple(guarded)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A code, and those within it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _names(code: CodeType, *instructions: str) -> set[str]:
    """The names that some instructions of a code, or of one within it, are about."""
    every = (each for inner in _codes(code) for each in dis.get_instructions(inner))
    return {str(each.argval) for each in every if each.opname in instructions}


def _bound_again(name: str, scope: Mapping[str, Any]) -> bool:
    """Whether a function of a module binds a global of it while the program runs."""
    codes = (each.__code__ for each in list(scope.values()) if isinstance(each, FunctionType))
    naming = (code for code in codes if any(name in inner.co_names for inner in _codes(code)))
    return any(name in _names(code, "STORE_GLOBAL") for code in naming)
