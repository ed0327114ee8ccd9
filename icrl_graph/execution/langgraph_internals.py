"""What this package uses of LangGraph beyond its documented interface: all of it, with what breaks if it changes.

An update of LangGraph that breaks one of these is noticed by the test that is named beside it. What the journals use of
checkpointers and the names of their tables stands in `sql_journals`, which `tests/test_sql_journals.py` and
`tests/test_threads.py` run on real databases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import FrameType
from typing import Any

import langgraph.checkpoint.base.id as checkpoint_ids
from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_READ
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot as DeltaSnapshot
from langgraph.config import get_config
from langgraph.constants import CONFIG_KEY_CHECKPOINTER
from langgraph.pregel import Pregel
from langgraph.runtime import get_runtime
from langgraph.types import Overwrite

__all__ = [
    "DELTA_COUNTERS",
    "DeltaSnapshot",
    "PlainSerializer",
    "awritten_beside",
    "databases_of_run",
    "in_run",
    "invocation_of_run",
    "next_ids_after",
    "next_ids_after_config",
    "overwriting",
    "unwrapped",
    "written_beside",
]

# `DeltaSnapshot` is how a checkpoint holds the whole value of a delta channel. Without it a compacted thread has no
# episodes: tests/test_threads.py.

DELTA_COUNTERS = "counters_since_delta_snapshot"
"""The key of a checkpoint's metadata that counts the writes to delta channels since their last snapshots. If it is
renamed, a compacted thread takes its next snapshots earlier than it needs to: tests/test_threads.py."""


class PlainSerializer(JsonPlusSerializer):
    """Reads and writes checkpoints as LangGraph does, but runs no code that a stranger's file names.

    LangGraph's own default calls any importable function that a checkpoint names. Here a saved object comes back as
    one only if its type is on LangGraph's list of safe types (messages, dates, `Interrupt`, `Send`); else as the plain
    data that it was saved as. If that changes: tests/test_trust.py.
    """

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=None)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """A saved value.

        Raises:
            ValueError: it is in a form that LangGraph no longer writes, and that may name any of LangChain's classes.
        """
        if data[0] not in ("null", "bytes", "bytearray", "msgpack"):
            raise ValueError(f"a checkpoint of the kind {data[0]!r} is not read: no version of icrl_graph wrote it")
        return super().loads_typed(data)


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


def written_beside(channel: str) -> list[Any]:
    """What tasks beside the caller's have written to a channel before it began: those of its step that have ended.

    A run that was killed within a step repeats only the tasks that had not ended, and these do not see the others'
    writes in their state. If the config changes, siblings of a resumed round count their caps apart:
    tests/promises/test_caps_hold.py.
    """
    place = _place_of_task()
    return [] if place is None else _of_channel(place[0].get_tuple(place[1]), channel)


async def awritten_beside(channel: str) -> list[Any]:
    """`written_beside` under `ainvoke`."""
    place = _place_of_task()
    return [] if place is None else _of_channel(await place[0].aget_tuple(place[1]), channel)


def _place_of_task() -> tuple[Any, RunnableConfig] | None:
    """The checkpointer, and where the checkpoint is that the caller's task follows; None without one."""
    configurable = get_config().get("configurable", {})
    saver, info = configurable.get(CONFIG_KEY_CHECKPOINTER), get_runtime().execution_info
    if saver is None or info is None or not info.checkpoint_id:
        return None
    namespace = info.checkpoint_ns.rpartition("|")[0]
    place = {"thread_id": info.thread_id, "checkpoint_ns": namespace, "checkpoint_id": info.checkpoint_id}
    return saver, {"configurable": place}


def _of_channel(saved: Any, channel: str) -> list[Any]:
    return [value for _, name, value in (saved.pending_writes or () if saved else ()) if name == channel]


def overwriting(values: Mapping[str, Any]) -> dict[str, Any]:
    """The update that sets keys of the state whose node the caller is in, past their reducers.

    What has a reducer is set by `Overwrite`, which any other key would take for its value; the config alone tells which
    have one. If it no longer does, files of a worse attempt stay beside the best one's: tests/test_middleware.py.
    """
    channels, reduced = _channels(), (BinaryOperatorAggregate, DeltaChannel)
    return {key: Overwrite(value) if isinstance(channels.get(key), reduced) else value for key, value in values.items()}


def state_keys() -> list[str]:
    """The keys of the state whose node the caller is in."""
    return [name for name in _channels() if ":" not in name and not name.startswith("__")]


def _channels() -> Mapping[str, Any]:
    channels: Mapping[str, Any] = get_config()["configurable"][CONFIG_KEY_READ].args[1]
    return channels


def invocation_of_run() -> Any:
    """What tells the invocation that the caller is part of from all others, graphs within it included; None outside.

    Each has a `RunControl`, its own or the user's, and hands it on to graphs within it. If it no longer does, nobody is
    kept from driving a thread twice: tests/test_thread_lock.py.
    """
    try:
        return getattr(get_runtime(), "control", None)
    except RuntimeError:
        return None


def next_ids_after_config(config: Mapping[str, Any]) -> None:
    """Give new checkpoints ids that come after those of a config: of a state, or of a node and the graphs around it.

    Where a node's config no longer has them (`checkpoint_map`), a run that is resumed after the clock was set back is
    read in its old state for ever: tests/promises/test_resume_means_the_same.py.
    """
    configurable = config.get("configurable", {})
    for id in (configurable.get("checkpoint_id"), *configurable.get("checkpoint_map", {}).values()):
        next_ids_after(id)


def next_ids_after(checkpoint_id: str | None) -> None:
    """Give new checkpoints ids that come after this one, whatever the clock says.

    The head of a thread is its checkpoint with the largest id, which begins with the time. LangGraph keeps them in
    order within a process, by the time of the last one; it is set here to that of a checkpoint that another process
    wrote. If LangGraph renames it, the same test fails.
    """
    id = _UUID6.fullmatch(checkpoint_id or "")
    if id is None:  # none yet, or of a checkpointer that makes its own
        return
    written = int("".join(id.groups()), 16)
    if written > (checkpoint_ids._last_v6_timestamp or 0):
        checkpoint_ids._last_v6_timestamp = written  # type: ignore[assignment]


_UUID6 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-6([0-9a-f]{3})-[0-9a-f]{4}-[0-9a-f]{12}")
"""With the parts of the time (RFC 9562, section 5.6); by `UUID` it takes ten times as long, and each node does it."""


def in_run(frame: FrameType) -> bool:
    """Whether a frame of a stack is that of a running graph.

    `invoke` runs through `Pregel.stream`. If it no longer does, a run that is begun while a Ctrl-C is handled is taken
    for one that the Ctrl-C ends: tests/test_faults.py.
    """
    return frame.f_code is Pregel.stream.__code__
