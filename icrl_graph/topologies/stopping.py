"""When a run is over, and how one goes on that gave up on its model: pure functions over settings and episodes.

The stops read the rewards, never the metric: that would be peeking at what is only reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icrl_graph.execution.budget import exhausted
from icrl_graph.state.episode import Episode, spent
from icrl_graph.state.selection import best


def caps_of(frozen: Mapping[str, Any]) -> dict[str, float]:
    """The caps that are set."""
    names = {"calls": "max_calls", "tokens": "max_tokens", "usd": "max_usd", "time": "max_seconds"}
    caps = {cap: frozen[setting] for cap, setting in names.items()}
    return {name: cap for name, cap in caps.items() if cap is not None}


def stop_reason(frozen: Mapping[str, Any], episodes: Sequence[Episode], calls_each: int = 1) -> str | None:
    """Why the run is over, or None.

    Args:
        frozen: the run's settings.
        episodes: all so far.
        calls_each: paid calls that a round takes; one is not begun that could not be judged any more.
    """
    top = best(episodes)
    number = episodes[-1]["round"]
    if top is not None and frozen["target"] is not None and top["reward"]["value"] >= frozen["target"]:
        return "success"
    answered, before = _last_answered(episodes), frozen.get("reopened", 0) - 1
    if "n" not in frozen and number - max(answered, before) >= frozen["max_failures"]:
        return "failures"
    if number + 1 >= frozen["rounds"] + frozen.get("lost_rounds", 0):
        if answered < 0:
            return "failures"
        return "rounds" if len(episodes) >= frozen.get("n", 0) else "calls"
    if top is not None and frozen["patience"] is not None and number - max(top["round"], before) >= frozen["patience"]:
        return "plateau"
    return _cap_reached(frozen, episodes, calls_each)


def _cap_reached(frozen: Mapping[str, Any], episodes: Sequence[Episode], calls_each: int) -> str | None:
    """The cap within which no further round can be paid, or None."""
    caps = caps_of(frozen)
    if "calls" in caps:
        caps["calls"] -= calls_each - 1
    return exhausted(caps, spent(episodes)) if caps else None


def _last_answered(episodes: Sequence[Episode]) -> int:
    """The last round with a response; -1 if there is none."""
    return max((episode["round"] for episode in episodes if "response" in episode), default=-1)


def reopen(frozen: Mapping[str, Any], episodes: Sequence[Episode]) -> dict[str, Any]:
    """The update, as of `evaluate`, that lets a run go on which ended by failures.

    The rounds that failed are not counted against its rounds, and it may fail as often again before it stops.
    """
    number = episodes[-1]["round"] + 1
    lost = number - max(_last_answered(episodes) + 1, frozen.get("reopened", 0))
    again = {"reopened": number, "lost_rounds": frozen.get("lost_rounds", 0) + lost}
    return {"stopped": None, "settings": {**frozen, **again}}


def more_rounds(
    frozen: Mapping[str, Any], episodes: Sequence[Episode], more: Any, told: Mapping[str, Any], calls_each: int = 1
) -> dict[str, Any]:
    """The settings with which a run that has ended goes on.

    Its target is dropped, for whoever asks for more rounds wants them; patience begins anew.

    Args:
        frozen: the run's settings.
        episodes: all so far.
        more: how many rounds.
        told: settings that are others from here on.
        calls_each: paid calls that a round takes.

    Raises:
        ValueError: it can't go on; says why.
    """
    if type(more) is not int or more < 1:
        raise ValueError(f"more is a number of rounds, an integer from 1; got {more!r}")
    if "n" in frozen:
        raise ValueError("attempts that stand side by side don't see each other: begin a run with a larger n")
    if "reward" not in episodes[-1]:
        raise ValueError("the run on this thread has not ended; resume it first")
    number = episodes[-1]["round"] + 1
    rounds = number + more - frozen.get("lost_rounds", 0)
    now = {**frozen, "target": None, **told, "rounds": rounds, "reopened": number}
    if cap := _cap_reached(now, episodes, calls_each):
        raise ValueError(f"the run's cap of {cap} is reached; give it a higher one by context=, or None")
    return now
