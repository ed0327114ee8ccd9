"""The data of a whole thread: deleted, or cut down to what is needed to resume.

    from icrl_graph.execution import threads

    threads.compact(graph, "thread-1")  # keeps its latest state alone: no history, no other branches
    threads.delete(graph, "thread-1")   # deletes all of it: checkpoints and paid replies

The graph is compiled with the checkpointer (and store, if any) that wrote the thread; it may be a larger one in which
graphs of this package are embedded.

Rows of a thread must not be deleted by hand: LangGraph rebuilds a delta channel, such as `episodes`, out of the writes
of earlier checkpoints; without them it is empty, and there is no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import Checkpoint
from langgraph.pregel import Pregel

from icrl_graph.execution.journal import Journal
from icrl_graph.execution.langgraph_internals import DELTA_COUNTERS, DeltaSnapshot
from icrl_graph.execution.sql_journals import Statement, beside, journal_of


def delete(graph: Pregel[Any, Any, Any, Any], thread_id: str) -> None:
    """Delete a thread: its checkpoints, and the replies that were paid for in it.

    Args:
        graph: compiled with the thread's checkpointer.
        thread_id: of a thread that is not running; it is not an error if there is none.

    Raises:
        ValueError: the graph has no checkpointer.
    """
    saver, thread_id = _saver(graph), str(thread_id)
    for journal in _journals(graph):
        journal.delete(thread_id)
    saver.delete_thread(thread_id)


def compact(graph: Pregel[Any, Any, Any, Any], thread_id: str) -> None:
    """Keep the latest state of a thread and what it takes to resume from it; delete its history.

    The whole state is first written into its latest checkpoint, and then the others are deleted: a process that is
    killed in between has lost nothing. Replies are deleted once the thread has ended. Nested graphs that save their own
    state (`checkpointer=True`) keep it. SQLite reuses the freed space of a file; its `VACUUM` makes the file smaller.

    Args:
        graph: compiled with the thread's checkpointer, an SQLite or PostgreSQL one.
        thread_id: of a thread that is not running.

    Raises:
        ValueError: the thread does not exist or is of another graph, or the checkpointer is of another kind.
    """
    saver, thread_id = _saver(graph), str(thread_id)
    database = beside(saver)
    if database is None:
        raise ValueError(
            f"a thread can be compacted in the database of a SqliteSaver or PostgresSaver, sync or async; this is a "
            f"{type(saver).__name__}"
        )
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    head = saver.get_tuple(config)
    if head is None:
        raise ValueError(f"there is no thread {thread_id!r}")
    if unknown := head.checkpoint["channel_versions"].keys() - graph.channels.keys():
        raise ValueError(f"the thread is of another graph: this one has no {', '.join(sorted(unknown))}")
    state = graph.get_state(head.config)
    names = [name for name, channel in graph.channels.items() if isinstance(channel, DeltaChannel)]
    deltas = {name: state.values[name] for name in names if name in state.values}
    whole, versions = _with_snapshots(head.checkpoint, deltas, lambda version: saver.get_next_version(version, None))
    metadata: Any = {name: value for name, value in head.metadata.items() if name != DELTA_COUNTERS}
    saver.put(config, whole, metadata, versions)
    database.run(*_deletions(database.writes, database.blobs, thread_id, whole["id"], bool(state.next)))
    if not state.next:
        for journal in _journals(graph):
            journal.delete(thread_id)


async def adelete(graph: Pregel[Any, Any, Any, Any], thread_id: str) -> None:
    """`delete`, for async code and asynchronous checkpointers."""
    await asyncio.to_thread(delete, graph, thread_id)


async def acompact(graph: Pregel[Any, Any, Any, Any], thread_id: str) -> None:
    """`compact`, for async code and asynchronous checkpointers."""
    await asyncio.to_thread(compact, graph, thread_id)


def _with_snapshots(
    checkpoint: Checkpoint, deltas: Mapping[str, Any], next_version: Callable[[Any], Any]
) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint with the values of its delta channels, and their new versions, so that these values are stored.

    No node runs because of it: one that has seen the old version has seen the new one.
    """
    old = checkpoint["channel_versions"]
    versions = {name: next_version(old[name]) for name in deltas if name in old}
    seen = {
        node: {
            name: versions.get(name, version) if version == old.get(name) else version
            for name, version in channels.items()
        }
        for node, channels in checkpoint["versions_seen"].items()
    }
    values = {**checkpoint["channel_values"], **{name: DeltaSnapshot(deltas[name]) for name in versions}}
    changed: Any = {"channel_values": values, "channel_versions": {**old, **versions}, "versions_seen": seen}
    whole: Any = {**checkpoint, **changed}
    return whole, versions


def _deletions(writes: str, blobs: str | None, thread: str, checkpoint: str, has_next: bool) -> list[Statement]:
    """Delete all rows but those of one checkpoint, and those of nested graphs that may still be needed.

    Where the thread has not ended, all nested graphs may be; else only those that save their own state, which have no
    task id (with a colon) in their namespace.
    """
    nested = "" if has_next else " OR checkpoint_ns LIKE ?"
    of_a_task = [] if has_next else ["%:%"]
    others = f"WHERE thread_id = ? AND ((checkpoint_ns = '' AND checkpoint_id <> ?){nested})"
    tables = ("checkpoints", writes)
    statements: list[Statement] = [
        (f"DELETE FROM {table} {others}", thread, checkpoint, *of_a_task) for table in tables
    ]
    if blobs is not None:
        used = (
            "SELECT versions.key, versions.value FROM checkpoints, "
            "jsonb_each_text(checkpoint -> 'channel_versions') AS versions WHERE thread_id = ? AND checkpoint_id = ?"
        )
        unused = f"WHERE thread_id = ? AND ((checkpoint_ns = '' AND (channel, version) NOT IN ({used})){nested})"
        statements.append((f"DELETE FROM {blobs} {unused}", thread, thread, checkpoint, *of_a_task))
    return statements


def _saver(graph: Pregel[Any, Any, Any, Any]) -> Any:
    saver = graph.checkpointer
    if saver is None or isinstance(saver, bool):
        raise ValueError("the graph has no checkpointer; pass one that is compiled with that of the thread")
    return saver


def _journals(graph: Any) -> list[Journal]:
    """The journals that may hold replies of a graph's threads."""
    graphs = [graph, *(nested for _, nested in graph.get_subgraphs(recurse=True))]
    parts = [getattr(getattr(each, "builder", None), "parts", None) for each in graphs]
    set_by_user = [part.driver.journal for part in parts if part is not None]
    return [journal for journal in (*set_by_user, journal_of(graph.checkpointer, graph.store)) if journal is not None]
