"""Fakes for tests and demos, without a key or a network: a scripted chat model, and an OpenAI-compatible server.

The package's tests use these, and yours can. Both run functions of the prompt, so a test can define how a model replies
to what it was really shown, not only list its replies. The server speaks the dialects of the servers that people use,
so that a run can be rehearsed. Names are loaded when they are first used, as in `icrl_graph`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icrl_graph.testing.dialects import DIALECTS, Dialect, Refusal
    from icrl_graph.testing.scripted import ScriptedModel
    from icrl_graph.testing.server import Fault, OpenAIServer

_HOME = {
    "DIALECTS": "dialects",
    "Dialect": "dialects",
    "Fault": "server",
    "OpenAIServer": "server",
    "Refusal": "dialects",
    "ScriptedModel": "scripted",
}

__all__ = ["DIALECTS", "Dialect", "Fault", "OpenAIServer", "Refusal", "ScriptedModel"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
