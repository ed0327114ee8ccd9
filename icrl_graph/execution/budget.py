"""Caps on calls, tokens, dollars and time, and what is spent of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Mapping

from icrl_graph.errors import BudgetExceeded
from icrl_graph.state.episode import Usage, add_usage


class Budget:
    """Caps, and what is spent of them; shared by the calls that one node makes.

    Args:
        caps: caps on "calls", "tokens" (in and out), "usd" and "time" (seconds); None for no cap.
        spent: what was spent before.
    """

    def __init__(self, caps: Mapping[str, float | None], spent: Usage) -> None:
        self.caps, self.spent = caps, spent
        self._lock, self._resumed = threading.Lock(), set[Hashable]()

    def resume(self, key: Hashable, spent: Usage) -> None:
        """Count what an episode had spent before it was resumed; once for each key, for its nodes all call this."""
        with self._lock:
            if key not in self._resumed:
                self._resumed.add(key)
                self.spent = add_usage(self.spent, spent)

    def admit(self) -> None:
        """Count one more call, before it is made.

        Raises:
            BudgetExceeded: a cap is reached.
        """
        with self._lock:
            if cap := exhausted(self.caps, self.spent):
                raise BudgetExceeded(cap)
            self.spent = add_usage(self.spent, {"calls": 1})

    def seconds_left(self) -> float | None:
        """The seconds that are left of the cap on time; None without one."""
        cap = self.caps.get("time")
        return None if cap is None else cap - self.spent.get("seconds", 0.0)

    def add(self, usage: Usage) -> None:
        """Add what calls have cost."""
        with self._lock:
            self.spent = add_usage(self.spent, usage)


def exhausted(caps: Mapping[str, float | None], spent: Usage) -> str | None:
    """The first cap that is reached, or None."""
    amounts = {
        "calls": spent.get("calls", 0),
        "tokens": spent.get("input", 0) + spent.get("output", 0),
        "usd": math.inf if spent.get("unpriced") else spent.get("usd", 0.0),  # an unknown price is above any cap
        "time": spent.get("seconds", 0.0),
    }
    reached = (name for name, cap in caps.items() if cap is not None and amounts[name] >= cap)
    return next(reached, None)
