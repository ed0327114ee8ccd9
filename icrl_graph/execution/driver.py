"""The one place that pays: flows, and the driver that performs them within a budget.

A node is written once, as a *flow*: a generator that yields the calls to be made and is sent their replies.
The `Driver` performs a flow under `invoke` and under `ainvoke`. A flow yields nothing but calls, so it stays pure and
short; whether a failure is data is the flow's decision, for the exception is thrown into it.

Every paid reply is in the journal before the flow sees it. A node that is run again, because the process was killed
before LangGraph had saved its result, finds there what was already paid for: only a call that was in flight is made
again. A call is known by its run, its episode, its place within its node, and a hash of all that is sent. What is free
is simply done again; so an evaluator may ask a person by LangGraph's `interrupt`, which counts the questions of a node.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from langgraph.errors import GraphBubbleUp, GraphDrained

from icrl_graph.errors import BudgetExceeded, JournalError, ModelError, ThreadBusy
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call, contained, run_blocking
from icrl_graph.execution.event_loop import EventLoop, uncancelled
from icrl_graph.execution.journal import Journal, MemoryJournal, Reply, journal_errors
from icrl_graph.execution.prices import Prices
from icrl_graph.execution.queue import await_slot, wait_for_slot
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.run_cache import RunCache, digest
from icrl_graph.execution.sql_journals import journal_of_run
from icrl_graph.execution.usage import UsageCallback, collect_usage, usage_of
from icrl_graph.state.episode import Usage, add_usage, side_by_side

Key = tuple[str | int, ...]
"""What a flow works for: the run id, the node, the round, the candidate."""


Flow = Generator["Call | list[Flow]", Any, Any]
"""Yields a call, or a list of flows to run side by side; is sent the reply, or the list of what they returned."""


def single(call: Call) -> Flow:
    """The flow of a single call; returns its value."""
    reply = yield call
    return reply.value


class Meter:
    """Measures what a flow costs while it runs, failed calls included.

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
        reply: Any = None
        while True:
            try:
                with contained():
                    request = step(reply)
            except StopIteration as done:
                return done.value
            if not isinstance(request, Call | list):
                raise TypeError(f"a flow yields calls, or lists of flows to run side by side; got {request!r:.80}")
            try:
                if isinstance(request, list):
                    reply = yield from self._parallel(request, timeout)
                else:
                    reply = yield from self._single(request, timeout)
                step = flow.send
            except Exception as error:
                step, reply = flow.throw, error

    def _single(self, call: Call, timeout: float | None) -> Flow:
        try:
            reply = yield call if timeout is None or call.timeout is not None else replace(call, timeout=timeout)
        except Exception as error:
            cost: Usage = error.__dict__.get(_COST, {})  # empty if the call was not made
            self.usage = add_usage(self.usage, cost)
            raise
        self.usage = add_usage(self.usage, reply.usage)
        return reply

    def _parallel(self, flows: list[Flow], timeout: float | None) -> Flow:
        meters = [Meter() for _ in flows]
        try:
            return (yield [meter.read(flow, timeout) for meter, flow in zip(meters, flows, strict=True)])
        finally:
            self.usage = add_usage(self.usage, side_by_side([meter.usage for meter in meters]))


class Driver:
    """Performs flows.

    Each step is written once, as a coroutine. Under `invoke` it blocks where it would wait, so it never suspends.

    Args:
        journal: where replies are saved; default that of the run (see `execution.sql_journals`), else memory.
        prices: custom prices by model name.
        rate_limit: how fast and how often paid calls are made; default no limit, transient failures retried.
        end_on: errors that no flow gets to see: they end its run.

    Attributes:
        run_cache: what saves work in the next rounds of runs that are under way.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        prices: Prices | None = None,
        rate_limit: RateLimit | None = None,
        end_on: tuple[type[Exception], ...] = (),
    ) -> None:
        self._always_raised: tuple[type[Exception], ...] = (*_ALWAYS_RAISED, *end_on)
        self._memory, self.run_cache, self._leaders = MemoryJournal(), RunCache(), _Leaders()
        self.journal, self.prices, self.rate_limit = journal, prices or {}, rate_limit or RateLimit()

    def perform(self, flow: Flow, key: Key, budget: Budget) -> Any:
        """Run a flow to its end; returns what it returns.

        Args:
            flow: the flow.
            key: what it works for; the place of each call in the flow is added to it.
            budget: what its calls may cost.

        Raises:
            JournalError: a reply can't be looked up or saved.
            Exception: whatever the flow does not catch.
        """
        with self.run_cache.share(key[0], "loop", EventLoop).entered():
            return run_blocking(self._perform(flow, key, budget, is_async=False))

    async def aperform(self, flow: Flow, key: Key, budget: Budget) -> Any:
        """`perform` under `ainvoke`."""
        return await self._perform(flow, key, budget, is_async=True)

    async def _perform(self, flow: Flow, key: Key, budget: Budget, is_async: bool) -> Any:
        step: Callable[[Any], Any] = flow.send
        reply: Any = None
        for place in count():
            try:
                request = step(reply)
            except StopIteration as done:
                return done.value
            perform = self._parallel if isinstance(request, list) else self._call
            try:
                step, reply = flow.send, await perform(request, (*key, place), budget, is_async)
            except self._always_raised:
                raise
            except Exception as error:
                step, reply = flow.throw, error

    async def _parallel(self, flows: list[Flow], key: Key, budget: Budget, is_async: bool) -> list[Any]:
        """Run all flows to their ends, then raise the first failure, if any."""
        if len(flows) == 1:
            return [await self._perform(flows[0], (*key, 0), budget, is_async)]
        if is_async:
            coroutines = [self.aperform(flow, (*key, i), budget) for i, flow in enumerate(flows)]
            results = await asyncio.gather(*coroutines, return_exceptions=True)
            if error := next((result for result in results if isinstance(result, BaseException)), None):
                raise error
            return results
        with ThreadPoolExecutor(max_workers=min(32, len(flows) or 1)) as pool:
            run = [partial(self.perform, flow, (*key, i), budget) for i, flow in enumerate(flows)]
            futures = [pool.submit(copy_context().run, each) for each in run]
            wait(futures)  # here, so that a Ctrl-C waits for the threads, which it ends, before it goes on
        return [future.result() for future in futures]

    async def _call(self, call: Call, key: Key, budget: Budget, is_async: bool) -> Reply:
        """The reply to a call: the one in the journal, or else a new one, which is saved there."""
        if not call.paid:
            return await self._make(call, key, budget, is_async)
        caller = key[1:2] + key[3:]  # without the round: the hash of the round before is extended
        id = digest(self.run_cache, key[0], caller, call.input, [key, dict(call.kwargs)])
        run_journal, thread = journal_of_run()
        journal = next(each for each in (self.journal, run_journal, self._memory) if each is not None)
        waits = is_async and journal is not self._memory
        with journal_errors():
            saved = await journal.aget(id, thread) if waits else journal.get(id, thread)
        if saved is not None:
            budget.add_saved(saved.usage, lane=key[2:4] + key[5::2])
            return saved
        with self._leaders.turn(call) as (leader, begun):
            if leader is not None:
                # a cancellation is of this call alone
                await asyncio.shield(asyncio.wrap_future(leader)) if is_async else leader.result()
            reply = await self._make(call, key, budget, is_async, begun)
        with journal_errors():
            await uncancelled(journal.aput(id, thread, reply)) if waits else journal.put(id, thread, reply)
        return reply

    async def _make(
        self, call: Call, key: Key, budget: Budget, is_async: bool, begun: Future[None] | None = None
    ) -> Reply:
        """Make a call, and count what it costs."""
        limit, start, raw, cost, answered = self.rate_limit, time.monotonic(), None, Usage(), False
        if call.paid:
            await _admitted(budget, key[2:4], is_async)
        left = budget.seconds_left()
        budget.begin()
        with collect_usage(begun) as callback:
            try:
                raw = await limit.aexecute(call, left) if is_async else limit.execute(call, left)
                value = call.read(raw)
                cost, answered = self._cost(call, raw, callback, start), True
            except (BudgetExceeded, GraphDrained):  # it was not made
                raise
            except Exception as error:
                error.__dict__[_COST] = cost = self._cost(call, raw, callback, start)
                raise
            finally:
                budget.end(cost, paid=call.paid, answered=answered)
        limit.used(cost.get("input", 0) + cost.get("output", 0))
        return Reply(value, cost)

    def _cost(self, call: Call, raw: Any, callback: UsageCallback, start: float) -> Usage:
        """What a call has cost, the call included."""
        if call.tracks_own_cost:
            return {}
        usage = Usage(**usage_of(raw, callback, self.prices), seconds=round(time.monotonic() - start, 6))
        calls = max(1, callback.calls)  # an agent makes several
        if self.rate_limit.total is not None:  # which has admitted one
            self.rate_limit.total.add({**usage, "calls": calls - 1} if call.paid else usage)
        return {"calls": calls, **usage} if call.paid else usage


async def _admitted(budget: Budget, attempt: Key, is_async: bool) -> None:
    """Return once the budget admits one more call."""
    while (answered := budget.admit(attempt)) is not None:
        left = budget.seconds_left()
        end = math.inf if left is None else time.monotonic() + left
        await await_slot(answered, end) if is_async else wait_for_slot(answered, end)


_COST = "icrl_cost"
"""Under which an error carries what its call has cost: models within it may have answered before it failed."""


_ALWAYS_RAISED = (GraphBubbleUp, JournalError, ModelError, ThreadBusy)
"""What no flow may turn into data: an interrupt of LangGraph, and what a person must fix."""


MIN_CACHED_CHARACTERS = 4096
"""About 1024 tokens: providers cache no shorter prompts."""
CACHE_SECONDS = 300.0
"""For how long they cache a prompt, at least."""


class _Leaders:
    """Of calls with the same long prompt that are to be made side by side, the first goes ahead.

    When its answer begins, the provider has the prompt in its cache, and the others read it there for a tenth of the
    price; at once, all of them would miss it. That is seen with the first piece of an answer that is streamed, else
    with the whole of it. Where it has failed, they are not held up any longer.
    """

    def __init__(self) -> None:
        self._leaders: OrderedDict[int, tuple[Future[None], float]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, call: Call) -> Iterator[tuple[Future[None] | None, Future[None] | None]]:
        """Yields what to wait for before the call is made, and what others wait for; None where there is neither."""
        if call.shares_prompt is None or len(str(call.input)) < MIN_CACHED_CHARACTERS:
            yield None, None
            return
        key, time_now, done = hash(call.shares_prompt), time.monotonic(), Future[None]()
        with self._lock:
            while self._leaders and next(iter(self._leaders.values()))[1] < time_now - CACHE_SECONDS:
                self._leaders.popitem(last=False)
            leader, _ = self._leaders.setdefault(key, (done, time_now))
        if leader is not done:
            yield leader, None
            return
        try:
            yield None, done
        except BaseException:
            with self._lock:
                self._leaders.pop(key, None)
            raise
        finally:
            if not done.done():
                done.set_result(None)
