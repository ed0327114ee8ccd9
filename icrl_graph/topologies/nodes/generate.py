"""generate: the prompt of a plan, and what the policy makes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.runtime import get_runtime

from icrl_graph.environments.rollouts import RolloutContext
from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call, contained
from icrl_graph.execution.driver import Flow, Key, Meter, single
from icrl_graph.execution.overflow import is_overflow, is_refusal
from icrl_graph.execution.retry import describe
from icrl_graph.execution.room import Answered, lacks_room, unread
from icrl_graph.models.policy import Policy
from icrl_graph.models.responses import failed_call, read_response
from icrl_graph.prompts import ablations
from icrl_graph.prompts.feedback import FeedbackLimits
from icrl_graph.prompts.incremental import PromptSettings, next_prompt
from icrl_graph.prompts.layouts import Shows, Style, render
from icrl_graph.prompts.plan import shrink
from icrl_graph.prompts.text import step_line
from icrl_graph.state.choices import unbound
from icrl_graph.state.episode import Episode, LoopState, Message, Plan, add_usage, plain, switched, warnings_of
from icrl_graph.state.events import ResponseEvent
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.nodes.parts import Extract, Parts, costs, identity, key_of, node, random_of
from icrl_graph.topologies.nodes.telling import teller
from icrl_graph.topologies.settings import MAIN, SWITCH, SavedSettings

logger = logging.getLogger(__name__)


def prompt(state: LoopState, parts: Parts, at: int = -1) -> list[Message]:
    """The prompt of an episode, made again from its plan; by default of the latest one."""
    episodes = state["episodes"]
    at %= len(episodes)
    if (program := episodes[at]["plan"].get("program")) is not None:
        return [{"role": "not shown", "content": f"{program} writes prompts of its own, which are not saved."}]
    settings = SavedSettings.of(state["settings"])
    return rendered(state, settings, parts, episodes[:at], episodes[at]["plan"], parts.shows)


def rendered(
    state: LoopState, settings: SavedSettings, parts: Parts, past: Sequence[Episode], plan: Plan, shows: Shows
) -> list[Message]:
    """The prompt of a plan over these episodes, as far as it shows them."""
    preamble, task, style, layout = _prompt_settings(state, settings, parts, shows)
    return render(preamble, task, past, plan, style, layout)


def _prompt_settings(state: LoopState, settings: SavedSettings, parts: Parts, shows: Shows) -> PromptSettings:
    limits = settings.feedback_limits if "shown" in shows else FeedbackLimits()
    style = Style(shows, settings.reward_label, parts.instructions, limits)
    return PromptSettings(parts.preamble, state["inputs"]["task"], style, parts.pick("layout", settings))


def _rollout_context(
    state: LoopState,
    settings: SavedSettings,
    parts: Parts,
    actor: Policy,
    key: Key,
    prompt: list[Message],
    budget: Budget,
) -> RolloutContext:
    latest = state["episodes"][-1]
    ablation, instruction = parts.pick("show", settings), latest["plan"]["instruction"]

    def shorter(times: int) -> list[Message] | None:
        if times == 0:
            return prompt
        smaller = _shrunk(latest["plan"], times)
        if smaller is None:
            return None
        return rendered(state, settings, parts, state["episodes"][:-1], smaller, parts.shows)

    return RolloutContext(
        prompt=shorter,
        actor=actor,
        task_data=state["inputs"]["task_data"],
        driver=parts.driver,
        budget=budget,
        key=key,
        reward_label=settings.reward_label,
        show=lambda rewards: ablations.show(
            Reward(value=sum(rewards), steps=list(rewards)), ablation, random_of(settings, latest, "show")
        ),
        sampling=lambda step: sampling_of(actor, parts, settings, latest, instruction, step),
        emit=teller(parts, state),
        parent_context=getattr(get_runtime(), "context", None),
        reasoning_tags=settings.reasoning_tags,
    )


def _earlier(past: Sequence[Episode], node: str) -> Iterator[Answered]:
    """How the answers before have ended; of one that took several calls, as much as each has written."""
    usages = (each["costs"].get(node, {}) for each in past)
    written = (usage.get("output", 0) // usage.get("calls", 1) for usage in usages)
    return (Answered.of(*pair) for pair in zip(past, written, strict=True))


def _is_longest(plan: Plan, past: Sequence[Episode]) -> bool:
    """Whether it shows more attempts than any prompt that was answered before."""
    answered = (_shown(episode["plan"]) for episode in past if "response" in episode)
    return _shown(plan) > max(answered, default=math.inf)


def _shown(plan: Plan) -> int:
    return sum(end - start for start, end in plan["shown"])


def _shrunk(plan: Plan, times: int) -> Plan | None:
    """The plan, made less so many times; None if nothing is left to leave out."""
    smaller: Plan | None = plan
    for _ in range(times):
        smaller = None if smaller is None else shrink(smaller)
    return smaller


def _read_rollout(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was played, as fields of an episode."""
    steps: list[Any] = [step for step in values["steps"] if "observation" in step]
    brief = [{name: value for name, value in step.items() if name != "info"} for step in steps[:-1]] + steps[-1:]
    text = "\n".join(map(step_line, steps))
    known = ("error", "error_kind", "reasoning", "finish_reason", "cut")
    failed = {name: values[name] for name in known if name in values}
    outcome = failed or {"response": text}
    stopped = {"stopped": values["stopped"]} if "stopped" in values else {}
    usage = add_usage(*values.get("costs", []))
    return {**outcome, **stopped, "steps": brief, "usage": usage, "shrunk": values.get("shrunk", 0)}


def generate_node(parts: Parts, name: str = "generate", model: str = MAIN) -> Runnable[Any, Any]:
    """Ask a model for an attempt. Whatever goes wrong with one attempt is data on its episode.

    A prompt that does not fit into the model's context, or leaves no room there for an answer, is made again with less
    of the history, and that is recorded. One that is refused for an unknown reason, while shorter ones were not, is
    made again with half of it, once.

    Args:
        parts: what the graph is built of.
        name: the node's; its costs stand under it.
        model: which of the graph's models answers; the main one until the run switches to another.
    """

    def generate(state: LoopState, settings: SavedSettings, budget: Budget) -> Flow:
        *past, latest = state["episodes"]
        answering = parts.answering(settings, latest) if model == MAIN else model
        is_first = not past or (answering == SWITCH and switched(latest) == latest["round"])  # of this model
        several = {"model": answering} if len(parts.policies) > 1 or parts.switches_model(settings) else {}
        policy = parts.policy_of(settings, answering)
        kwargs = sampling_of(policy, parts, settings, latest, latest["plan"]["instruction"])
        plan, meter, is_guess = latest["plan"], Meter(), False
        prompt_settings = _prompt_settings(state, settings, parts, parts.shows)
        cache, cache_key = parts.driver.run_cache, ("rendered", latest["candidate"])
        read = partial(read_response, tags=settings.reasoning_tags)
        unkeyed = {"reasoning_tags": settings.reasoning_tags} if policy.response_schema else {}
        tries: list[Answered] = []
        reply: Any = None
        while reply is None:
            before = meter.usage.get("output", 0)
            messages, breaks, last = next_prompt(cache.get(settings.run, cache_key), prompt_settings, past, plan)
            cache.put(settings.run, cache_key, last)
            try:
                if policy.kind == "rollout":
                    key = key_of(name, state)
                    context = _rollout_context(state, settings, parts, policy.responder, key, messages, budget)
                    call = Call(
                        policy.part,
                        {"steps": []},
                        _read_rollout,
                        {"context": context},
                        paid=False,
                        tracks_own_cost=True,
                    )
                else:
                    marked, marks = policy.cache.mark(messages)
                    call = Call(
                        policy.part,
                        policy.input(marked),
                        read,
                        {**marks, **kwargs},
                        shares_prompt=_shared(messages, latest, settings, policy, is_first or breaks > 0),
                        unkeyed_kwargs=unkeyed,
                    )
                reply = yield from meter.read(single(call))
                if policy.kind != "rollout":
                    tries.append(Answered.of(reply, meter.usage.get("output", 0) - before))
                    if lacks_room(tries, _earlier(past, name)) and (smaller := shrink(plan)) is not None:
                        plan, reply = smaller, None
            except BudgetExceeded as over:
                failed = Episode(**identity(latest), error=str(over), costs=costs(latest, name, meter.usage))
                return {"episodes": [{**failed, "error_kind": "cap"}], "stopped": over.cap}
            except IcrlError:
                raise
            except Exception as error:
                is_known = is_overflow(error)
                if is_guess and not is_known:
                    plan = latest["plan"]  # it was not for its length
                may_shrink = is_known or (not is_guess and is_refusal(error) and _is_longest(plan, past))
                is_guess = not is_known
                smaller = shrink(plan) if may_shrink else None
                if smaller is None:
                    reply = failed_call(error, latest["round"], latest["candidate"])
                else:
                    plan = smaller
        plan = _shrunk(plan, reply.pop("shrunk", 0)) or plan
        changed = {} if plan is latest["plan"] else {"plan": plan}
        # a rollout's prompts grow within one message, by an episode a round
        is_single_prompt = policy.kind != "rollout"
        cost = add_usage(meter.usage, reply.pop("usage", {}), {"breaks": breaks} if breaks and is_single_prompt else {})
        stopped = {"stopped": reply.pop("stopped")} if "stopped" in reply else {}
        patch: Any = {**identity(latest), **several, **changed, **reply, "costs": costs(latest, name, cost)}
        patch = {**patch, **extracted(patch, parts.extract)}
        if (policy.kind == "chat" or policy.response_schema) and not warnings_of(past):
            answered: Any = {**patch, "plan": plan}
            if warning := unread(past, answered, name, parts.shows, messages):
                logger.warning("round %d: %s", latest["round"] + 1, warning)
                patch["warning"] = warning
        teller(parts, state)(
            ResponseEvent(
                type="response",
                round=latest["round"],
                candidate=latest["candidate"],
                response=patch.get("response"),
                error=patch.get("error"),
            )
        )
        return {"episodes": [patch], **stopped}

    policy = parts.policies[model]
    return node(name, generate, policy.part, parts, policy.discard, answers=True)


def _shared(
    messages: Sequence[Message], episode: Episode, settings: SavedSettings, policy: Policy, is_new: bool
) -> Hashable:
    """What the prompts of a round have in common, where one call of it is to go ahead for a provider's cache.

    That is so where the cache holds nothing of the prompt yet. Else it holds all but the newest round, and it goes
    ahead only with a model that streams: of that the others wait for the first piece alone, not for the whole answer.
    """
    streams = getattr(unbound(policy.responder.part), "streaming", False)
    if not (policy.cache.waits and settings.width > 1 and (is_new or streams)):
        return None
    if settings.spread == "same":
        return str(messages)
    return settings.run, episode["round"], str(episode["plan"]["shown"])  # of other attempts it is another prompt


def sampling_of(
    policy: Policy,
    parts: Parts,
    settings: SavedSettings,
    episode: Episode,
    instruction: str,
    step: int | None = None,
) -> dict[str, Any]:
    """The arguments of a call beside its prompt, for an instruction; of one of many turns, for its step."""
    sampling = {**parts.sampling.get("default", {}), **parts.sampling.get(instruction, {})}
    if policy.kind != "chat":
        return sampling if policy.response_schema else {}  # nothing but the limit of a response
    kwargs = {**policy.cache.key(settings.run), **sampling}
    if settings.seed is not None:
        purpose = "sample" if instruction == episode["plan"]["instruction"] else instruction
        draw = random_of(settings, episode, purpose if step is None else f"{purpose}/{step}")
        kwargs["seed"] = draw.getrandbits(31)
    return kwargs


def extracted(episode: Episode, extract: Extract | None) -> dict[str, Any]:
    """What `extract` makes of a response, as fields of its episode; {} where nothing is to be extracted."""
    if extract is None or "response" not in episode:
        return {}
    none = {"answer": None, "error_kind": "reply"}
    try:
        with contained():
            answer = plain(extract(episode["response"]), "the answer")
    except Exception as error:
        return {**none, "error": f"no answer could be extracted: {describe(error)}"}
    return {"answer": answer} if answer is not None else {**none, "error": "no answer could be extracted"}
