"""reflect: words about the last attempt."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable

from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.execution.budget import exhausted
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow, Meter, single
from icrl_graph.models.policy import Policy
from icrl_graph.models.responses import failure, read_response
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.memory import Memory
from icrl_graph.prompts.plan import make_plan
from icrl_graph.state.episode import Episode, LoopState, spent, upsert
from icrl_graph.topologies.nodes.generate import rendered, sampling_of
from icrl_graph.topologies.nodes.parts import Parts, costs, identity, node
from icrl_graph.topologies.stopping import caps_of


def reflect_node(
    policy: Policy, parts: Parts, instruction: str, shows: Shows, memory: Memory | None = None, own: bool = True
) -> Runnable[Any, Any]:
    """Have the last attempt looked at in words; they are kept with it.

    Args:
        policy: who writes them.
        parts: what the graph is built of.
        instruction: the name of what is asked for.
        shows: what of each attempt the question shows.
        memory: which attempts it shows beside the last; default the run's own.
        own: whether it is the run's own model, for which the settings may name another one.
    """

    def reflect(state: LoopState, part: Any) -> Flow:
        episodes, frozen = state["episodes"], state["settings"]
        now = episodes[-1]
        if "response" not in now:
            return {}
        chosen = memory or parts.pick("memory", frozen)
        plan = make_plan(
            len(episodes),
            episodes,
            lambda past: [*chosen(past), len(past) - 1],
            lambda number, past: instruction,
        )
        asked = rendered(state, parts, episodes, plan, shows)
        who, meter = parts.by(policy, frozen) if own else policy, Meter()
        try:
            call = Call(who.part, who.input(asked), read_response, sampling_of(who, parts, frozen, now, instruction))
            said = yield from meter.read(single(call))
        except BudgetExceeded as over:
            return {"stopped": over.cap}
        except IcrlError:
            raise
        except Exception as error:
            said = {"error": failure(error, now["round"], now["candidate"])}
        patch = Episode(**identity(now), costs=costs(now, "reflect", meter.usage))
        if "response" in said:
            patch["reflection"] = said["response"]
        else:
            patch["reflection_error"] = said["error"]
        cap = exhausted(caps_of(frozen), spent(upsert(episodes, [[patch]])))
        return {"episodes": [patch], **({"stopped": cap} if cap else {})}

    return node("reflect", reflect, policy.part, parts.driver)
