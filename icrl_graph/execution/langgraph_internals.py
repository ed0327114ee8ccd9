"""What this package uses of LangGraph beyond its documented interface: all of it, with what breaks if it changes.

An update of LangGraph that breaks one of these is noticed by the test that is named beside it. What the journals use of
checkpointers and the names of their tables stands in `sql_journals`, which `tests/test_sql_journals.py` and
`tests/test_threads.py` run on real databases.
"""

from __future__ import annotations

from types import FrameType
from typing import Any

from langgraph.checkpoint.serde.types import _DeltaSnapshot as DeltaSnapshot
from langgraph.config import get_config
from langgraph.constants import CONFIG_KEY_CHECKPOINTER
from langgraph.pregel import Pregel
from langgraph.runtime import get_runtime

__all__ = ["DELTA_COUNTERS", "DeltaSnapshot", "databases_of_run", "in_run", "unwrapped"]

# `DeltaSnapshot` is how a checkpoint holds the whole value of a delta channel. Without it a compacted thread has no
# episodes: tests/test_threads.py.

DELTA_COUNTERS = "counters_since_delta_snapshot"
"""The key of a checkpoint's metadata that counts the writes to delta channels since their last snapshots. If it is
renamed, a compacted thread takes its next snapshots earlier than it needs to: tests/test_threads.py."""

_WRAPPED = {
    "langgraph_api._checkpointer._adapter._CustomCheckpointerAdapter": "_inner",
    "langgraph_runtime_inmem.store.BatchedStore": "_store",
}
"""What `langgraph dev` wraps checkpointers and stores in, and where it holds them. If they are renamed, replies of a
killed server are paid again: tests/test_studio.py."""


def unwrapped(part: Any) -> Any:
    """A checkpointer or a store without what `langgraph dev` wraps it in."""
    kind = type(part)
    inner = _WRAPPED.get(f"{kind.__module__}.{kind.__qualname__}")
    return part if inner is None else getattr(part, inner)


def databases_of_run() -> tuple[Any, Any, str]:
    """The checkpointer, the store and the thread of the run that the caller is a node of; (None, None, "") outside.

    LangGraph hands the checkpointer to nested graphs through the config, and a node has no other way to it. If the key
    is renamed, replies are saved in memory only: tests/test_sql_journals.py.
    """
    try:
        configurable = get_config().get("configurable", {})
    except RuntimeError:
        return None, None, ""
    store = getattr(get_runtime(), "store", None)  # within a chain that is not a graph the runtime is None
    return configurable.get(CONFIG_KEY_CHECKPOINTER), store, str(configurable.get("thread_id", ""))


def in_run(frame: FrameType) -> bool:
    """Whether a frame of a stack is that of a running graph.

    `invoke` runs through `Pregel.stream`. If it no longer does, a run that is begun while a Ctrl-C is handled is taken
    for one that the Ctrl-C ends: tests/test_faults.py.
    """
    return frame.f_code is Pregel.stream.__code__
