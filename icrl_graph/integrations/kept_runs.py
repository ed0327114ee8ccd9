"""Runs that clients of a server ask for, may leave, and may ask for again: nothing of them is paid twice.

A request that is repeated is the run that it was before. One with a key is always the same run. Without a key, an equal
request takes over a run whose result has reached nobody, because its client has gone; one whose result was delivered is
given again only to who says that the request is a repeat.

A run that nobody waits for any more begins no further call; its repeat goes on from there. One that came to nothing,
because its model or its evaluator only failed, is told as an error, and its repeat is a new run with all its limits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, count
from os import PathLike
from typing import Any, cast
from uuid import uuid4

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from icrl_graph.api import Result, aplay
from icrl_graph.errors import BudgetExceeded, IcrlError, ModelError
from icrl_graph.execution.retry import describe
from icrl_graph.execution.run_file import drivers_of
from icrl_graph.execution.sql_journals import beside
from icrl_graph.state.episode import Episode, answer_of, error_of, is_lost
from icrl_graph.state.events import EpisodeEvent
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.nodes.parts import made_of

logger = logging.getLogger(__name__)

KEPT = 3600.0
"""Seconds for which a result with a key is kept in memory, where runs are not saved."""


class TooManyRuns(IcrlError):
    """As many runs are being played as may be."""


class Stopping(IcrlError):
    """The server begins no further run; what was answered of this one is kept, if runs are saved."""


class KeyReused(IcrlError):
    """A key was given with another request before."""


class EvaluatorFailed(IcrlError):
    """The evaluator has failed at every attempt.

    Args:
        why: what was raised, which may tell task data.

    Attributes:
        logged: the message with that.
    """

    def __init__(self, why: str) -> None:
        super().__init__("the evaluator failed at every attempt; the server's log says why")
        self.logged = f"the evaluator failed at every attempt: {why}"


@dataclass(eq=False)
class Run:
    """A run, and who waits for it."""

    graph: Graph
    inputs: dict[str, Any]
    settings: dict[str, Any]
    equal: str
    """The same for equal requests, and for all of a key."""
    thread: str
    """What it is saved under."""
    has_key: bool
    created: float = field(default_factory=time.time)
    outcome: Result | Exception | None = None
    clients: int = 0
    is_delivered: bool = False
    """Whether a client has got its result."""
    was_saved: bool = False
    """Whether it goes on with what an earlier server has saved."""
    events: list[EpisodeEvent] = field(default_factory=list)
    """Of its attempts, since this process plays it."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    control: RunControl = field(default_factory=RunControl)
    saver: InMemorySaver | None = field(default_factory=InMemorySaver)
    task: asyncio.Task[None] | None = None
    forgetting: asyncio.Task[None] | None = None
    deleting: asyncio.Task[None] | None = None

    @property
    def is_played(self) -> bool:
        """Whether calls of it may be in flight."""
        return self.task is not None and not self.task.done()

    @property
    def result(self) -> Result:
        """What it has given.

        Raises:
            Exception: it has failed.
        """
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return cast(Result, self.outcome)

    def tell(self, event: EpisodeEvent) -> None:
        """Tell who follows of an attempt."""
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        """Have who follows look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class KeptRuns:
    """The runs of a server.

    Args:
        path: an SQLite file, or the address of a PostgreSQL database, that they are saved in; None: in memory.
        most: how many are played at once.
        grace: seconds for which one is known after its last client has gone.
    """

    def __init__(self, path: str | PathLike[str] | None, most: int, grace: float) -> None:
        self._path, self._most, self._grace = path, most, grace
        self._runs, self._turned_away, self._is_closing = dict[str, Run](), Counter[str](), False
        self._drive: Callable[[str], AbstractAsyncContextManager[Any]]
        self._left = set[str]()
        """Saved threads of no run here that an equal run has gone before, by which alone they are not found."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Within the block, runs are played; at its end those that are still under way are broken off."""
        async with drivers_of(self._path) as self._drive:
            self._left = await self._begun_before()
            try:
                yield
            finally:
                self._is_closing = True
                tasks = [task for run in self._runs.values() for task in (run.task, run.forgetting) if task is not None]
                for task in tasks:
                    task.cancel()
                deleting = [run.deleting for run in self._runs.values() if run.deleting is not None]
                await asyncio.gather(*tasks, *deleting, return_exceptions=True)

    async def drain(self) -> None:
        """Begin no further run, and return once none is played.

        Where they are saved, each ends after the calls in flight; else it is played to its end.
        """
        self._is_closing = True
        while tasks := [run.task for run in self._runs.values() if run.task is not None and run.is_played]:
            for run in self._runs.values() if self._path is not None else ():
                run.control.request_drain("the server stops")
            await asyncio.wait(tasks)

    def ask(self, graph: Graph, inputs: Any, settings: Any, name: str, key: str | None, *, is_repeat: bool) -> Run:
        """The run that a request is for, a new one or that of an earlier request; it is played or has ended.

        Args:
            graph: what runs.
            inputs: the task and its data.
            settings: all of the run.
            name: of the graph.
            key: what the client calls the request, if it does.
            is_repeat: whether the client says that it has made the request before.

        Raises:
            KeyReused: the key is that of another request.
            TooManyRuns: there is no room for another run.
            Stopping: no run is begun any more.
        """
        asked = [name, made_of(graph.parts), *([key] if key else [inputs, settings])]
        equal = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]
        known = [run for run in self._runs.values() if run.equal == equal]
        lost = [run for run in known if not run.clients and not run.is_delivered]
        if self._turned_away[equal] and is_repeat:  # of a request that got no run, so it is no run's
            self._turned_away[equal] -= 1
            is_repeat = False
        self._turned_away += Counter()  # drops what is 0
        run = next(iter([*lost, *(known[::-1] if key or is_repeat else ())]), None)
        if run is None:
            left = (thread for thread in self._left if thread.startswith(f"{equal}."))
            places = (f"{equal}.{place}" for place in count())
            thread = next(thread for thread in chain(left, places) if thread not in self._runs)
            run = Run(graph, inputs, settings, equal, thread, has_key=bool(key))
        elif (run.inputs, run.settings) != (inputs, settings):
            raise KeyReused("this key was given with another request")
        if not run.is_played and not isinstance(run.outcome, Result):
            if sum(each.is_played for each in self._runs.values()) >= self._most:
                self._turned_away[equal] += 1
                raise TooManyRuns(f"{self._most} runs are being played; ask again later")
            self._begin(run)
        self._runs[run.thread] = run
        self._left.discard(run.thread)
        return run

    @contextmanager
    def waiting(self, run: Run) -> Iterator[None]:
        """Be one who waits for a run."""
        run.clients += 1
        if run.forgetting is not None:
            run.forgetting.cancel()
        try:
            yield
        finally:
            run.clients -= 1
            if not run.clients:
                run.control.request_drain("its client has gone")
                run.forgetting = asyncio.create_task(self._forget(run))

    def delivered(self, run: Run) -> None:
        """Note that a client has got the result of a run: without a key, no later server gives it again either."""
        run.is_delivered = True
        if self._path is not None and not run.has_key and run.deleting is None:
            run.deleting = asyncio.create_task(self._delete(run))

    async def follow(self, run: Run, every: float) -> AsyncGenerator[EpisodeEvent | None, None]:
        """The attempts of a run until it has ended; None after so many seconds without one."""
        told = 0
        while True:
            while told < len(run.events):
                told += 1
                yield run.events[told - 1]
            if run.outcome is not None:
                return
            if not run.is_played:  # it was drained before this client came
                self._begin(run)
            try:
                async with asyncio.timeout(every):
                    await run.changed.wait()
            except TimeoutError:
                yield None

    def _begin(self, run: Run) -> None:
        if self._is_closing:
            raise Stopping("the server stops; ask again")
        run.control, run.outcome = RunControl(), None
        run.task = asyncio.create_task(self._play(run))

    async def _play(self, run: Run) -> None:
        try:
            async with nullcontext(run.saver) if self._path is None else self._drive(run.thread) as saver:
                await _begin_anew_what_failed(run, saver)
                result = await aplay(run.graph, run.inputs, saver, run.thread, run.tell, run.control, run.settings)
            if (failure := _failure(result.episodes, result.stopped)) is not None:
                raise failure
            if result.answer is None and result.stopped == "failures":
                raise ModelError(f"the model failed too often in a row: {error_of(result.episodes[-1])}")
            run.outcome, run.saver = result, None
        except GraphDrained:
            pass
        except asyncio.CancelledError:
            run.outcome = Stopping("the server has stopped")
            raise
        except Exception as error:
            if isinstance(error, EvaluatorFailed):
                logger.error("%s", error.logged)
            run.outcome = error
        finally:
            run.wake()

    async def _forget(self, run: Run) -> None:
        """Forget a run after a while. One that is saved is found again, if it has a key or has reached nobody."""
        await asyncio.sleep(KEPT if run.has_key and run.is_delivered and self._path is None else self._grace)
        if under_way := [task for task in (run.task, run.deleting) if task is not None]:
            await asyncio.wait(under_way)
        if self._path is not None and not run.is_delivered:
            self._left.add(run.thread)
        del self._runs[run.thread]

    async def _begun_before(self) -> set[str]:
        if self._path is None:
            return set()
        async with self._drive(uuid4().hex) as saver:
            await saver.setup()
            return {thread for thread in await cast(Any, beside(saver)).athreads() if not thread.endswith(".0")}

    async def _delete(self, run: Run) -> None:
        try:
            async with self._drive(run.thread) as saver:
                await _delete_thread(saver, run.thread)
        except Exception as error:
            logger.warning("a run that was delivered could not be deleted: %s", describe(error))


async def _begin_anew_what_failed(run: Run, saver: Any) -> None:
    """Delete what is saved of a run, if it came to nothing; what was answered of one that was broken off is kept."""
    stored = await run.graph.saved_by(saver).aget_state({"configurable": {"thread_id": run.thread}})
    failed = _failure(stored.values.get("episodes", []), stored.values.get("stopped")) is not None
    run.was_saved = bool(stored.values) and not failed
    if failed:
        await _delete_thread(saver, run.thread)
        run.events.clear()


async def _delete_thread(saver: Any, thread: str) -> None:
    journal = beside(saver)
    await (saver.adelete_thread(thread) if journal is None else journal.adelete_threads([thread]))


_SPENT = {str(BudgetExceeded(cap)) for cap in ("calls", "tokens", "usd", "time")}
"""Why an attempt was not judged, where no evaluator has failed."""


def _failure(episodes: Sequence[Episode], stopped: str | None) -> Exception | None:
    """Why a run came to nothing: its model or, of one that has ended, its evaluator only failed; None if neither."""
    lost = [each for each in episodes if is_lost(each)]
    if lost and all(is_lost(each) or each.get("error_kind") == "cap" for each in episodes):
        return ModelError(f"the model answered no attempt: {error_of(lost[-1])}")
    judged = [each["reward"] for each in episodes if "reward" in each and answer_of(each) is not None]
    asked = [each for each in judged if each.get("error") not in _SPENT]
    failed = [
        each["error"] for each in asked if each.get("value") is None and "error" in each and "feedback" not in each
    ]
    is_over = stopped == "evaluator" or (stopped is not None and len(failed) == len(asked))
    return EvaluatorFailed(failed[-1]) if failed and is_over else None
