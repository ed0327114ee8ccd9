"""Hands the calls of an arm out to its runs, one attempt at a time, to where they are expected to help most.

The even split gives each run as many calls; here a run that has reached its target leaves its calls to the others, and
of those the one with the highest expected gain comes next (`icrl_graph.state.stop_rules.expected_gain`). After
arXiv 2506.12721, which allots samples to queries as a bandit does, and takes out those that are solved. Departure: one
index for all, in place of its several rules; attempts may learn from each other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from icrl_graph.benchmarks.results import Cell
from icrl_graph.state.stop_rules import expected_gain


class Played(NamedTuple):
    """How far a run is."""

    rounds: int = 0
    """That it was given so far; 0 before it has begun."""
    calls: int = 0
    """Paid so far."""
    rewards: tuple[float | None, ...] = ()
    """Of its attempts; None without a score."""
    is_over: bool = False
    """Whether something else than its rounds has ended it, such as its target."""

    def gain(self, highest: float, lowest: float) -> float:
        """What its next attempt is expected to gain; where nothing is scored yet, above the lowest of all rewards."""
        if not self.rounds:
            return math.inf
        is_scored = any(value is not None for value in self.rewards)
        return expected_gain(self.rewards if is_scored else (lowest, *self.rewards[1:]), highest)


async def hand_out(
    runs: Mapping[Cell, Played],
    total: int,
    calls_each: int,
    highest: float,
    play: Callable[[Cell, int], Awaitable[Played]],
    may_go_on: Callable[[], bool],
    concurrency: int = 1,
) -> dict[Cell, Played]:
    """Play rounds until no other can be paid or gain anything.

    Args:
        runs: how far each of them is; of a tie the earlier one comes first.
        total: paid calls of all of them together.
        calls_each: paid calls that a round takes, an episode of many turns counted as one.
        highest: the highest reward that counts.
        play: plays a run up to a number of rounds.
        may_go_on: whether another round may begin.
        concurrency: rounds at once. With several, which one comes next depends on which ends first.

    Returns:
        How far they are then.
    """
    played, idle = dict(runs), dict.fromkeys(runs)

    def take() -> Cell | None:
        reserved = calls_each * (len(played) - len(idle))
        if not may_go_on() or sum(each.calls for each in played.values()) + reserved + calls_each > total:
            return None
        scored = [value for each in played.values() for value in each.rewards if value is not None]
        lowest = min(
            scored, default=highest - 1
        )  # as long as there is none, the runs with the fewest attempts come next
        gains = {cell: played[cell].gain(highest, lowest) for cell in idle if not played[cell].is_over}
        return max((cell for cell in gains if gains[cell] > 0), key=gains.__getitem__, default=None)

    async def work() -> None:
        while (cell := take()) is not None:
            del idle[cell]
            played[cell] = await play(cell, played[cell].rounds + 1)
            idle[cell] = None

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return played
