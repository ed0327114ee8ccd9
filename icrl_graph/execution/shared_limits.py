"""Limits that processes on many machines share: a ledger in PostgreSQL, from which each takes a part at a time.

A total (calls, dollars) is one amount for a whole comparison. Who needs some takes a share of what is left, so that the
ledger is asked seldom while much is left, and for each call at the end. What was taken and not used is given back when
its holder ends (`Ledger.settle`); what a holder took that has died counts as spent, until all is counted anew from what
was saved (`Ledger.open`). A rate is a line of time: each request or token takes its seconds of it, and who finds the
line busy takes up to half a second at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from icrl_graph.execution.budget import TotalBudget
from icrl_graph.execution.queue import FairSemaphore
from icrl_graph.execution.rate_limit import Bucket, RateLimit
from icrl_graph.state.episode import Usage

TOTALS = ("calls", "usd")
"""The totals that a ledger counts; the time of a comparison is its driver's."""
STRETCH = 0.5
"""Seconds of a busy line that a process takes at once."""
PATIENCE = 120.0
"""Seconds to wait for a database that is being restarted."""

_Value = TypeVar("_Value")


class Ledger:
    """What is taken of the limits of a comparison, in PostgreSQL, and who may take of them.

    Args:
        address: of the database.
        comparison: the name of the comparison in it.
    """

    def __init__(self, address: str, comparison: str) -> None:
        self._address, self._comparison = address, comparison
        self._lock = threading.Lock()
        self._connection: Any = None

    def open(self, spent: Usage) -> None:
        """Begin anew: nothing is taken but what was spent so far, and whoever had been admitted may take no more."""

        def begin(connection: Any) -> None:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(_CLEAR, (self._comparison,))
            self._set(connection, _EARLIER, spent)

        self._run(begin)

    def clear(self) -> None:
        """Forget all of it; nobody may take any more."""
        self._run(lambda connection: connection.execute(_CLEAR, (self._comparison,)), patience=5.0)

    def admit(self, holder: str) -> None:
        """Let somebody take of the limits."""
        self._run(lambda connection: connection.execute(_SET, (self._comparison, _ADMITTED, holder, 0)))

    def is_admitted(self, holder: str) -> bool:
        """Whether a holder may go on."""
        return self._run(lambda connection: self._is_admitted(connection, holder))

    def revoke(self, holder: str) -> None:
        """Let a holder take no more; what it has taken counts as spent."""
        key = (self._comparison, _ADMITTED, holder)
        self._run(lambda connection: connection.execute(f"{_DELETE} AND holder = %s", key))

    def revoke_all(self) -> None:
        """Let nobody take any more: all stop once their calls in flight have answered."""
        self._run(lambda connection: connection.execute(_DELETE, (self._comparison, _ADMITTED)))

    def settle(self, holder: str, spent: Usage) -> None:
        """Say what a holder that has ended has spent; what it had taken beyond that is given back."""

        def end(connection: Any) -> None:
            connection.execute(f"{_DELETE} AND holder = %s", (self._comparison, _ADMITTED, holder))
            self._set(connection, holder, spent)

        self._run(end)

    def take(self, what: str, holder: str, cap: float, least: float, share: float) -> float:
        """Take some of a total.

        Args:
            what: calls or usd.
            holder: who takes it; one that is not admitted gets nothing more.
            cap: the total.
            least: to be taken, if as much is left.
            share: of what is left that is taken, 0 to 1; whole calls.

        Returns:
            What the holder has taken so far.
        """

        def of_rest(connection: Any) -> float:
            connection.execute(_LOCK, (self._comparison,))
            rest = max(0.0, cap - self._taken(connection, what)) if self._is_admitted(connection, holder) else 0.0
            wanted = max(least, math.floor(rest * share) if what == "calls" else rest * share)
            key = (self._comparison, what, holder)
            return float(connection.execute(_ADD, (*key, min(rest, wanted))).fetchone()[0])

        return self._run(of_rest)

    def rest(self, caps: Mapping[str, float]) -> dict[str, float]:
        """What is left of the totals that are capped, below 0 where they are overdrawn."""
        capped = [what for what in TOTALS if what in caps]
        return self._run(lambda connection: {what: caps[what] - self._taken(connection, what) for what in capped})

    def reserve(self, what: str, seconds: float) -> float:
        """Take the next seconds of the line of a rate; returns in how many seconds they begin."""
        parameters = {"comparison": self._comparison, "what": what, "seconds": seconds}
        return float(self._run(lambda connection: connection.execute(_RESERVE, parameters).fetchone()[0]))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _set(self, connection: Any, holder: str, spent: Usage) -> None:
        usd = math.inf if spent.get("unpriced") else spent.get("usd", 0.0)
        for what, amount in (("calls", spent.get("calls", 0)), ("usd", usd)):
            connection.execute(_SET, (self._comparison, what, holder, amount))

    def _is_admitted(self, connection: Any, holder: str) -> bool:
        key = (self._comparison, _ADMITTED, holder)
        return bool(connection.execute(_GET, key).fetchall())

    def _taken(self, connection: Any, what: str) -> float:
        taken = "SELECT coalesce(sum(amount), 0) FROM icrl_limits WHERE comparison = %s AND what = %s"
        return float(connection.execute(taken, (self._comparison, what)).fetchone()[0])

    def _run(self, work: Callable[[Any], _Value], patience: float | None = None) -> _Value:
        """Do it as one transaction; again with a new connection where that was broken, as by a restart.

        Raises:
            JournalError: the database can't be used, for longer than patience allows.
        """
        import psycopg
        import tenacity

        from icrl_graph.execution.postgres import conninfo_of, database_errors

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(psycopg.OperationalError),
            stop=tenacity.stop_after_delay(PATIENCE if patience is None else patience),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            reraise=True,
        )
        with self._lock, database_errors():
            for attempt in retrying:
                with attempt:
                    try:
                        if self._connection is None:
                            self._connection = psycopg.connect(conninfo_of(self._address), autocommit=True)
                        with self._connection.transaction():
                            result = work(self._connection)
                    except psycopg.OperationalError:
                        self._drop()
                        raise
        return result

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


_ADMITTED, _EARLIER = "admitted", "earlier"
_SCHEMA: Sequence[str] = (
    f"SELECT pg_advisory_xact_lock({0x1C41})",
    "CREATE TABLE IF NOT EXISTS icrl_limits (comparison TEXT, what TEXT, holder TEXT, "
    "amount DOUBLE PRECISION NOT NULL, PRIMARY KEY (comparison, what, holder))",
)
_GET = "SELECT amount FROM icrl_limits WHERE comparison = %s AND what = %s AND holder = %s"
_CLEAR = "DELETE FROM icrl_limits WHERE comparison = %s"
_DELETE = "DELETE FROM icrl_limits WHERE comparison = %s AND what = %s"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('icrl_limits/' || %s, 0))"
_INSERT = (
    "INSERT INTO icrl_limits AS old (comparison, what, holder, amount) VALUES (%s, %s, %s, %s) "
    "ON CONFLICT (comparison, what, holder) DO UPDATE SET amount = "
)
_SET = f"{_INSERT} excluded.amount"
_ADD = f"{_INSERT} old.amount + excluded.amount RETURNING amount"
_NOW = "extract(epoch FROM clock_timestamp())::double precision"
_RESERVE = (
    "INSERT INTO icrl_limits AS old (comparison, what, holder, amount) "
    f"VALUES (%(comparison)s, %(what)s, '', {_NOW} + %(seconds)s) ON CONFLICT (comparison, what, holder) "
    f"DO UPDATE SET amount = greatest(old.amount, {_NOW}) + %(seconds)s RETURNING amount - %(seconds)s - {_NOW}"
)


class SharedTotal(TotalBudget):
    """A total budget of which other processes spend, too.

    Args:
        caps: those of all; "time" is what is left of it.
        ledger: where they are kept.
        holder: a name for what is taken here.
        share: of what is left of a total that is taken at once, 0 to 1.
    """

    def __init__(self, caps: Mapping[str, float], ledger: Ledger, holder: str, share: float) -> None:
        self._totals = {what: caps[what] for what in TOTALS if what in caps}
        super().__init__({**caps, **dict.fromkeys(self._totals, 0.0)}, {})  # nothing is taken yet
        self._ledger, self._holder, self._share, self._dearest = ledger, holder, share, 0.0
        self.reached = None

    def add(self, usage: Usage) -> None:
        """Add what a call has cost."""
        self._dearest = max(self._dearest, usage.get("usd", 0.0))
        super().add(usage)

    def _extend(self, cap: str) -> bool:
        """Take more of a total, where something is left of it."""
        if cap not in self._totals:
            return False
        taken = self.caps[cap] or 0.0
        one = 1.0 if cap == "calls" else self._dearest or self._totals[cap] / 1000
        overdrawn = max(0.0, cast(Mapping[str, float], self._spent).get(cap, 0.0) - taken)
        amount = self._ledger.take(cap, self._holder, self._totals[cap], overdrawn + one, self._share)
        self.caps = {**self.caps, cap: amount}
        return amount > taken


class SharedBucket(Bucket):
    """A bucket that other processes take from, too.

    Args:
        rate: units a minute of all of them; None for no limit.
        ledger: where the line is kept.
        what: requests or tokens.
    """

    def __init__(self, rate: float | None, ledger: Ledger, what: str) -> None:
        super().__init__(rate)
        self._ledger, self._what = ledger, what
        self._end = self._stretch = 0.0

    def take(self, units: float) -> float:
        """Take units; returns the seconds to wait before they may be used."""
        if not self._seconds_each:
            return 0.0
        with self._lock:
            if max(time.monotonic(), self._free_at) > self._end - self._seconds_each / 2:  # no whole unit is left
                self._reserve(is_busy=time.monotonic() < self._end)
            time_now = time.monotonic()
            start = max(time_now, self._free_at)
            self._free_at = start + units * self._seconds_each
            return start - time_now

    def _reserve(self, is_busy: bool) -> None:
        """Take more of the line: what was overdrawn, and a stretch, longer each time that one was used up early."""
        self._stretch = min(2 * self._stretch, max(STRETCH, self._seconds_each)) if is_busy else self._seconds_each
        overdrawn = max(0.0, self._free_at - self._end)
        seconds = self._ledger.reserve(self._what, overdrawn + self._stretch)
        self._free_at = time.monotonic() + seconds + overdrawn
        self._end = self._free_at + self._stretch


def share(
    rate_limit: RateLimit,
    caps: Mapping[str, float],
    ledger: Ledger,
    holder: str,
    *,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    concurrency: int,
    share: float,
) -> SharedTotal:
    """Have a rate limit take from a ledger what its calls use.

    Args:
        rate_limit: none of its calls is in flight.
        caps: see `SharedTotal`.
        ledger: the same.
        holder: the same.
        requests_per_minute: of all processes.
        tokens_per_minute: the same.
        concurrency: calls in flight here.
        share: see `SharedTotal`.

    Returns:
        Its total budget.
    """
    rate_limit.slots = FairSemaphore(concurrency)
    rate_limit.requests = SharedBucket(requests_per_minute, ledger, "requests")
    rate_limit.tokens = SharedBucket(tokens_per_minute, ledger, "tokens")
    rate_limit.total = total = SharedTotal(caps, ledger, holder, share)
    return total
