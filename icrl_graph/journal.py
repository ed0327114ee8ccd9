"""Calls, and the one place that performs them: journal, budget, time limits, parallel calls, sync and async.

A node is written once, as a *flow*: a generator that yields the calls it wants made and gets their replies sent back.
The `Driver` performs a flow under `invoke` and under `ainvoke`. A flow asks for nothing but calls, so it stays pure and
short; whether a failure is data is the flow's own decision, for it gets the exception thrown in.

Every paid reply is in the journal before the flow sees it. A node that is run again, because the process was killed
before LangGraph had saved its result, finds there what was already paid for: only a call that was in flight is made
again. A call is known by its run, its episode, its place within its node, and a hash of all that is sent. What is free
is simply done again; so an evaluator may ask a person by LangGraph's `interrupt`, which counts the questions of a node.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from os import PathLike
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableSequence
from langgraph.errors import GraphBubbleUp

from icrl_graph.errors import BudgetExceeded, JournalError, ModelError
from icrl_graph.state import Usage, add_usage

Key = tuple[str | int, ...]
"""Who asks: the run id, the node, the round, the candidate."""


class Reply(NamedTuple):
    """What a call gave, in plain JSON-able values."""

    value: Any
    usage: Usage


@dataclass(frozen=True)
class Call:
    """One call: the only thing a flow can ask of the world.

    Attributes:
        part: a Runnable (its `invoke` or `ainvoke` is used) or a function, sync or async.
        input: the Runnable's input, or the function's keyword arguments.
        read: makes a JSON-able value of what came back; what it raises counts as the call's failure.
        kwargs: further keyword arguments of the Runnable.
        timeout: seconds after which the call is given up on. A thread can't be stopped and is left behind.
        paid: whether the call counts against the budget and is kept in the journal.
    """

    part: Any
    input: Any
    read: Callable[[Any], Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    paid: bool = True


Flow = Generator["Call | list[Flow]", Any, Any]
"""Yields a call, or a list of flows to run side by side; gets the reply, or the list of what they returned."""


class Journal:
    """Where replies are kept."""

    def get(self, id: str) -> Reply | None:
        """The reply to a call, or None."""
        raise NotImplementedError

    def put(self, id: str, run: str, reply: Reply) -> None:
        """Keep a reply; it is durable when this returns."""
        raise NotImplementedError

    async def aget(self, id: str) -> Reply | None:
        """`get`, without blocking the event loop."""
        return await asyncio.to_thread(self.get, id)

    async def aput(self, id: str, run: str, reply: Reply) -> None:
        """`put`, without blocking the event loop."""
        await asyncio.to_thread(self.put, id, run, reply)


class MemoryJournal(Journal):
    """Keeps the latest replies in this process: enough for a node that is run again, nothing after a crash.

    Args:
        limit: replies to keep.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._replies: OrderedDict[str, Reply] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def get(self, id: str) -> Reply | None:
        """The reply to a call, or None."""
        with self._lock:
            return self._replies.get(id)

    def put(self, id: str, run: str, reply: Reply) -> None:
        """Keep a reply."""
        with self._lock:
            self._replies[id] = reply
            while len(self._replies) > self._limit:
                self._replies.popitem(last=False)

    async def aget(self, id: str) -> Reply | None:
        """`get`: memory doesn't block."""
        return self.get(id)

    async def aput(self, id: str, run: str, reply: Reply) -> None:
        """`put`: memory doesn't block."""
        self.put(id, run, reply)


class SqliteJournal(Journal):
    """Keeps every reply in an SQLite file, which may also hold LangGraph's checkpoints.

    Args:
        path: the file; created if missing.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        import sqlite3

        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")  # python's synchronous=FULL stays: safe in a power cut, too
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS icrl_journal (id TEXT PRIMARY KEY, run TEXT NOT NULL, reply TEXT NOT NULL)"
        )

    def get(self, id: str) -> Reply | None:
        """The reply to a call, or None."""
        with self._lock:
            row = self._connection.execute("SELECT reply FROM icrl_journal WHERE id = ?", (id,)).fetchone()
        return Reply(*json.loads(row[0])) if row else None

    def put(self, id: str, run: str, reply: Reply) -> None:
        """Keep a reply."""
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO icrl_journal VALUES (?, ?, ?)", (id, run, json.dumps(reply))
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


class Budget:
    """Caps, and what is spent of them; shared by the calls that one node makes.

    Args:
        caps: "calls", "tokens" (in and out), "time" (seconds); None for no cap.
        spent: what was spent before.
    """

    def __init__(self, caps: Mapping[str, float | None], spent: Usage) -> None:
        self.caps, self.spent = caps, spent
        self._lock = threading.Lock()

    def admit(self) -> None:
        """Count one more call, before it is made.

        Raises:
            BudgetExceeded: a cap is reached.
        """
        with self._lock:
            if cap := exhausted(self.caps, self.spent):
                raise BudgetExceeded(cap)
            self.spent = add_usage(self.spent, {"calls": 1})

    def add(self, usage: Usage) -> None:
        """Count what calls have cost."""
        with self._lock:
            self.spent = add_usage(self.spent, usage)


def exhausted(caps: Mapping[str, float | None], spent: Usage) -> str | None:
    """The first cap that is reached, or None."""
    amounts = {
        "calls": spent.get("calls", 0),
        "tokens": spent.get("input", 0) + spent.get("output", 0),
        "time": spent.get("seconds", 0.0),
    }
    reached = (name for name, cap in caps.items() if cap is not None and amounts[name] >= cap)
    return next(reached, None)


class Driver:
    """Performs flows.

    Args:
        journal: where the replies are kept.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def perform(self, flow: Flow, key: Key, budget: Budget) -> Any:
        """Run a flow to its end; gives what it returns.

        Args:
            flow: the flow.
            key: who asks; the place of each call in the flow is added to it.
            budget: what its calls may cost.
        """
        step: Callable[[Any], Any] = flow.send
        sent: Any = None
        for place in count():
            try:
                ask = step(sent)
            except StopIteration as done:
                return done.value
            step = flow.send
            try:
                if isinstance(ask, list):
                    parts = [partial(self.perform, f, (*key, place, i), budget) for i, f in enumerate(ask)]
                    sent = _side_by_side(parts)
                else:
                    sent = self._call(ask, (*key, place), budget)
            except _PASSING:
                raise
            except Exception as error:
                step, sent = flow.throw, error

    async def aperform(self, flow: Flow, key: Key, budget: Budget) -> Any:
        """`perform` under `ainvoke`."""
        step: Callable[[Any], Any] = flow.send
        sent: Any = None
        for place in count():
            try:
                ask = step(sent)
            except StopIteration as done:
                return done.value
            step = flow.send
            try:
                if isinstance(ask, list):
                    parts = [self.aperform(f, (*key, place, i), budget) for i, f in enumerate(ask)]
                    sent = await _all(parts)
                else:
                    sent = await self._acall(ask, (*key, place), budget)
            except _PASSING:
                raise
            except Exception as error:
                step, sent = flow.throw, error

    def _call(self, call: Call, key: Key, budget: Budget) -> Reply:
        id = _identity(call, key) if call.paid else None
        if id is not None:
            with _journaling():
                known = self.journal.get(id)
            if known is not None:
                budget.add(known.usage)
                return known
        pending = _Pending(call, budget)
        if call.timeout is not None or async_only(call.part):
            raw = _result(_in_thread(partial(_invoke, call)), call.timeout)
        else:
            raw = _invoke(call)
        reply = pending.done(raw)
        if id is not None:
            with _journaling():
                self.journal.put(id, str(key[0]), reply)
        return reply

    async def _acall(self, call: Call, key: Key, budget: Budget) -> Reply:
        id = _identity(call, key) if call.paid else None
        if id is not None:
            with _journaling():
                known = await self.journal.aget(id)
            if known is not None:
                budget.add(known.usage)
                return known
        pending = _Pending(call, budget)
        reply = pending.done(await _aresult(_ainvoke(call), call.timeout))
        if id is not None:
            with _journaling():
                await self.journal.aput(id, str(key[0]), reply)
        return reply


_PASSING = (GraphBubbleUp, JournalError, ModelError)
"""What no flow may turn into data: an interrupt of LangGraph, and what a person must mend."""


@contextmanager
def _journaling() -> Iterator[None]:
    """A journal that fails must stop the run: going on would pay for what can't be kept."""
    try:
        yield
    except Exception as error:
        raise JournalError(f"the journal failed: {type(error).__name__}: {error}") from error


class _Pending:
    """A call that is being made: admitted to the budget, its clock running."""

    def __init__(self, call: Call, budget: Budget) -> None:
        if call.paid:
            budget.admit()
        self._call, self._budget, self._started = call, budget, time.monotonic()

    def done(self, raw: Any) -> Reply:
        cost = Usage(**usage_of(raw), seconds=round(time.monotonic() - self._started, 6))
        self._budget.add(cost)
        return Reply(self._call.read(raw), {"calls": 1, **cost} if self._call.paid else cost)


def usage_of(raw: Any) -> Usage:
    """The tokens that a chat model reports with its message, or an agent with all of its; empty if none is told."""
    messages = [raw.get("raw"), *raw.get("messages", ())] if isinstance(raw, Mapping) else [raw]
    total: Usage = {}
    for told in filter(None, (getattr(message, "usage_metadata", None) for message in messages)):
        cached = (told.get("input_token_details") or {}).get("cache_read") or 0
        reasoning = (told.get("output_token_details") or {}).get("reasoning") or 0
        cost = Usage(input=told["input_tokens"], cached=cached, output=told["output_tokens"], reasoning=reasoning)
        total = add_usage(total, cost)
    return total


def _identity(call: Call, key: Key) -> str:
    sent = json.dumps([key, call.input, dict(call.kwargs)], sort_keys=True, default=repr)
    return hashlib.sha256(sent.encode()).hexdigest()


def async_only(part: Any) -> bool:
    """Whether a part has no sync side: a coroutine function, or an object, a tool or a Runnable made of one."""
    if not hasattr(part, "invoke"):
        return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004
    if (bound := getattr(part, "bound", None)) is not None:
        return async_only(bound)
    if isinstance(part, RunnableSequence):
        return any(map(async_only, part.steps))
    return _made_of(part, "coroutine", "afunc") and not _made_of(part, "func")


def _made_of(part: Any, *names: str) -> bool:
    return any(getattr(part, name, None) is not None for name in names)


def _begin(call: Call) -> Any:
    """Make a call; what has no sync side gives something to await."""
    if not hasattr(call.part, "invoke"):
        return call.part(**call.input)
    begin = call.part.ainvoke if async_only(call.part) else call.part.invoke
    return begin(call.input, **call.kwargs)


def _invoke(call: Call) -> Any:
    """Make a call and wait for it, without an event loop or in one of its own."""
    raw = _begin(call)
    if not inspect.isawaitable(raw):
        return raw
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_aresult(raw, None))
    return _in_thread(lambda: asyncio.run(_aresult(raw, None))).result()  # a loop runs here already, as in a notebook


async def _ainvoke(call: Call) -> Any:
    """Make a call in the running loop; whatever may block, in a thread."""
    limited = call.timeout is not None and _made_of(call.part, "func") and not _made_of(call.part, "coroutine", "afunc")
    if hasattr(call.part, "ainvoke") and not limited:
        raw = await call.part.ainvoke(call.input, **call.kwargs)
    elif async_only(call.part):
        raw = await call.part(**call.input)
    else:
        raw = await asyncio.wrap_future(_in_thread(partial(_begin, call)))
    return await raw if inspect.isawaitable(raw) else raw


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Start work in a thread of its own: what hangs must neither hold a pool nor keep the process alive."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # from here on it can't be cancelled, only left alone
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except StopIteration as error:  # a future can't carry it
            future.set_exception(RuntimeError(f"StopIteration: {error}"))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="icrl-call").start()
    return future


def _result(future: Future[Any], timeout: float | None) -> Any:
    if not wait([future], timeout).done and timeout is not None:
        raise _too_late(timeout)
    return future.result()


async def _aresult(waiting: Awaitable[Any], timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await waiting
    except TimeoutError:
        if timeout is not None and limit.expired():
            raise _too_late(timeout) from None
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("something that the call waited for was cancelled") from error  # no reason to end the run


def _too_late(timeout: float) -> TimeoutError:
    return TimeoutError(f"nothing came back within {timeout:g} s")


def _side_by_side(parts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all to the end, then raise the first failure, if any."""
    if len(parts) == 1:
        return [parts[0]()]
    with ThreadPoolExecutor(max_workers=min(32, len(parts) or 1)) as pool:
        running = [pool.submit(copy_context().run, part) for part in parts]
    return [future.result() for future in running]


async def _all(parts: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await all to the end, then raise the first failure, if any."""
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
