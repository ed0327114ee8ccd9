"""The one place that pays: flows, the driver that performs them, and the budget.

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
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from langgraph.errors import GraphBubbleUp, GraphDrained

from icrl_graph.errors import BudgetExceeded, JournalError, ModelError
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call, aexecute, collect_usage, execute, usage_of
from icrl_graph.execution.journal import Journal, MemoryJournal, Reply
from icrl_graph.execution.prices import Prices
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.run_cache import RunCache, digest
from icrl_graph.execution.sql_journals import journal_of_run
from icrl_graph.state.episode import Usage, add_usage, side_by_side

Key = tuple[str | int, ...]
"""Who asks: the run id, the node, the round, the candidate."""


Flow = Generator["Call | list[Flow]", Any, Any]
"""Yields a call, or a list of flows to run side by side; gets the reply, or the list of what they returned."""


def single(call: Call) -> Flow:
    """The flow of a single call; gives its value."""
    reply = yield call
    return reply.value


class Meter:
    """Reads what a flow costs while it runs; also of a call that fails.

    Attributes:
        usage: the sum so far; of what runs side by side, the longest time.
    """

    def __init__(self) -> None:
        self.usage = Usage()

    def read(self, flow: Flow, timeout: float | None = None) -> Flow:
        """The same flow, metered.

        Args:
            flow: what to meter, with the flows that it runs side by side.
            timeout: seconds for each call that sets none itself.
        """
        step: Callable[[Any], Any] = flow.send
        sent: Any = None
        while True:
            try:
                ask = step(sent)
            except StopIteration as done:
                return done.value
            step = flow.send
            if not isinstance(ask, Call | list):
                raise TypeError(f"a flow yields calls, or lists of flows to run side by side; got {ask!r:.80}")
            try:
                sent = yield from self._side_by_side(ask, timeout) if isinstance(ask, list) else self._one(ask, timeout)
            except Exception as error:
                step, sent = flow.throw, error

    def _one(self, call: Call, timeout: float | None) -> Flow:
        try:
            reply = yield call if timeout is None or call.timeout is not None else replace(call, timeout=timeout)
        except Exception as error:
            cost: Usage = error.__dict__.get(_COST, {})  # none, if it was not made
            self.usage = add_usage(self.usage, cost)
            raise
        self.usage = add_usage(self.usage, reply.usage)
        return reply

    def _side_by_side(self, flows: list[Flow], timeout: float | None) -> Flow:
        meters = [Meter() for _ in flows]
        try:
            return (yield [meter.read(flow, timeout) for meter, flow in zip(meters, flows, strict=True)])
        finally:
            self.usage = add_usage(self.usage, side_by_side([meter.usage for meter in meters]))


class Driver:
    """Performs flows.

    Args:
        journal: where the replies are saved; default where the run is (see `execution.sql_journals`), else in memory.
        prices: custom ones.
        pace: how fast paid calls are made, and how often; default at once, and again where that may help.

    Attributes:
        remembered: what saves work in the next rounds of the runs that are under way.
    """

    def __init__(
        self, journal: Journal | None = None, prices: Prices | None = None, rate_limit: RateLimit | None = None
    ) -> None:
        self._memory, self.run_cache, self._leaders = MemoryJournal(), RunCache(), _Leaders()
        self.journal, self.prices, self.rate_limit = journal, prices or {}, rate_limit or RateLimit()

    def perform(self, flow: Flow, key: Key, budget: Budget) -> Any:
        """Run a flow to its end; gives what it returns.

        Args:
            flow: the flow.
            key: of the caller; the place of each call in the flow is added to it.
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
            except _ALWAYS_RAISED:
                raise
            except Exception as error:
                step, sent = flow.throw, _throwable(error)

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
            except _ALWAYS_RAISED:
                raise
            except Exception as error:
                step, sent = flow.throw, _throwable(error)

    def _call(self, call: Call, key: Key, budget: Budget) -> Reply:
        id = self._identity(call, key) if call.paid else None
        if id is not None:
            journal, thread = self._kept()
            with _journaling():
                known = journal.get(id, thread)
            if known is not None:
                budget.add(known.usage)
                return known
        with self._leaders.turn(call) as ahead:
            if ahead is not None:
                ahead.result()
            reply = self._execute(call, budget)
        if id is not None:
            with _journaling():
                journal.put(id, thread, reply)
        return reply

    def _execute(self, call: Call, budget: Budget) -> Reply:
        with _Pending(call, budget, self.prices) as pending:
            raw = self.rate_limit.execute(call, budget.seconds_left()) if call.paid else execute(call)
            return self._counted(pending.done(raw))

    async def _acall(self, call: Call, key: Key, budget: Budget) -> Reply:
        id = self._identity(call, key) if call.paid else None
        if id is not None:
            journal, thread = self._kept()
            with _journaling():
                known = await journal.aget(id, thread)
            if known is not None:
                budget.add(known.usage)
                return known
        with self._leaders.turn(call) as ahead:
            if ahead is not None:
                await asyncio.shield(asyncio.wrap_future(ahead))  # a cancellation is of this call alone
            reply = await self._aexecute(call, budget)
        if id is not None:
            with _journaling():
                await _to_its_end(journal.aput(id, thread, reply))
        return reply

    async def _aexecute(self, call: Call, budget: Budget) -> Reply:
        with _Pending(call, budget, self.prices) as pending:
            raw = await (self.rate_limit.aexecute(call, budget.seconds_left()) if call.paid else aexecute(call))
            return self._counted(pending.done(raw))

    def _kept(self) -> tuple[Journal, str]:
        """The journal of the run that asks, and its thread."""
        located, thread = journal_of_run()
        return next(journal for journal in (self.journal, located, self._memory) if journal is not None), thread

    def _identity(self, call: Call, key: Key) -> str:
        """The key of a call: the caller, the place in its flow, and all that is sent."""
        caller = key[1:2] + key[3:]  # in any round
        return digest(self.run_cache, key[0], caller, call.input, [key, dict(call.kwargs)])

    def _counted(self, reply: Reply) -> Reply:
        """Tell the pace what a reply has used."""
        self.rate_limit.used(reply.usage.get("input", 0) + reply.usage.get("output", 0))
        return reply


LONG = 4096
"""Characters, about 1024 tokens: providers cache no shorter prompts."""
CACHED_FOR = 300.0
"""Seconds for which they keep one, at least."""


class _Leaders:
    """Of calls with the same long prompt that are to be made side by side, the first goes ahead.

    When it has answered, the provider has the prompt in its cache, and the others read it there for a tenth of the
    price; at once, all of them would miss it. Where it has failed, they are not held up any longer.
    """

    def __init__(self) -> None:
        self._ahead: OrderedDict[int, tuple[Future[None], float]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, call: Call) -> Iterator[Future[None] | None]:
        """Gives what to wait for before the call is made, if anything."""
        prompt = str(call.input) if call.shares_prompt else ""
        if len(prompt) < LONG:
            yield None
            return
        key, now, future = hash(prompt), time.monotonic(), Future[None]()
        with self._lock:
            while self._ahead and next(iter(self._ahead.values()))[1] < now - CACHED_FOR:
                self._ahead.popitem(last=False)
            ahead, _ = self._ahead.setdefault(key, (future, now))
        if ahead is not future:
            yield ahead
            return
        try:
            yield None
        except BaseException:
            with self._lock:
                self._ahead.pop(key, None)
            raise
        finally:
            future.set_result(None)


_ALWAYS_RAISED = (GraphBubbleUp, JournalError, ModelError)
"""What no flow may turn into data: an interrupt of LangGraph, and what a person must mend."""


@contextmanager
def _journaling() -> Iterator[None]:
    """A journal that fails must stop the run: continuing would pay for what can't be saved."""
    try:
        yield
    except Exception as error:
        raise JournalError(f"the journal failed: {type(error).__name__}: {error}") from error


def _throwable(error: Exception) -> Exception:
    """What may be thrown into a generator: a StopIteration would end it."""
    return RuntimeError(f"StopIteration: {error}") if isinstance(error, StopIteration) else error


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await what must not be left half done; a cancellation comes after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class _Pending:
    """A call that is being made: admitted to the budget, its clock running, the models within it listened to."""

    def __init__(self, call: Call, budget: Budget, prices: Prices) -> None:
        if call.paid:
            budget.admit()
        self._call, self._budget, self._prices, self._started = call, budget, prices, time.monotonic()
        self._usage_callback, self._cost = collect_usage(), Usage()

    def __enter__(self) -> _Pending:
        self._callback = self._usage_callback.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._usage_callback.__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, BudgetExceeded | GraphDrained):  # it was made
            self._spend(None)
            error.__dict__[_COST] = self._cost

    def done(self, raw: Any) -> Reply:
        """The reply that came back, and what it has cost."""
        self._spend(raw)
        return Reply(self._call.read(raw), self._cost)

    def _spend(self, raw: Any) -> None:
        if self._cost or self._call.tracks_own_cost:  # what came back could not be read: it has been counted
            return
        cost = Usage(**usage_of(raw, self._callback, self._prices), seconds=round(time.monotonic() - self._started, 6))
        self._budget.add(cost)
        self._cost = {"calls": 1, **cost} if self._call.paid else cost


_COST = "icrl_cost"
"""Under which an error carries what its call has cost: models within it may have answered before it failed."""


def _side_by_side(parts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all to the end, then raise the first failure, if any."""
    if len(parts) == 1:
        return [parts[0]()]
    with ThreadPoolExecutor(max_workers=min(32, len(parts) or 1)) as pool:
        running = [pool.submit(copy_context().run, part) for part in parts]
    return [future.result() for future in running]


async def _all(parts: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await all to the end, then raise the first failure, if any."""
    if len(parts) == 1:
        return [await parts[0]]
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
