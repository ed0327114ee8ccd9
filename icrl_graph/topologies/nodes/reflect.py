"""reflect: words about the last attempt, about each of those that were made side by side, or about all of them."""

from __future__ import annotations

from collections.abc import Sequence
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
from icrl_graph.prompts.memory import Memory, remembered
from icrl_graph.prompts.plan import latest_round, make_plan, shrink
from icrl_graph.state.episode import Episode, LoopState, is_reflected_on, spent, switched, upsert
from icrl_graph.topologies.nodes.generate import rendered, sampling_of
from icrl_graph.topologies.nodes.parts import Parts, costs, identity, node, random_of
from icrl_graph.topologies.settings import SavedSettings
from icrl_graph.topologies.switching import after_switch


def to_reflect_on(episodes: Sequence[Episode], whole_round: bool = False) -> list[Episode]:
    """Of the latest round, the answered attempts that were not reflected on; of a whole round, all of them or none."""
    answered = [each for each in latest_round(episodes) if "response" in each]
    left = [each for each in answered if not is_reflected_on(each)]
    return left if not whole_round or len(left) == len(answered) else []


def reflect_node(
    policy: Policy,
    parts: Parts,
    instruction: str,
    shows: Shows,
    memory: Memory | None = None,
    is_main_model: bool = True,
    whole_round: bool = False,
) -> Runnable[Any, Any]:
    """Have each attempt of the latest round reflected on in words, or all of them in one text; saved with the last.

    A question that does not fit into the model's context is asked again about less of the history.

    Args:
        policy: writes them.
        parts: what the graph is built of.
        instruction: the name of what is asked for.
        shows: what of each attempt the question shows.
        memory: which attempts of the rounds before it shows beside that one; default the run's own.
        is_main_model: whether it is the run's own model, which the settings may replace.
        whole_round: whether one text is about all attempts of the round.
    """

    def on_attempts(
        state: LoopState, settings: SavedSettings, past: Sequence[Episode], asked: Sequence[Episode]
    ) -> Flow:
        """A patch for the last of those asked about, if anything was paid, and the cap that was reached, or None."""
        episodes, latest = [*past, *asked], asked[-1]
        used = settings if switched(latest) is None else after_switch(settings)
        remember, random = memory or parts.pick("memory", used), random_of(settings, latest, "reflect")
        plan = make_plan(
            len(episodes),
            settings.feedback_limits.apply(episodes),
            lambda seen: [*remembered(remember, seen, random), *range(len(past), len(episodes))],
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
                patch = Episode(**identity(latest), costs=costs(latest, "reflect", meter.usage))
                return (patch if meter.usage else None), over.cap
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
        return patch, None

    def reflect(state: LoopState, settings: SavedSettings, _: Budget) -> Flow:
        episodes = state["episodes"]
        past = episodes[: len(episodes) - len(latest_round(episodes))]
        todo = to_reflect_on(episodes, whole_round)
        groups = [todo] * bool(todo) if whole_round else [[each] for each in todo]
        flows = [on_attempts(state, settings, past, group) for group in groups]
        if not flows:
            return {}
        done = [(yield from flows[0])] if len(flows) == 1 else (yield flows)
        patches = [patch for patch, _ in done if patch]
        reached = next((cap for _, cap in done if cap), None)
        cap = reached or exhausted(settings.caps, spent(upsert(episodes, [patches])))
        return {**({"episodes": patches} if patches else {}), **({"stopped": cap} if cap else {})}

    return node("reflect", reflect, policy.part, parts)
