"""build_context: what the next round shows and asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable

from icrl_graph.execution.node import PlainNode
from icrl_graph.prompts.memory import Memory, draws
from icrl_graph.prompts.plan import SPREADS, Schedule, always, chosen, is_builtin, make_plan, spread_plans
from icrl_graph.state.episode import Episode, LoopState, Plan, spent
from icrl_graph.state.events import RoundEvent
from icrl_graph.topologies.nodes.parts import Parts, check_schema_version, random_of
from icrl_graph.topologies.nodes.telling import teller
from icrl_graph.topologies.settings import SavedSettings
from icrl_graph.topologies.switching import after_switch, switch_round


def build_context_node(parts: Parts) -> Runnable[Any, Any]:
    """Open the next round: decide, for each of its attempts, what the prompt shows and asks."""

    def chosen_parts(settings: SavedSettings, past: Sequence[Episode]) -> tuple[Memory, Schedule, int | None]:
        """The memory and the schedule of the next round, and since when the run is switched."""
        switched = switch_round(settings, past)
        used = settings if switched is None else after_switch(settings)
        return parts.pick("memory", used), parts.pick("schedule", used), switched

    def build_context(state: LoopState) -> dict[str, Any]:
        return opened(state, _settings(state))

    def opened(state: LoopState, settings: SavedSettings) -> dict[str, Any]:
        past = state["episodes"]
        number = past[-1]["round"] + 1 if past else 0
        memory, schedule, switched = chosen_parts(settings, past)
        visible = settings.feedback_limits.apply(past)

        def planned(candidate: int, schedule: Schedule) -> Plan:
            random = random_of(settings, Episode(round=number, candidate=candidate), "memory")
            return make_plan(number, visible, memory, schedule, settings.warmup, switched, random)

        plan = planned(0, schedule)
        spread = parts.pick("spread", settings)
        if settings.instruction and settings.instruction["round"] == number:  # see `icrl_graph.topologies.revision`
            plan, spread = {**plan, "instruction": settings.instruction["text"]}, SPREADS["same"]
        width = settings.width
        if width > 1 and settings.max_calls is not None:  # side by side, they can't see what the others spend
            calls_each = parts.calls_of_attempt(settings)
            left = settings.max_calls - spent(past)["calls"] - (parts.calls_ahead(settings) - calls_each)
            width = max(1, min(width, left // (calls_each - 1 + parts.policy.calls)))
        event = RoundEvent(
            type="round",
            round=number,
            instruction=plan["instruction"],
            shown=len(chosen(past, plan)),
            left_out=plan["left_out"],
            attempts=width,
        )
        teller(parts, state)(event if switched is None else {**event, "switched": switched})
        again = always(plan["instruction"])
        others = [planned(candidate, again) if draws(memory) else plan for candidate in range(1, width)]
        plans = spread_plans([plan, *others], spread)
        return {"episodes": [Episode(round=number, candidate=c, plan=each) for c, each in enumerate(plans)]}

    async def abuild_context(state: LoopState) -> dict[str, Any]:
        settings = _settings(state)
        memory, schedule, _ = chosen_parts(settings, state["episodes"])
        if all(map(is_builtin, (memory, schedule, parts.pick("spread", settings)))):
            return opened(state, settings)
        return await asyncio.to_thread(opened, state, settings)  # a custom one may block

    return PlainNode(build_context, abuild_context, "build_context")


def _settings(state: LoopState) -> SavedSettings:
    check_schema_version(state["settings"])
    return SavedSettings.of(state["settings"])
