"""Caps on calls, tokens, dollars and time, and what is spent of them: of one run, or of many together."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future

from langgraph.errors import GraphDrained

from icrl_graph.errors import BudgetExceeded
from icrl_graph.state.episode import Usage, add_usage

Caps = Mapping[str, float | None]
"""On "calls", "tokens" (in and out), "usd" and "time" (seconds); None for no cap."""


class Budget:
    """Caps, and what is spent of them; shared by all calls that may be made side by side.

    What a call will cost is known only once it is answered. So under a cap of tokens or dollars the first call goes
    ahead, and another is made beside those in flight only if they all fit, should each cost as much as the dearest so
    far: no cap is passed by more than one such step. Time is that of the clock: what runs side by side counts once.

    Args:
        caps: the caps.
        spent: what was spent before.
        one: what the dearest call of this kind has cost so far; None if none was answered.
        set_aside: what has to be left for each attempt, so that it can be judged; {} for nothing.
    """

    def __init__(self, caps: Caps, spent: Usage, one: Usage | None = None, set_aside: Usage | None = None) -> None:
        self.caps, self.spent = caps, spent
        self._dearest, self._set_aside = one, set_aside or Usage()
        self._lock = threading.Lock()
        self._running, self._since, self._in_flight = 0, 0.0, 0
        self._waiting: list[Future[None]] = []
        self._attempts, self._resumed = set[Hashable](), set[Hashable]()
        self._earlier = defaultdict[Hashable, float](float)

    def resume(self, key: Hashable, spent: Usage) -> None:
        """Count what an episode had spent before it was resumed; once for each key, for its nodes all call this."""
        with self._lock:
            if key not in self._resumed:
                self._resumed.add(key)
                self._add_earlier(key, spent)

    def admit(self, attempt: Hashable) -> Future[None] | None:
        """Count one more call, before it is made.

        Args:
            attempt: which attempt it is made for.

        Returns:
            None if it may be made now; else what to wait for before it is asked again.

        Raises:
            BudgetExceeded: a cap is reached, or what is left of it is set aside for judging the other attempts.
        """
        with self._lock:
            if cap := exhausted(self.caps, self._now()):
                raise BudgetExceeded(cap)
            cap = self._would_pass(len(self._attempts | {attempt}))
            if cap and self._in_flight:
                self._waiting.append(answered := Future[None]())
                return answered
            if cap:
                raise BudgetExceeded(cap)
            self._attempts.add(attempt)
            self._in_flight += 1
        return None

    def _would_pass(self, attempts: int) -> str | None:
        """The cap of tokens or dollars that one more call may pass, beside those in flight and what is set aside."""
        caps = {name: self.caps.get(name) for name in ("tokens", "usd")}
        if self._dearest is None and self._in_flight:
            return next((name for name, cap in caps.items() if cap is not None), None)
        calls = self._in_flight + bool(self._set_aside)
        ahead = [self._dearest or {}] * calls + [self._set_aside] * attempts
        return exhausted(caps, add_usage(self.spent, *ahead))

    def seconds_left(self) -> float | None:
        """The seconds that are left of the cap on time; None without one."""
        cap = self.caps.get("time")
        with self._lock:
            return None if cap is None else cap - self._now().get("seconds", 0.0)

    def begin(self) -> None:
        """Let the clock run, while something is waited for."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1

    def end(self, cost: Usage, *, paid: bool, answered: bool) -> None:
        """Count what a call that was begun has cost.

        Args:
            cost: what it has cost; nothing where it was not made.
            paid: whether it was admitted before.
            answered: whether its cost tells what others may cost.
        """
        with self._lock:
            self._running -= 1
            seconds = 0.0 if self._running else time.monotonic() - self._since
            self.spent = add_usage(self.spent, {**cost, "seconds": seconds})
            if paid:
                self._in_flight -= 1
            if paid and answered:
                self._learn(cost)
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.set_running_or_notify_cancel():
                each.set_result(None)

    def add_saved(self, usage: Usage, lane: Hashable) -> None:
        """Count what a saved reply had cost.

        Args:
            usage: its cost.
            lane: which of the calls that were made side by side it is from: of their times the longest counts.
        """
        with self._lock:
            self._add_earlier(lane, usage)
            self._learn(usage)

    def _add_earlier(self, lane: Hashable, usage: Usage) -> None:
        self.spent = add_usage(self.spent, {**usage, "seconds": 0.0})
        self._earlier[lane] += usage.get("seconds", 0.0)

    def _learn(self, cost: Usage) -> None:
        self._dearest = dearest([cost] if self._dearest is None else [self._dearest, cost])

    def _now(self) -> Usage:
        running = time.monotonic() - self._since if self._running else 0.0
        earlier = max(self._earlier.values(), default=0.0)
        return add_usage(self.spent, {"calls": self._in_flight, "seconds": running + earlier})


def dearest(costs: Sequence[Usage]) -> Usage:
    """The largest of each amount that a call may be estimated by."""
    return Usage(
        input=max(cost.get("input", 0) for cost in costs),
        output=max(cost.get("output", 0) for cost in costs),
        usd=max(cost.get("usd", 0.0) for cost in costs),
    )


class TotalBudget:
    """Caps on many runs together.

    Which of their calls would be the one too many is chance, so it is no outcome of the run that makes it: that run is
    left as a drain leaves it, and is resumed where the cap is raised.

    Args:
        caps: caps on "calls", "usd" and "time" (seconds by the clock, not of calls); None for no cap.
        spent: what was spent before.

    Attributes:
        reached: the cap that a call was refused for, or None.
    """

    def __init__(self, caps: Caps, spent: Usage) -> None:
        self.caps, self.reached = caps, None if not caps else exhausted(caps, spent)
        self._spent, self._start, self._lock = spent, time.monotonic(), threading.Lock()

    @property
    def spent(self) -> Usage:
        """What is spent so far, with the seconds until now."""
        return {**self._spent, "seconds": self._spent.get("seconds", 0.0) + time.monotonic() - self._start}

    def admit(self, again: bool = False) -> None:
        """Count one more call, in the moment in which it is made.

        Args:
            again: it is another attempt of a call that was counted.

        Raises:
            GraphDrained: a cap is reached.
        """
        counted = {"calls"} if again else set()
        with self._lock:
            while cap := exhausted({name: self.caps[name] for name in self.caps.keys() - counted}, self.spent):
                if not self._extend(cap):
                    self.reached = cap
                    raise GraphDrained(f"the total of {cap} is spent")
            if not again:
                self._spent = add_usage(self._spent, {"calls": 1})

    def _extend(self, cap: str) -> bool:
        """Raise a cap, where that is a part of a larger one; returns whether it was raised."""
        return False

    def add(self, usage: Usage) -> None:
        """Add what a call has cost; its seconds are the clock's."""
        with self._lock:
            self._spent = add_usage(self._spent, {**usage, "seconds": 0.0})

    def seconds_left(self) -> float:
        """The seconds that are left; infinite without a cap on time."""
        cap = self.caps.get("time")
        return math.inf if cap is None else max(0.0, cap - self.spent["seconds"])


def exhausted(caps: Caps, spent: Usage) -> str | None:
    """The first cap that is reached, or None."""
    amounts = {
        "calls": spent.get("calls", 0),
        "tokens": spent.get("input", 0) + spent.get("output", 0),
        "usd": math.inf if spent.get("unpriced") else spent.get("usd", 0.0),  # an unknown price is above any cap
        "time": spent.get("seconds", 0.0),
    }
    reached = (name for name, cap in caps.items() if cap is not None and amounts[name] >= cap)
    return next(reached, None)
