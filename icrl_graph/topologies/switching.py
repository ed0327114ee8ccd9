"""The plateau switch: from which round on a run plays with another model, memory or schedule. Pure, over its state.

Nothing has improved for `switch_after` rounds: then the settings `switch_model`, `switch_memory` and `switch_schedule`
take the place of their namesakes, once and for the rest of the run. A cheap model first and a strong one where that is
stuck is a cascade (as in FrugalGPT, arXiv 2305.05176) that keeps its history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from icrl_graph.state.episode import Episode, switched
from icrl_graph.state.selection import best
from icrl_graph.topologies.settings import SWITCHED, SavedSettings


def switch_round(settings: SavedSettings, episodes: Sequence[Episode]) -> int | None:
    """The round from which on a run plays with what it has switched to; None while it has not.

    Once it was switched the plans of its attempts say so, and what happens to rewards and settings later changes
    nothing of it. Rounds without a better reward are counted whatever the reason, also failed calls; from the best
    attempt on, or from where a run that had ended was resumed.

    Args:
        settings: the run's.
        episodes: all so far, judged.
    """
    made = switched(episodes[-1]) if episodes else None
    if not episodes or made is not None or settings.switch_after is None:
        return made
    number, top = episodes[-1]["round"], best(episodes)
    since = max(settings.reopened - 1, -1 if top is None else top["round"])
    return number + 1 if number - since >= settings.switch_after else None


def after_switch(settings: SavedSettings) -> SavedSettings:
    """The settings of the rounds after the switch; its model is one of the graph's."""
    return replace(
        settings,
        memory=settings.switch_memory or settings.memory,
        schedule=settings.switch_schedule or settings.schedule,
    )


def check_switch(settings: Mapping[str, Any], has_model: bool) -> None:
    """Check that what a run switches to and when it does fit together.

    Args:
        settings: all of a run, by name.
        has_model: whether the graph was built with a model to switch to.

    Raises:
        ValueError: they do not; says why.
    """
    after, patience = settings.get("switch_after"), settings.get("patience")
    named = [name for name in SWITCHED if settings.get(name) is not None] or (["switch_model"] if has_model else [])
    if after is None and named:
        raise ValueError(f"{named[0]} is what a run switches to: say by switch_after=K after how many rounds")
    if after is not None and not named:
        raise ValueError(f"switch_after={after} needs what to switch to: {', '.join(SWITCHED[:-1])} or {SWITCHED[-1]}")
    if after is not None and patience is not None and patience < after:
        raise ValueError(f"patience={patience} ends a run before switch_after={after}: give it {after} or more")
