"""Models by name, and functions as chat models. Names are loaded when they are first used, as in `icrl_graph`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.models.function import FunctionModel
    from icrl_graph.models.registry import chat_model, load_model

_HOME = {"FunctionModel": "function", "chat_model": "registry", "load_model": "registry"}

__all__ = ["FunctionModel", "chat_model", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
