"""Objects by path: "path.py:name" and "module:name", imported."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

LOADED = "icrl_graph_loaded_"
"""How the name of a module begins that was loaded from a file; no other process can import it by that name."""
_LOADING = threading.RLock()
_may_import = ContextVar("icrl_may_import", default=True)


class NotImported(Exception):
    """An object was named by path where nothing is imported: no mistake, so no ValueError."""


@contextmanager
def importing_nothing(unless: bool = False) -> Iterator[None]:
    """Refuse to import objects by path within the block: the names come from a folder that may be a stranger's.

    Args:
        unless: whether the folder is trusted, and nothing is refused.
    """
    token = _may_import.set(unless)
    try:
        yield
    finally:
        _may_import.reset(token)


def load(spec: str) -> Any:
    """Import an object. A file is imported once, and again after it has changed.

    Args:
        spec: "path/to/file.py:name" or "package.module:name". A file may import its neighbours, once each, unless
            another module of that name is installed or was loaded from another folder.

    Raises:
        ValueError: the form is wrong, there is no such file, module or name, or importing it failed; says which.
        NotImported: within `importing_nothing`.
    """
    if not _may_import.get():
        raise NotImported(f"{spec!r} is code that was not imported")
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


def absolute(spec: Any) -> Any:
    """A name "path.py:name" or "local:path.gguf" with an absolute path, so that it holds anywhere; else as it is."""
    where, _, name = spec.rpartition(":") if isinstance(spec, str) else ("", "", "")
    if where == "local" and name.endswith(".gguf"):
        return f"{where}:{Path(name).expanduser().resolve()}"
    return f"{Path(where).resolve()}:{name}" if where.endswith(".py") else spec


def path_of(part: Any) -> str | None:
    """The name by which `load` finds a function or another object that knows its module; None where there is none."""
    name, module = getattr(part, "__qualname__", ""), sys.modules.get(getattr(part, "__module__", ""))
    if module is None or getattr(module, name, None) is not part:
        return None
    return f"{module.__file__ if module.__name__.startswith(LOADED) else module.__name__}:{name}"


def _from_path(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with _LOADING:  # threads that load it at the same time get the same module
        return _imported(path.resolve(), path.stat().st_mtime_ns)


@lru_cache
def _imported(path: Path, changed: int) -> Any:
    """The module of a file, as of when it was last changed."""
    name = f"{LOADED}{path.stem}_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)
    _check_neighbours(path)
    spec.loader.exec_module(module)
    return module


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time: saved bytecode knows whole seconds, and so hides an edit within one."""

    def path_stats(self, path: Any) -> Any:
        """None: so bytecode is neither read nor written."""
        raise OSError(f"the bytecode of {path} is not used")


def _check_neighbours(path: Path, checked: frozenset[Path] = frozenset()) -> None:
    """Raise where an import of a file, or of its neighbours, would not give the neighbour that it means.

    Raises:
        ImportError: a module of that name is installed, or was loaded from another folder.
    """
    for top in _imported_names(path):
        neighbour = next((each for each in _files_of(path.parent, top) if each.is_file()), None)
        if neighbour is None or neighbour in checked or neighbour == path or top == "icrl_graph":
            continue
        module = sys.modules.get(top)
        found = getattr(module, "__file__", None) if module else getattr(importlib.util.find_spec(top), "origin", None)
        if found is None or Path(found).resolve() != neighbour.resolve():
            raise ImportError(
                f"{path.name} imports {top!r}, which is {found or 'built in'} here and not {neighbour}: rename the one "
                "in this folder"
            )
        _check_neighbours(neighbour, checked | {path, neighbour})


def _imported_names(path: Path) -> Iterator[str]:
    """The first parts of the names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files_of(folder: Path, name: str) -> tuple[Path, Path]:
    """The files in which a folder may have a module: as a package, or as a file."""
    return folder / name / "__init__.py", folder / f"{name}.py"
