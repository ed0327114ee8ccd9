"""Parts by name: one of a list, or an object by its import path; and what a part is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

Part = TypeVar("Part")


def pick(kind: str, name: str, parts: Mapping[str, Part]) -> Part:
    """The part of that name.

    Raises:
        ValueError: there is none of that name; lists the choices.
    """
    if not isinstance(name, str) or name not in parts:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(map(repr, parts))}")
    return parts[name]


def load(spec: str) -> Any:
    """Import an object.

    Args:
        spec: "path/to/file.py:name" or "package.module:name".

    Raises:
        ValueError: the form is wrong, there is no such file, module or name, or importing it failed; says which.
    """
    where, colon, name = spec.rpartition(":")
    if not (colon and where and name):
        raise ValueError(f"an object is named 'path.py:name' or 'package.module:name', got {spec!r}")
    try:
        module = _from_path(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{spec!r} can't be loaded: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise ValueError(f"{where} has no {name!r}; it has {', '.join(public) or 'nothing'}")
    return getattr(module, name)


def _from_path(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module_name = f"icrl_graph_loaded.{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # a file may import its neighbours, as under `python path.py`
    spec.loader.exec_module(module)
    return module


def unbound(part: Any) -> Any:
    """A Runnable without the arguments that are bound to it."""
    if not hasattr(part, "invoke"):
        return part
    from langchain_core.runnables import RunnableBinding  # not above: isolation's workers load this module, too

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
