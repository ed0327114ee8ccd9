"""reflect: words about the last attempt."""

from __future__ import annotations

from functools import partial
from typing import Any

from langchain_core.runnables import Runnable

from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.execution.budget import Budget, exhausted
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow, Meter, single
from icrl_graph.execution.overflow import is_overflow
from icrl_graph.models.policy import Policy
from icrl_graph.models.responses import failure, read_response
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.memory import Memory
from icrl_graph.prompts.plan import make_plan, shrink
from icrl_graph.state.episode import Episode, LoopState, spent, switched, upsert
from icrl_graph.topologies.nodes.generate import rendered, sampling_of
from icrl_graph.topologies.nodes.parts import Parts, costs, identity, node
from icrl_graph.topologies.settings import SavedSettings
from icrl_graph.topologies.switching import after_switch


def reflect_node(
    policy: Policy,
    parts: Parts,
    instruction: str,
    shows: Shows,
    memory: Memory | None = None,
    is_main_model: bool = True,
) -> Runnable[Any, Any]:
    """Have the last attempt reflected on in words; they are saved with it.

    A question that does not fit into the model's context is asked again about less of the history.

    Args:
        policy: writes them.
        parts: what the graph is built of.
        instruction: the name of what is asked for.
        shows: what of each attempt the question shows.
        memory: which attempts it shows beside the last; default the run's own.
        is_main_model: whether it is the run's own model, which the settings may replace.
    """

    def reflect(state: LoopState, settings: SavedSettings, _: Budget) -> Flow:
        episodes = state["episodes"]
        latest = episodes[-1]
        if "response" not in latest:
            return {}
        used = settings if switched(latest) is None else after_switch(settings)
        remember = memory or parts.pick("memory", used)
        plan = make_plan(
            len(episodes),
            settings.feedback_limits.apply(episodes),
            lambda past: [*remember(past), len(past) - 1],
            lambda number, past: instruction,
        )
        writer = parts.writer(settings, parts.answering(settings, latest)) if is_main_model else policy
        meter = Meter()
        kwargs = sampling_of(writer, parts, settings, latest, instruction)
        read, reply = partial(read_response, tags=settings.reasoning_tags), None
        while reply is None:
            question = rendered(state, settings, parts, episodes, plan, shows)
            try:
                reply = yield from meter.read(single(Call(writer.part, writer.input(question), read, kwargs)))
            except BudgetExceeded as over:
                return {"stopped": over.cap}
            except IcrlError:
                raise
            except Exception as error:
                smaller = shrink(plan) if is_overflow(error) else None
                if smaller is not None and smaller["shown"]:  # the last attempt, at least
                    plan = smaller
                else:
                    reply = {"error": failure(error, latest["round"], latest["candidate"])}
        patch = Episode(**identity(latest), costs=costs(latest, "reflect", meter.usage))
        if "response" in reply:
            patch["reflection"] = reply["response"]
        else:
            patch["reflection_error"] = reply["error"]
        cap = exhausted(settings.caps, spent(upsert(episodes, [[patch]])))
        return {"episodes": [patch], **({"stopped": cap} if cap else {})}

    return node("reflect", reflect, policy.part, parts)
