"""What the attempts and the answers of a run score: pure functions over its row.

Three cases are told apart. Unscored: there is an answer, and nobody could say how good it is. Without an answer: the
model has replied, so the method has failed, and a score that is 0 or 1 is 0. Lost: the call failed, nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Row
from icrl_graph.state.episode import Episode, answer_of, is_lost, value_of
from icrl_graph.state.selection import metric_of, was_judged_again

NOT_JUDGED_AGAIN = inf
"""In place of the score of an answer that is known only by the judgements that have chosen it."""


@dataclass(frozen=True)
class Scale:
    """What the scores of a comparison can be.

    Attributes:
        solved_at: the metric from which a task counts as solved, or None.
        shares: the measures (success, metric, reward) that are nothing but 0 and 1.
        bounds: the lowest and the highest score possible, by measure, where they are known.
        unscored: what stands in place of what is unscored: 0 the lowest score, 1 the highest, None nothing.
    """

    solved_at: float | None
    shares: frozenset[str] = frozenset(("success",))
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unscored: int | None = None

    def of_attempt(self, episode: Episode, measure: str) -> float | None:
        """What an attempt scores; None where nothing is known."""
        value = value_of(episode) if measure == "reward" else metric_of(episode)
        if value is not None:
            return self._score(value, measure)
        if is_lost(episode) or episode.get("error_kind") == "cap":
            return None
        return self._in_place(measure, has_answer=answer_of(episode) is not None)

    def of_answer(self, row: Row, at: int, measure: str) -> float | None:
        """What the answer of a run scores, if the run were ended after an attempt; None where nothing is known."""
        place, episodes = row["chosen"][at], row["episodes"]
        if place is None:
            has_tried = not all(map(is_lost, episodes[: at + 1]))
            return self._in_place(measure, has_answer=False) if has_tried else None
        judged = _judgements(row, at, measure)
        if not judged:
            return NOT_JUDGED_AGAIN
        scores = [self._score(value, measure) for value in judged if value is not None]
        if scores:
            return sum(scores) / len(scores)
        return self._in_place(measure, has_answer=answer_of(episodes[place]) is not None)

    def _score(self, value: float, measure: str) -> float:
        return float(value >= (self.solved_at or 0.0)) if measure == "success" else value

    def _in_place(self, measure: str, *, has_answer: bool) -> float | None:
        """Of what could not be scored."""
        if not has_answer and measure in self.shares:
            return 0.0
        return None if self.unscored is None else self.bounds.get(measure, (0.0, 0.0))[self.unscored]


def answered_first(row: Row, rounds: int) -> Row:
    """A run of one attempt a round as if no call had been lost: so many attempts, those that were answered, in order.

    Rounds that an outage has lost were played again when the run was resumed; where some were not, lost ones are last.
    """
    episodes, chosen = row["episodes"], row["chosen"]
    kept = sorted(range(len(episodes)), key=lambda at: is_lost(episodes[at]))[:rounds]
    place = {old: new for new, old in enumerate(kept)}
    places = [None if (at := chosen[old]) is None else place[at] for old in kept]
    return {**row, "episodes": [episodes[old] for old in kept], "chosen": places}


def scale_of(plan: Plan, rows: Iterable[Row]) -> Scale:
    """What the scores of a comparison can be, by its plan and by what they are.

    The one place that says which measures are shares: success, and what is never anything but 0 or 1.
    """
    rejudged = plan.again is not None and (plan.again["evaluator"] or plan.again["judge"])
    declared = None if rejudged and plan.again and not plan.again["as_metric"] else plan.options.get("bounds")
    episodes = [episode for row in rows for episode in row["episodes"]]
    values = {"reward": [value_of(e) for e in episodes], "metric": [metric_of(e) for e in episodes]}
    bounds = {"success": (0.0, 1.0)}
    if declared is not None:
        bounds["reward"] = (float(declared[0]), float(declared[1]))
        if not any("metric" in episode.get("reward", {}) for episode in episodes):
            bounds["metric"] = bounds["reward"]
    known = {measure: {value for value in found if value is not None} for measure, found in values.items()}
    unit = (0.0, 1.0)
    marks = {measure for measure, found in known.items() if found and found <= {0, 1}}
    shares = {measure for measure in marks if bounds.get(measure, unit) == unit}
    return Scale(plan.solved_at, frozenset({"success", *shares}), {**dict.fromkeys(shares, unit), **bounds})


def _judgements(row: Row, at: int, measure: str) -> Sequence[float | None]:
    """The judgements by which the answer after an attempt is reported; none if only those are there that chose it."""
    episodes, place = row["episodes"], row["chosen"][at]
    answer = episodes[place or 0]
    has_metric = measure != "reward" and "metric" in answer.get("reward", {})
    judged_again = [each for episode in episodes for each in episode.get("reported") or []]
    is_apart = has_metric and not any("metric" in each for each in judged_again)  # another evaluator's
    if is_apart or not was_judged_again(episodes):
        return [metric_of(answer) if has_metric else value_of(answer)]
    if at == len(episodes) - 1:
        reported = answer.get("reported") or []
        return [each["value"] if measure == "reward" else each["metric"] for each in reported] or answer["retests"]
    if sum(value_of(episode) is not None for episode in episodes[: at + 1]) < 2:  # there was nothing to choose among
        return [metric_of(answer) if has_metric else value_of(answer)]
    return [] if has_metric else answer.get("retests", [])
