"""build_context: what the next round shows and asks."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.config import get_stream_writer

from icrl_graph.execution.node import PlainNode
from icrl_graph.prompts.plan import chosen, is_builtin, make_plan
from icrl_graph.state.episode import Episode, LoopState, spent
from icrl_graph.state.events import RoundEvent
from icrl_graph.topologies.nodes.parts import Parts, check_schema_version
from icrl_graph.topologies.settings import SavedSettings


def build_context_node(parts: Parts) -> Runnable[Any, Any]:
    """Open the next round: decide, for each of its attempts, what the prompt shows and asks."""

    def build_context(state: LoopState) -> dict[str, Any]:
        check_schema_version(state["settings"])
        settings, past = SavedSettings.of(state["settings"]), state["episodes"]
        number = past[-1]["round"] + 1 if past else 0
        memory, schedule = parts.pick("memory", settings), parts.pick("schedule", settings)
        plan = make_plan(number, settings.feedback_limits.apply(past), memory, schedule, settings.warmup)
        if settings.instruction and settings.instruction["round"] == number:  # see `icrl_graph.topologies.revision`
            plan = {**plan, "instruction": settings.instruction["text"]}
        width = settings.width
        if width > 1 and settings.max_calls is not None:  # side by side, they can't see what the others spend
            calls_each = parts.calls_each - 1 + parts.policy.calls
            left = settings.max_calls - spent(past)["calls"] - (parts.calls_ahead(settings) - parts.calls_each)
            width = max(1, min(width, left // calls_each))
        get_stream_writer()(
            RoundEvent(
                type="round",
                round=number,
                instruction=plan["instruction"],
                shown=len(chosen(past, plan)),
                left_out=plan["left_out"],
                attempts=width,
            )
        )
        return {"episodes": [Episode(round=number, candidate=c, plan=plan) for c in range(width)]}

    async def abuild_context(state: LoopState) -> dict[str, Any]:
        settings = SavedSettings.of(state["settings"])
        if is_builtin(parts.pick("memory", settings)) and is_builtin(parts.pick("schedule", settings)):
            return build_context(state)
        return await asyncio.to_thread(build_context, state)  # a custom one may block

    return PlainNode(build_context, abuild_context, "build_context")
