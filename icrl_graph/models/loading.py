"""Objects and models by name: "path.py:name", "module:name", "provider:name". The one place that imports by string."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from icrl_graph.models.registry import chat_model


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
    found = importlib.util.spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # a file may import its neighbours, as under `python path.py`
    found.loader.exec_module(module)
    return module


def load_model(name: str, *, base_url: str | None = None, **options: Any) -> Any:
    """A model by name: "provider:name", with options as for `chat_model`, or "path.py:name" or "module.name:object".

    Raises:
        ValueError: there is none of that name.
    """
    where, _, attribute = name.rpartition(":")
    if "." in where and attribute.isidentifier():  # a file or a module; no provider has a dot in its name
        return load(name)
    return chat_model(name, base_url=base_url, **options)
