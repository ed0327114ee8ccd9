"""The journal: where the reply to every paid call is saved before anything else is done with it.

A node that is run again, because the process was killed before LangGraph had saved its result, finds there what was
already paid for. `driver` reads and writes it; `sql_journals` has the journals in databases, and finds that of a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from langgraph.store.base import BaseStore

from icrl_graph.errors import JournalError, ThreadBusy
from icrl_graph.state.episode import Usage


class Reply(NamedTuple):
    """The reply to a call, in plain JSON-able values."""

    value: Any
    usage: Usage


class Journal(ABC):
    """Where replies are saved, by the thread that they belong to."""

    @abstractmethod
    def get(self, id: str, thread: str) -> Reply | None:
        """The reply to a call, or None."""

    @abstractmethod
    def put(self, id: str, thread: str, reply: Reply) -> None:
        """Save a reply; it is durable when this returns."""

    @abstractmethod
    def delete(self, thread: str) -> None:
        """Delete all replies of a thread."""

    async def aget(self, id: str, thread: str) -> Reply | None:
        """`get`, without blocking the event loop."""
        return await asyncio.to_thread(self.get, id, thread)

    async def aput(self, id: str, thread: str, reply: Reply) -> None:
        """`put`, without blocking the event loop."""
        await asyncio.to_thread(self.put, id, thread, reply)


class MemoryJournal(Journal):
    """Holds the latest replies in memory: enough for a node that is run again, nothing after a crash.

    Args:
        limit: number of replies.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._replies: OrderedDict[tuple[str, str], Reply] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def get(self, id: str, thread: str) -> Reply | None:
        """The reply to a call, or None."""
        with self._lock:
            return self._replies.get((thread, id))

    def put(self, id: str, thread: str, reply: Reply) -> None:
        """Save a reply."""
        with self._lock:
            self._replies[thread, id] = reply
            while len(self._replies) > self._limit:
                self._replies.popitem(last=False)

    def delete(self, thread: str) -> None:
        """Delete all replies of a thread."""
        with self._lock:
            for key in [key for key in self._replies if key[0] == thread]:
                del self._replies[key]

    async def aget(self, id: str, thread: str) -> Reply | None:
        """`get`: memory doesn't block."""
        return self.get(id, thread)

    async def aput(self, id: str, thread: str, reply: Reply) -> None:
        """`put`: memory doesn't block."""
        self.put(id, thread, reply)


class StoreJournal(Journal):
    """Saves every reply in a LangGraph store, under the namespace ("icrl_replies", a hash of the thread).

    Args:
        store: any store; as durable as it is.
    """

    def __init__(self, store: BaseStore) -> None:
        self._store = store

    def get(self, id: str, thread: str) -> Reply | None:
        """The reply to a call, or None."""
        return _from_item(self._store.get(_namespace(thread), id, refresh_ttl=False))

    def put(self, id: str, thread: str, reply: Reply) -> None:
        """Save a reply, without an expiry and outside of the search index."""
        self._store.put(_namespace(thread), id, _as_item(reply), index=False, ttl=None)

    def delete(self, thread: str) -> None:
        """Delete all replies of a thread."""
        while items := self._store.search(_namespace(thread), limit=1000):
            for item in items:
                self._store.delete(item.namespace, item.key)

    async def aget(self, id: str, thread: str) -> Reply | None:
        """`get`, without blocking the event loop."""
        try:
            return _from_item(await self._store.aget(_namespace(thread), id, refresh_ttl=False))
        except NotImplementedError:  # a store without an async side
            return await super().aget(id, thread)

    async def aput(self, id: str, thread: str, reply: Reply) -> None:
        """`put`, without blocking the event loop."""
        try:
            await self._store.aput(_namespace(thread), id, _as_item(reply), index=False, ttl=None)
        except NotImplementedError:
            await super().aput(id, thread, reply)


def _namespace(thread: str) -> tuple[str, ...]:
    return "icrl_replies", hashlib.sha256(thread.encode()).hexdigest()[:16]  # a namespace may not hold every character


def _as_item(reply: Reply) -> dict[str, str]:
    return {"reply": json.dumps(reply)}  # as text: PostgreSQL's JSON refuses some characters that a model may write


def _from_item(item: Any) -> Reply | None:
    return None if item is None else Reply(*json.loads(item.value["reply"]))


@contextmanager
def journal_errors() -> Iterator[None]:
    """Stop the run where its journal fails: to continue would be to pay for what can't be saved."""
    try:
        yield
    except ThreadBusy:
        raise
    except Exception as error:
        raise JournalError(f"the journal failed: {type(error).__name__}: {error}") from error
