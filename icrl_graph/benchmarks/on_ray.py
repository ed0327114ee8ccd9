"""Works the runs of a comparison off on a Ray cluster, as shards (`icrl_graph.benchmarks.shards`).

The driver gives shards to stateless Ray tasks, one for each CPU of the cluster at most, and takes what comes of their
runs as it comes. What dies is not repeated by Ray: the driver gives its runs to other shards, which resume their
threads from PostgreSQL. A run that was in flight when a worker died comes back alone, in a shard of its own; one that
has killed its worker three times alone is set aside, as a row that says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from icrl_graph.benchmarks.arms import Arm
from icrl_graph.benchmarks.engine import Session
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row, failure
from icrl_graph.benchmarks.shards import News, Shard, play
from icrl_graph.errors import IcrlError, JournalError, ModelError, missing_extra
from icrl_graph.execution.shared_limits import Ledger
from icrl_graph.state.episode import Usage

logger = logging.getLogger(__name__)

WAVES = 8
"""Runs of a shard, for each that it plays at once, at most."""
ALONE = 3
"""How often a run may kill its worker while it is alone there."""
TRIES = 10
"""How often in a row nothing may come of a shard, as where the database is out of reach."""
LONGEST_WAIT = 30.0
"""Seconds between two such tries at most."""
POLL = 0.5
"""Seconds between two looks at whether the session is over."""


def connected(address: str | None) -> AbstractContextManager[None]:
    """Connect this process to a Ray cluster for a block, unless it is connected.

    Args:
        address: of the cluster; None for the one that Ray finds: RAY_ADDRESS, one on this machine, else a new one.

    Raises:
        MissingExtra: the extra `ray` is not installed.
        ConnectionError: there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as missing:
        raise missing_extra("ray", "ray") from missing
    return _connected(ray, address)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    if named := address or os.environ.get("RAY_ADDRESS"):
        _reach(named)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process at once
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise unless something listens there: Ray itself tries for many minutes.

    Raises:
        ConnectionError: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):  # "auto", or one that Ray refuses
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"there is no Ray cluster at {address}: {error}") from error


@dataclass
class _Told:
    """What a shard has told.

    Attributes:
        open: its runs that have no row yet.
        begun: those of them that it has begun.
        spent: what it has spent, once it has ended.
        reached: the total that a call of it was refused for.
        broken: why it could not go on, as where the database was out of reach.
        crash: how its worker died.
    """

    open: dict[Cell, None]
    begun: set[Cell] = field(default_factory=set)
    spent: Usage | None = None
    reached: str | None = None
    broken: str | None = None
    crash: Exception | None = None


class OnRay:
    """Works runs off on the Ray cluster that this process is connected to.

    Args:
        plan: what is compared.
        arms: its arms by their names.
        comparison: it as shards take it (`shards.packed`).
        address: of the PostgreSQL database in which its runs are saved.
        name: its name there.
    """

    here = 0

    def __init__(self, plan: Plan, arms: Mapping[str, Arm], comparison: bytes, address: str, name: str) -> None:
        self._plan, self._arms, self._comparison = plan, arms, comparison
        self._address, self._name, self._ledger = address, name, Ledger(address, name)
        self._died, self._died_alone = Counter[Cell](), Counter[Cell]()
        self._failed = 0
        """Shards in a row of which nothing has come."""
        self._is_begun = False
        self._has_played = False
        """Whether anything has come of a shard: workers can begin."""
        self._is_refused = False
        """Whether a total was refused to a shard: others may still hold some of it, but no more shards are begun."""
        self._is_exact = True
        """Whether the ledger holds what was spent, not more: no worker has died with a part of a total."""

    async def work_off(self, cells: Sequence[Cell], session: Session) -> None:
        """Make the rows of these runs."""
        import ray

        self._waiting, self._alone = deque(cells), deque[Cell]()
        self._drawn = self._rewards(cells, session.rows)
        self._following: dict[asyncio.Task[_Told], Shard] = {}
        if not self._is_begun:
            await asyncio.to_thread(self._ledger.open, session.total.spent)
            self._is_begun = True
        comparison = ray.put(self._comparison)
        task = ray.remote(num_cpus=1, max_retries=0)(play)
        try:
            while True:
                while shard := self._next_shard(session):
                    await asyncio.to_thread(self._ledger.admit, shard.name)
                    followed = self._follow(task.remote(comparison, shard), shard, session)
                    self._following[asyncio.ensure_future(followed)] = shard
                if not self._following:
                    if await self._is_done(session):
                        return
                    continue
                done, _ = await asyncio.wait(self._following, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
                if session.is_over():
                    await asyncio.to_thread(self._ledger.revoke_all)
                for each in done:
                    await self._take_back(self._following.pop(each), each.result(), session)
        finally:
            for each in self._following:
                each.cancel()

    def close(self) -> None:
        """End all shards, once their calls in flight have answered, and forget what they had taken."""
        with suppress(Exception):  # without the database none of them goes on, either
            self._ledger.clear()
        self._ledger.close()

    def _next_shard(self, session: Session) -> Shard | None:
        """The next shard to begin; None if none is waiting, or enough are in flight."""
        import ray

        if session.is_over() or self._is_refused or not (self._alone or self._waiting):
            return None
        shards, concurrency = self._following.values(), self._plan.concurrency
        most = max(1, min(int(ray.cluster_resources().get("CPU", 0)), concurrency))
        free = concurrency - sum(shard.concurrency for shard in shards)
        if len(shards) >= most or free <= 0:
            return None
        at_once = min(free, math.ceil(concurrency / most))
        cells = [self._alone.popleft()] if self._alone else _cut(self._waiting, most, most - len(shards), at_once)
        caps = {name: cap for name, cap in session.total.caps.items() if cap is not None}
        if "time" in caps:
            caps["time"] = session.total.seconds_left()
        return Shard(
            name=uuid4().hex,
            cells=cells,
            drawn=self._drawn,
            concurrency=min(at_once, len(cells)),
            caps=caps,
            share=1 / (4 * most),
            address=self._address,
            comparison=self._name,
        )

    async def _follow(self, news: Any, shard: Shard, session: Session) -> _Told:
        """Pass on what a shard tells, until it has ended or died."""
        from ray.exceptions import RayError, RayTaskError

        told = _Told(dict.fromkeys(shard.cells))
        try:
            async for some in news:
                for each in await some:
                    await self._pass_on(each, told, session)
        except RayTaskError as error:
            raise IcrlError(f"a worker of the cluster can't begin: {error.cause}") from error
        except RayError as error:
            _check_connected(error)
            told.crash = error
        return told

    async def _pass_on(self, news: News, told: _Told, session: Session) -> None:
        cell, value = news.cell, news.value
        if news.kind == "end":
            told.reached, told.spent = value
        elif news.kind == "broken":
            told.broken = value
        elif news.kind == "wrong":
            raise ValueError(value)
        elif cell is None or cell not in told.open:
            raise IcrlError(f"a worker tells {news.kind} of {cell}, which is none of its runs")
        elif news.kind == "begun":
            told.begun.add(cell)
        elif news.kind == "attempt":
            self._failed, self._has_played = 0, True
            session.attempt(cell, value)
        else:
            del told.open[cell]
            told.begun.discard(cell)
            if news.kind == "row":
                await session.row(cell, value)
            else:
                await session.refused(cell, ModelError(value))

    async def _take_back(self, shard: Shard, told: _Told, session: Session) -> None:
        """Count what a shard has spent, and let others play what it has not."""
        if told.spent is None:
            self._is_exact = False
            await asyncio.to_thread(self._ledger.revoke, shard.name)
        else:
            session.total.add(told.spent)
            await asyncio.to_thread(self._ledger.settle, shard.name, told.spent)
        if told.reached == "time":
            session.total.reached = "time"
        self._is_refused |= told.reached is not None
        if told.crash is not None:
            await self._suspect(shard, told, told.crash, session)
        else:
            self._waiting.extendleft(reversed(told.open))
        if told.crash is not None and not told.begun:
            await self._wait(IcrlError(f"workers of the cluster die before they begin: {_first_line(told.crash)}"))
        elif told.broken is not None and not session.is_over():
            await self._wait(JournalError(told.broken))
        elif told.crash is None and told.open and not (session.is_over() or self._is_refused):
            await self._wait(IcrlError(f"workers of the cluster give up {len(told.open)} runs without a reason"))

    async def _suspect(self, shard: Shard, told: _Told, crash: Exception, session: Session) -> None:
        """Runs that were in flight when a worker died come back alone, but for the first time that their node died."""
        from ray.exceptions import NodeDiedError

        begun = told.begun
        if not begun and self._has_played:  # a run that kills its worker at once, before that could tell of it
            begun = set(list(told.open)[: shard.concurrency])
        self._died.update(begun)
        for cell in reversed(told.open):
            if cell in begun and len(shard.cells) == 1:
                self._died_alone[cell] += 1
            if self._died_alone[cell] >= ALONE:
                reason = f"its worker died {ALONE} times while it was alone there: {_first_line(crash)}"
                await session.row(cell, failure(cell, reason))
            elif cell in begun and not (isinstance(crash, NodeDiedError) and self._died[cell] == 1):
                self._alone.append(cell)
            else:
                self._waiting.appendleft(cell)

    async def _wait(self, error: IcrlError) -> None:
        """Wait before the next try, longer each time in which nothing came of one.

        Raises:
            IcrlError: too many tries have failed in a row.
        """
        self._failed += 1
        if self._failed >= TRIES:
            raise error
        seconds = min(2.0 ** (self._failed - 1), LONGEST_WAIT)
        logger.warning("%s; next try in %.0f s", error, seconds)
        await asyncio.sleep(seconds)

    async def _is_done(self, session: Session) -> bool:
        """Whether nothing more can be done, now that no shard is in flight.

        A total may have been refused while another shard held some of it that it has not used.
        """
        if not (self._waiting or self._alone) or session.is_over():
            return True
        self._is_refused = False
        caps = {name: cap for name, cap in session.total.caps.items() if cap is not None}
        for is_anew in (False, True):
            rest = await asyncio.to_thread(self._ledger.rest, caps)
            reached = next((name for name, left in rest.items() if left <= 0), None)
            if reached is None:
                return False
            if not is_anew and not self._is_exact:
                await asyncio.to_thread(self._ledger.open, await session.spent())
                self._is_exact = True
        session.total.reached = reached
        return True

    def _rewards(self, cells: Sequence[Cell], rows: Mapping[Cell, Row]) -> dict[Cell, Row]:
        """What of the rows these runs draw from: rewards alone."""
        drawn = {self._arms[arm].draws_from for arm in {cell.arm for cell in cells}}
        episodes: Any = {
            cell: [{"reward": episode["reward"]} for episode in row.get("episodes", [])]
            for cell, row in rows.items()
            if cell.arm in drawn
        }
        return {cell: Row(episodes=of_cell) for cell, of_cell in episodes.items()}


def _cut(waiting: deque[Cell], workers: int, idle: int, at_once: int) -> list[Cell]:
    """Take the runs of a shard.

    Fewer towards the end, so that all workers end at about the same time, but as many as can be played at once; more
    are a multiple of that, so that runs of the same length leave no place empty.

    Args:
        waiting: the runs that are left.
        workers: that play.
        idle: of them, those that have no shard.
        at_once: runs that a worker plays side by side.
    """
    size = max(math.ceil(len(waiting) / (2 * workers)), min(at_once, math.ceil(len(waiting) / idle)))
    if size > at_once:
        size = min(math.ceil(size / at_once), WAVES) * at_once
    return [waiting.popleft() for _ in range(min(size, len(waiting)))]


def _check_connected(error: Exception) -> None:
    """Raise if this process has lost its own node: whatever it did now would fail, too.

    Raises:
        ConnectionError: it has.
    """
    from ray.exceptions import LocalRayletDiedError

    if isinstance(error, LocalRayletDiedError):
        raise ConnectionError(
            "the Ray node of this process has died; start it again (ray start --address=...), or run this on another "
            "node, and resume"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
