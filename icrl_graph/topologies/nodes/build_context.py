"""build_context: what the next round shows and asks."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.config import get_stream_writer

from icrl_graph.execution.node import Straight
from icrl_graph.prompts.plan import chosen, is_builtin, make_plan
from icrl_graph.state.episode import Episode, LoopState
from icrl_graph.state.events import RoundEvent
from icrl_graph.topologies.nodes.parts import Parts, check_schema_version


def build_context_node(parts: Parts) -> Runnable[Any, Any]:
    """Open the next round: decide, for each of its candidates, what the prompt shows and asks."""
    calls_each = parts.calls_each - 1 + parts.policy.calls

    def build_context(state: LoopState) -> dict[str, Any]:
        frozen, past = state["settings"], state["episodes"]
        check_schema_version(frozen)
        number = past[-1]["round"] + 1 if past else 0
        memory, schedule = parts.pick("memory", frozen), parts.pick("schedule", frozen)
        plan = make_plan(number, past, memory, schedule, frozen["warmup"])
        if frozen.get("said", {}).get("round") == number:  # a person has (see `icrl_graph.evaluators.human`)
            plan = {**plan, "instruction": frozen["said"]["text"]}
        width = frozen.get("n", 1)
        if width > 1 and frozen["max_calls"] is not None:  # side by side, they can't see what the others spend
            width = max(1, min(width, frozen["max_calls"] // calls_each))
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
        named = (parts.pick(kind, state["settings"]) for kind in ("memory", "schedule"))
        if all(map(is_builtin, named)):
            return build_context(state)
        return await asyncio.to_thread(build_context, state)  # the user's own may block

    return Straight(build_context, abuild_context, "build_context")
