"""How calls are made, counted, saved and retried. Names are loaded when they are first used, as in `icrl_graph`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.execution.journal import Journal
    from icrl_graph.execution.rate_limit import RateLimit
    from icrl_graph.execution.sql_journals import SqliteJournal

_HOME = {"Journal": "journal", "RateLimit": "rate_limit", "SqliteJournal": "sql_journals"}

__all__ = ["Journal", "RateLimit", "SqliteJournal"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
