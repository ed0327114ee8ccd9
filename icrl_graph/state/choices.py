"""Parts by name: one of a list, or an object by its import path. The one module that imports by string."""

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
        ValueError: there is none; names the choices.
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


def absolute(spec: str) -> str:
    """A spec for `load` with its file, if it names one, as an absolute path, so that it holds in any folder."""
    where, colon, name = spec.rpartition(":")
    return f"{Path(where).resolve()}:{name}" if colon and where.endswith(".py") else spec


def _from_path(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module_name = f"icrl_graph_loaded.{path.stem}_{abs(hash(path.resolve())):x}"
    found = importlib.util.spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # a file may import its neighbours, as under `python path.py`
    found.loader.exec_module(module)
    return module
