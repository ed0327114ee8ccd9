"""When a run is over, and how one is resumed that has ended: pure functions over settings and episodes.

The stops read the rewards, never the metric: that would be peeking at what is only reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icrl_graph.execution.budget import dearest, exhausted
from icrl_graph.state.episode import (
    Episode,
    add_usage,
    answer_of,
    cost_of,
    is_lost,
    paid_calls,
    rewards_of,
    spent,
    value_of,
)
from icrl_graph.state.selection import best, best_value
from icrl_graph.topologies.settings import SavedSettings
from icrl_graph.topologies.switching import switch_round


def stop_reason(
    settings: SavedSettings,
    episodes: Sequence[Episode],
    calls_each: int = 1,
    is_enough: Callable[[Sequence[float | None]], bool] | None = None,
) -> str | None:
    """Why the run is over, or None.

    Args:
        settings: the run's.
        episodes: all so far.
        calls_each: paid calls that must be left for a round; one is not begun that could not be judged any more.
        is_enough: its stop rule, of the rewards so far.
    """
    top, number = best(episodes), episodes[-1]["round"]
    highest = None if top is None else value_of(top)
    if highest is not None and settings.target is not None and highest >= settings.target:
        return "success"
    replied, before = _last_replied(episodes), settings.reopened - 1
    if number - max(replied, before) >= settings.max_failures:
        return "failures"
    if number + 1 >= settings.rounds + settings.lost_rounds:
        if replied < 0:
            return "failures"
        return "rounds" if sum(e["round"] == number for e in episodes) >= settings.width else "calls"
    switch = switch_round(settings, episodes) or 0  # patience and the stop rule begin anew with it
    since = max(before, switch - 1)
    if top is not None and settings.patience is not None and number - max(top["round"], since) >= settings.patience:
        return "plateau"
    if is_enough and (rewards := _rewards(episodes, switch)) and is_enough(rewards):
        return "gain"
    if cap := _cap_reached(settings, episodes, calls_each):
        return cap
    return "evaluator" if top is None and _only_fails(settings, episodes) else None


def _rewards(episodes: Sequence[Episode], switch: int) -> list[float | None]:
    """The rewards so far, if there are any; after a switch the best before it, and those since."""
    since = rewards_of(each for each in episodes if each["round"] >= switch)
    before = best_value(each for each in episodes if each["round"] < switch)
    return [] if all(value is None for value in since) else since if before is None else [before, *since]


def _only_fails(settings: SavedSettings, episodes: Sequence[Episode]) -> bool:
    """Whether the evaluator has failed too often in a row."""
    if not settings.max_evaluator_failures:
        return False
    asked = [each["reward"] for each in episodes if each["round"] >= settings.reopened and answer_of(each) is not None]
    latest = asked[-settings.max_evaluator_failures :]
    # one that has told the model what is wrong has done its work
    failed = ["error" in reward and "feedback" not in reward for reward in latest]
    return len(failed) == settings.max_evaluator_failures and all(failed)


def _cap_reached(settings: SavedSettings, episodes: Sequence[Episode], calls_each: int) -> str | None:
    """The cap within which no further round can be paid, or None."""
    caps = settings.caps
    if not caps:
        return None
    used = spent(episodes)
    if "calls" in caps:
        caps["calls"] -= calls_each - 1
    number = episodes[-1]["round"]
    latest = [cost_of(each) for each in episodes if each["round"] == number and paid_calls(each, "evaluate")]
    if latest:  # where judges are paid, an attempt and its judgement must fit, taken to cost as much as the last
        used = add_usage(used, dearest(latest))
    return exhausted(caps, used)


def _last_replied(episodes: Sequence[Episode]) -> int:
    """The last round in which the model has replied, be it without an answer; -1 if there is none."""
    return next((episode["round"] for episode in reversed(episodes) if not is_lost(episode)), -1)


def reopen(saved: Mapping[str, Any], episodes: Sequence[Episode]) -> dict[str, Any]:
    """The update, as of `evaluate`, that resumes a run which ended by failures, of its model or its evaluator.

    The rounds that failed are not counted against its rounds, and it may fail as often again before it stops.

    Args:
        saved: the settings in its state.
        episodes: all so far.
    """
    settings, number = SavedSettings.of(saved), episodes[-1]["round"] + 1
    lost = number - max(_last_replied(episodes) + 1, settings.reopened)
    again = {"reopened": number, "lost_rounds": settings.lost_rounds + lost}
    return {"stopped": None, "settings": {**saved, **again}}


def more_rounds(
    saved: Mapping[str, Any],
    episodes: Sequence[Episode],
    more: Any,
    changed: Mapping[str, Any],
    calls_each: int = 1,
    ended: bool = True,
) -> dict[str, Any]:
    """The settings with which a run is resumed for more rounds: after those that it made, or was to make.

    Its target, with the confirmations of it, and its stop rule are dropped, for whoever asks for more rounds wants
    them; patience begins anew.

    Args:
        saved: the settings in its state.
        episodes: all so far.
        more: how many rounds.
        changed: settings that differ from here on.
        calls_each: paid calls that must be left for a round.
        ended: whether it made all the rounds that it wanted; else something has interrupted it.

    Raises:
        ValueError: it can't be resumed; says why.
    """
    settings = SavedSettings.of(saved)
    if type(more) is not int or more < 1:
        raise ValueError(f"more is a number of rounds, an integer from 1; got {more!r}")
    if not settings.has_rounds:
        raise ValueError("a Best-of-N run can't be extended; start a new one with a larger n")
    longer = {**saved, "target": None, "stop": None, "confirmations": None, **changed, "rounds": settings.rounds + more}
    if ended:
        number = episodes[-1]["round"] + 1
        longer.update(rounds=number + more - settings.lost_rounds, reopened=number)
    if cap := _cap_reached(SavedSettings.of(longer), episodes, calls_each):
        raise ValueError(f"the run's cap of {cap} is reached; raise it by context=, or give None")
    return longer
