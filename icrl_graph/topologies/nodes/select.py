"""select: which attempt gives the answer."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable
from langgraph.config import get_stream_writer

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.execution.driver import Flow
from icrl_graph.state.episode import Episode, LoopState, add_usage, answer_of, side_by_side, upsert
from icrl_graph.state.events import DoneEvent
from icrl_graph.state.selection import answering, best, leaders, outcome
from icrl_graph.topologies.nodes.evaluate import all_of, ask
from icrl_graph.topologies.nodes.parts import Chooser, Parts, costs, identity, node

LEADERS = 3
"""How many of the attempts are judged again before one is chosen, if the settings ask for it."""


def select_node(
    parts: Parts,
    choose: Chooser = best,
    selector: BoundEvaluator | None = None,
    bounds: tuple[float, float] | None = None,
    timeout: float | None = None,
) -> Runnable[Any, Any]:
    """Write the answer and what it took, once, so that no step before carries them.

    Args:
        parts: what the graph is built of; its evaluator judges the leaders again, if the settings ask for retests.
        choose: which episode gives the answer; by default the one with the highest reward.
        selector: instead, an evaluator: the answer is what it values most.
        bounds: lowest and highest reward that make sense.
        timeout: seconds for one evaluation.
    """

    def value(state: LoopState) -> Flow:
        """What the selector gives each attempt: patches."""
        assert selector is not None
        candidates = [episode for episode in state["episodes"] if answer_of(episode) is not None]
        judged = yield from all_of([ask(selector, state, each, None, timeout) for each in candidates], selector)
        return [
            Episode(**identity(each), selection=reward, costs=costs(each, "select", usage))
            for each, (reward, usage) in zip(candidates, judged, strict=True)
        ]

    def retest(state: LoopState, times: int) -> Flow:
        """What the leaders are given again: patches. A turn that could not be judged for all of them does not count."""
        candidates = leaders(state["episodes"], LEADERS)
        evaluator = parts.evaluator
        flows = [ask(evaluator, state, each, bounds, timeout) for _ in range(times) for each in candidates]
        judged = yield from all_of(flows, evaluator)
        turns = [judged[at : at + len(candidates)] for at in range(0, len(judged), len(candidates) or 1)]
        whole = [turn for turn in turns if all(reward["value"] is not None for reward, _ in turn)]
        together = side_by_side if evaluator.calls else lambda usages: add_usage(*usages)
        return [
            Episode(
                **identity(each),
                retests=[turn[i][0]["value"] for turn in whole],
                costs=costs(each, "select", together([turn[i][1] for turn in turns])),
            )
            for i, each in enumerate(candidates)
        ]

    def compare(state: LoopState) -> Flow:
        """What the choice is made by, beside the rewards: patches for the episodes."""
        if selector is not None:
            return (yield from value(state))
        times = state["settings"]["retests"]
        if times and choose is best and state.get("stopped") != "failures":
            return (yield from retest(state, times))
        return []

    def select(state: LoopState, part: Any) -> Flow:
        patches = yield from compare(state)
        episodes, frozen = upsert(state["episodes"], [patches]), state["settings"]
        top = answering(episodes, choose) if selector is None else choose(episodes)
        output = outcome(episodes, top, parts.rewarded_by(frozen))
        parts.driver.run_cache.forget(frozen["run"])
        get_stream_writer()(
            DoneEvent(
                type="done",
                stopped=state.get("stopped"),
                answer=output["answer"],
                reward=output["reward"],
                metric=output["metric"],
                rounds=output["rounds_done"],
                usage=output["usage"],
            )
        )
        ended = {} if frozen["parts"] == parts.schema.parts else {"settings": {**frozen, "parts": parts.schema.parts}}
        return {**output, **ended, "episodes": patches}  # a run may be ended by another model than it was begun with

    return node("select", select, None if selector is None else selector.part, parts.driver)
