"""Which episode gives the answer, and what a run comes to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from operator import itemgetter
from statistics import mean
from typing import TypeVar

from icrl_graph.state.episode import Episode, Output, answer_of, rewards_of, spent, value_of

T = TypeVar("T")
LEADERS = 3
"""How many of the attempts are judged again, if the settings ask for it."""
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
    """The metric of an attempt when it was made; where there is none, the value."""
    reward = episode.get("reward", {})
    return reward["metric"] if "metric" in reward else value_of(episode)


def best(episodes: Iterable[Episode]) -> Episode | None:
    """The scored episode with the highest value; of a tie the earlier one. None if none is scored."""
    episodes = list(episodes)
    scored = [(value, at) for at, value in enumerate(rewards_of(episodes)) if value is not None]
    return episodes[max(scored, key=itemgetter(0))[1]] if scored else None


def last_answered(episodes: Sequence[Episode]) -> Episode | None:
    """The latest episode with an answer, or None."""
    return next((episode for episode in reversed(episodes) if answer_of(episode) is not None), None)


def most_common(episodes: Sequence[Episode]) -> Episode | None:
    """The earliest episode with the answer that occurs most often; of a tie the answer that came first."""
    answered = [
        (json.dumps(answer, sort_keys=True), episode)
        for episode in episodes
        if (answer := answer_of(episode)) not in (None, "")  # an empty one is nobody's vote
    ]
    counts = Counter(answer for answer, _ in answered)
    return max(answered, key=lambda pair: counts[pair[0]])[1] if answered else None


def most_common_of_last_round(episodes: Sequence[Episode]) -> Episode | None:
    """As `most_common`, of the attempts of the latest round that has an answer."""
    last = last_answered(episodes)
    return last and most_common([each for each in episodes if each["round"] == last["round"]])


def leaders(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """The scored episodes with the highest values, the highest first; of a tie the earlier ones."""
    scored = [(value, episode) for episode in episodes if (value := value_of(episode)) is not None]
    return [episode for _, episode in sorted(scored, key=lambda pair: -pair[0])[:count]]


def halves(retests: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Of later judgements, those that help to choose, and those that report: at least one, if there is any.

    What chooses does not report: of noisy judgements those of the chosen one are too good on average.
    """
    middle = len(retests) // 2
    return retests[:middle], retests[middle:]


def best_again(firsts: Sequence[float], turns: Sequence[Sequence[float]]) -> int:
    """The place of the leader to choose: by its first judgement and, of the later ones, those that help to choose.

    Args:
        firsts: the first judgement of each leader.
        turns: later ones, of all of them in each turn.
    """
    deciding, _ = halves(turns)
    sums = [first + sum(turn[at] for turn in deciding) for at, first in enumerate(firsts)]
    return sums.index(max(sums))


def was_judged_again(episodes: Iterable[Episode]) -> bool:
    """Whether an answer was reported by other judgements than those that chose it."""
    return any(episode.get("reported") or episode.get("retests") for episode in episodes)


def reported_reward(episode: Episode) -> float | None:
    """What is reported of the answer's reward."""
    if judged := episode.get("reported"):
        return _mean(each["value"] for each in judged)
    if earlier := episode.get("retests"):  # an earlier version reported all of them
        return mean(earlier)
    return value_of(episode)


def reported_metric(episode: Episode) -> float | None:
    """What is reported of the answer's metric: by the same judgements, unless another evaluator gave it."""
    judged = episode.get("reported")
    if judged and "metric" in judged[0]:
        return _mean(each["metric"] for each in judged)
    return metric_of(episode) if "metric" in episode.get("reward", {}) else reported_reward(episode)


def why_unreported(episodes: Iterable[Episode]) -> str | None:
    """Why nothing is reported of the answer's reward, though it has one; None if nothing is missing."""
    judged = [each for episode in episodes for each in episode.get("reported") or []]
    return next((each["error"] for each in judged if each["value"] is None and "error" in each), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def answering(episodes: Sequence[Episode], choose: Choose) -> Episode | None:
    """The episode that gives the answer: of leaders judged again the best, else the chosen one, else the last."""
    return _chosen_after_retests(episodes) or choose(episodes) or last_answered(episodes)


def _chosen_after_retests(episodes: Sequence[Episode]) -> Episode | None:
    for episode in episodes:
        if episode.get("reported"):
            return episode
    earlier = [episode for episode in episodes if episode.get("retests")]  # an earlier version chose by all of them
    return max(earlier, key=lambda episode: mean(episode["retests"]), default=None)


def most_valued(episodes: Sequence[Episode]) -> Episode | None:
    """The episode that its selector values most; of a tie the earlier one. None if it valued none."""
    valued = [(v, e) for e in episodes if (v := e.get("selection", {}).get("value")) is not None]
    return max(valued, key=lambda pair: pair[0])[1] if valued else None


def selected_or(otherwise: Choose) -> Choose:
    """Which episode gives the answer: what a selector valued most, or what is chosen otherwise where it valued none."""

    def choose(episodes: Sequence[Episode]) -> Episode | None:
        return most_valued(episodes) or otherwise(episodes)

    return choose


def best_value(episodes: Iterable[Episode]) -> float | None:
    """The highest value of any scored episode, or None."""
    return max([value for value in rewards_of(episodes) if value is not None], default=None)


def outcome(episodes: Sequence[Episode], top: Episode | None, rewarded_by: str) -> Output:
    """What a run comes to.

    Args:
        episodes: all of them.
        top: the one that gives the answer; None if there is none.
        rewarded_by: the source of the rewards.
    """
    metrics = [metric for episode in episodes if (metric := metric_of(episode)) is not None]
    metric = None if top is None else reported_metric(top)
    is_chosen_by_it = top is not None and "metric" in (top.get("reported") or [{}])[0]
    return Output(
        answer=None if top is None else answer_of(top),
        reward=None if top is None else reported_reward(top),
        metric=metric,
        regret=None if metric is None or is_chosen_by_it else max(metrics) - metric,
        rewarded_by=rewarded_by,
        rounds_done=episodes[-1]["round"] + 1,
        usage=spent(episodes),
    )
