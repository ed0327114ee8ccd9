"""Which episode gives the answer, and what a run comes to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from statistics import mean

from icrl_graph.state.episode import Episode, Output, answer_of, spent, value_of

Choose = Callable[[Sequence[Episode]], Episode | None]
"""Which episode gives the answer; None if none can."""


def on_copies(choose: Choose) -> Choose:
    """A way to choose that may change what it is handed, and nothing else: a custom one gets copies."""
    if getattr(choose, "__module__", None) == __name__:
        return choose

    def chosen(episodes: Sequence[Episode]) -> Episode | None:
        top = choose(deepcopy(list(episodes)))
        if top is None:
            return None
        at = [(each["round"], each["candidate"]) for each in episodes].index((top["round"], top["candidate"]))
        return episodes[at]

    return chosen


def metric_of(episode: Episode) -> float | None:
    """What is reported: the metric; where there is none, the value, or what later judgements made of it."""
    reward = episode.get("reward", {})
    return reward["metric"] if "metric" in reward else estimate(episode)


def best(episodes: Iterable[Episode]) -> Episode | None:
    """The scored episode with the highest value; of a tie the earlier one. None if none is scored."""
    scored = [(value, episode) for episode in episodes if (value := value_of(episode)) is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def last_answered(episodes: Sequence[Episode]) -> Episode | None:
    """The latest episode with an answer, or None."""
    return next((episode for episode in reversed(episodes) if answer_of(episode) is not None), None)


def most_common(episodes: Sequence[Episode]) -> Episode | None:
    """The earliest episode with the answer that occurs most often; of a tie the answer that came first."""
    answered = [
        (json.dumps(answer, sort_keys=True), episode)
        for episode in episodes
        if (answer := answer_of(episode)) is not None
    ]
    counts = Counter(answer for answer, _ in answered)
    return max(answered, key=lambda pair: counts[pair[0]])[1] if answered else None


def leaders(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """The scored episodes with the highest values, the highest first; of a tie the earlier ones."""
    scored = [(value, episode) for episode in episodes if (value := value_of(episode)) is not None]
    return [episode for _, episode in sorted(scored, key=lambda pair: -pair[0])[:count]]


def estimate(episode: Episode) -> float | None:
    """What its reward is taken to be: the mean of its later judgements, else its value."""
    return mean(episode["retests"]) if episode.get("retests") else value_of(episode)


def best_retested(episodes: Iterable[Episode]) -> Episode | None:
    """Of the leaders that were judged again, the one with the highest mean; None if none was."""
    again = [episode for episode in episodes if episode.get("retests")]
    return max(again, key=lambda episode: mean(episode["retests"])) if again else None


def answering(episodes: Sequence[Episode], choose: Choose) -> Episode | None:
    """The episode that gives the answer: of leaders judged again the best, else the chosen one, else the last."""
    return best_retested(episodes) or choose(episodes) or last_answered(episodes)


def most_valued(episodes: Sequence[Episode]) -> Episode | None:
    """The episode that its selector values most; of a tie the earlier one. None if it valued none."""
    valued = [(v, e) for e in episodes if (v := e.get("selection", {}).get("value")) is not None]
    return max(valued, key=lambda pair: pair[0])[1] if valued else None


def best_value(episodes: Iterable[Episode]) -> float | None:
    """The highest value of any scored episode, or None."""
    return max((value for episode in episodes if (value := value_of(episode)) is not None), default=None)


def outcome(episodes: Sequence[Episode], top: Episode | None, rewarded_by: str) -> Output:
    """What a run comes to.

    Args:
        episodes: all of them.
        top: the one that gives the answer; None if there is none.
        rewarded_by: the source of the rewards.
    """
    metrics = [metric for episode in episodes if (metric := metric_of(episode)) is not None]
    metric = None if top is None else metric_of(top)
    return Output(
        answer=None if top is None else answer_of(top),
        reward=None if top is None else estimate(top),
        metric=metric,
        regret=None if metric is None else max(metrics) - metric,
        rewarded_by=rewarded_by,
        rounds_done=episodes[-1]["round"] + 1,
        usage=spent(episodes),
    )
