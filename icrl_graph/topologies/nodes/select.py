"""select: which attempt gives the answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.driver import Flow
from icrl_graph.state.episode import Episode, LoopState, answer_of, side_by_side, upsert, value_of
from icrl_graph.state.events import DoneEvent
from icrl_graph.state.reward import Reward, unscored
from icrl_graph.state.selection import LEADERS, answering, best, best_again, halves, leaders, outcome
from icrl_graph.topologies.nodes.evaluate import all_of, ask
from icrl_graph.topologies.nodes.parts import Parts, costs, identity, made_of, node
from icrl_graph.topologies.nodes.telling import teller
from icrl_graph.topologies.settings import SavedSettings

logger = logging.getLogger(__name__)


def select_node(parts: Parts) -> Runnable[Any, Any]:
    """Write the answer and what it took, once, so that no step before carries them.

    The answer is what the graph's selector values most, or what `Parts.choose` chooses. For retests
    the evaluator judges the leaders again first: one half of that helps to choose, the other one is reported.
    """
    evaluator, selector = parts.evaluator, parts.selector

    def value(state: LoopState, selector: BoundEvaluator) -> Flow:
        """What the selector gives each attempt: patches."""
        candidates = [episode for episode in state["episodes"] if answer_of(episode) is not None]
        flows = [ask(selector, state, each, None, parts.timeout) for each in candidates]
        judged = yield from all_of(flows, selector)
        return [
            Episode(**identity(each), selection=reward, costs=costs(each, "select", usage))
            for each, (reward, usage) in zip(candidates, judged, strict=True)
        ]

    def retest(state: LoopState, times: int) -> Flow:
        """The new judgements of the leaders: patches. One turn counts only if all could be judged."""
        candidates = leaders(state["episodes"], LEADERS)
        flows = [ask(evaluator, state, each, parts.bounds, parts.timeout) for _ in range(times) for each in candidates]
        judged = yield from all_of(flows, evaluator)
        turns = [judged[at : at + len(candidates)] for at in range(0, len(judged), len(candidates) or 1)]
        whole = [turn for turn in turns if all(reward["value"] is not None for reward, _ in turn)]
        patches = [
            Episode(
                **identity(each),
                retests=[turn[i][0]["value"] for turn in whole],
                costs=costs(each, "select", side_by_side([turn[i][1] for turn in turns])),
            )
            for i, each in enumerate(candidates)
        ]
        if candidates:
            firsts = [value_of(each) or 0.0 for each in candidates]
            top = best_again(firsts, [[reward["value"] for reward, _ in turn] for turn in whole])
            reason = next((reward.get("error") for reward, _ in judged if reward["value"] is None), None)
            patches[top]["reported"] = report([turn[top][0] for turn in halves(whole)[1]], reason)
        return patches

    def report(judged: Sequence[Reward], reason: str | None) -> list[Reward]:
        """What is kept of the judgements that are reported; without any, a single unscored one with the reason."""
        given = judged or [unscored(f"it was not judged again: {reason or 'the evaluator gave nothing'}")]
        kept = [Reward(value=each["value"]) if each["value"] is not None else each for each in given]
        if parts.metric is None:  # a metric that comes with the reward is as noisy as that
            for each, reward in zip(kept, given, strict=True):
                each["metric"] = reward.get("metric", reward["value"])
        return kept

    def compare(state: LoopState, settings: SavedSettings) -> Flow:
        """What the choice is made by, beside the rewards: patches for the episodes."""
        if selector is not None:
            return (yield from value(state, selector))
        if not (settings.retests and parts.choose is best):
            return []
        stale = [Episode(**identity(each), reported=[]) for each in state["episodes"] if each.get("reported")]
        if state.get("stopped") != "failures":
            return stale + (yield from retest(state, settings.retests))
        top = best(state["episodes"])  # the run may be resumed, and its leaders be others then
        return stale + ([] if top is None else [Episode(**identity(top), reported=report([], "the model failed"))])

    def select(state: LoopState, settings: SavedSettings, _: Budget) -> Flow:
        patches = yield from compare(state, settings)
        episodes, saved = upsert(state["episodes"], [patches]), state["settings"]
        top = answering(episodes, parts.choose) if selector is None else parts.choose(episodes)
        output = outcome(episodes, top, parts.rewarded_by(settings))
        _warn_of_unscored(episodes, parts, settings)
        stopped = state.get("stopped") or "rounds"  # a method of its own may end when it has made its rounds
        parts.driver.run_cache.forget(settings.run)
        teller(parts, state)(
            DoneEvent(
                type="done",
                stopped=stopped,
                answer=output["answer"],
                reward=output["reward"],
                metric=output["metric"],
                rounds=output["rounds_done"],
                usage=output["usage"],
            )
        )
        made = {name: value for name, value in made_of(parts).items() if name in saved}
        same = made.items() <= saved.items()  # a run may end with another model than it began with
        changed = {} if same else {"settings": {**saved, **made}}
        ended = {} if state.get("stopped") else {"stopped": stopped}
        return {**output, **ended, **changed, "episodes": patches}

    return node("select", select, None if selector is None else selector.part, parts)


def _warn_of_unscored(episodes: Sequence[Episode], parts: Parts, settings: SavedSettings) -> None:
    """Say once a run that answers have no reward: means leave them out, as if they had never been given."""
    errors = [e["reward"].get("error") for e in episodes if "response" in e and value_of(e) is None and "reward" in e]
    if errors:
        reason = next(filter(None, errors), None)
        silent = reason and parts.evaluator.on_error is None and settings.on_error is None and not parts.evaluator.calls
        hint = "; if the evaluator raises on wrong answers, on_error=0 counts them as 0" if silent else ""
        why = reason or "the evaluator returned None, which is no reward"
        logger.warning("%d of %d attempts are unscored, such as: %s%s", len(errors), len(episodes), why, hint)
