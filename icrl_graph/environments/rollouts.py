"""Episodes of many turns: a model acts in an environment, as a policy for every topology.

    START -> reset -> act -> step -> (done? END : act)

    policy = rollout("openai:gpt-4.1-mini", lambda: MyEnvironment(), max_steps=15)
    graph = create_icrl(policy, episode_return, rounds=10)

One action is one durable step of a nested graph. What lasts is the list of steps; the live environment is a cache of it
(`icrl_graph.environments.pool`). The current episode reaches the model as chat turns, the action as the assistant's,
the observation and its reward as the user's; earlier episodes reach it in a compact form, one line for each step.

A prompt is never stored: what a turn needs besides the steps is the nested graph's context, made again each time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

from langchain_core.runnables import Runnable
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import get_runtime
from langgraph.types import Overwrite
from typing_extensions import TypedDict

from icrl_graph.environments import Environment, Outcome, ReplayDivergence
from icrl_graph.environments.pool import EnvironmentPool
from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Driver, Flow, Key, Meter, single
from icrl_graph.execution.node import TRACED, PlainNode
from icrl_graph.execution.overflow import is_overflow, is_refusal
from icrl_graph.execution.room import Answered, lacks_room
from icrl_graph.models.policy import Policy, as_policy
from icrl_graph.models.responses import failed_call, read_response
from icrl_graph.prompts.templates import ACT, REACT
from icrl_graph.prompts.text import reward_line
from icrl_graph.state.checks import check_counts
from icrl_graph.state.choices import name_of_part, pick
from icrl_graph.state.episode import Message, Step, Usage, add_usage
from icrl_graph.state.events import Emit, StepEvent
from icrl_graph.state.reward import Reward

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""How often an episode is restarted, with `on_divergence="restart"`."""


@dataclass(frozen=True)
class RolloutContext:
    """What an episode of many turns needs besides its state; it is made again each time, and never saved."""

    prompt: Callable[[int], list[Message] | None]
    """The prompt of the round, its history shrunk this many times (`shrink`); None if there is no history left."""
    actor: Policy
    task_data: Mapping[str, Any]
    driver: Driver
    budget: Budget
    """Shared with the episodes that are played side by side with this one."""
    key: Key
    """The key of the attempt: the run, the node, the round, the candidate."""
    reward_label: str
    """The word before a reward."""
    show: Callable[[list[float]], Reward]
    """What the model may see of the rewards of the steps so far."""
    sampling: Callable[[int], dict[str, Any]]
    """The arguments of the model's call for a step, counted from 0."""
    emit: Emit
    """Streams the event of a step."""
    parent_context: Any
    """The context of the graph that this one is nested in."""
    reasoning_tags: str | None
    """How the model marks its reasoning."""

    @property
    def episode_key(self) -> tuple[str, int, int]:
        """The run, the round and the candidate."""
        run, _, number, candidate = self.key
        return str(run), int(number), int(candidate)


class RolloutState(TypedDict, total=False):
    """All that a checkpoint of an episode holds."""

    first: str
    """The first observation."""
    hint: str
    """The latest hint, for the next action."""
    steps: Annotated[list[Step], DeltaChannel(lambda old, writes: _merged(old, writes), snapshot_frequency=1000)]
    costs: Annotated[list[Usage], DeltaChannel(lambda old, writes: sum(writes, list(old)), snapshot_frequency=1000)]
    shrunk: int
    """How often the history in the prompt was shrunk, to fit into the model's context."""
    restarts: int
    """How often it was restarted, because a fresh environment did not repeat itself."""
    error: str
    """Why it ended before the environment had ended it."""
    error_kind: str
    """As in the episode; and what else is known of the reply that had no action."""
    reasoning: str
    finish_reason: str
    cut: bool
    stopped: str
    """The cap that was reached."""


def _merged(old: Sequence[Step], writes: Sequence[list[Step]]) -> list[Step]:
    """The reducer: a write with an action begins a step, one without completes the latest."""
    steps = list(old)
    for step in (step for write in writes for step in write):
        if "action" in step:
            steps.append(step)
        else:
            steps[-1] = {**steps[-1], **step}
    return steps


def rollout(
    model: Any,
    environment: Callable[[], Environment] | EnvironmentPool,
    *,
    max_steps: int = 30,
    max_concurrency: int | None = None,
    thoughts: bool = False,
    on_divergence: str = "raise",
    cache: str = "auto",
) -> Policy:
    """A policy that plays an episode in an environment; pass it to a topology as its model.

    Args:
        model: chooses the actions: whatever a topology takes as a model.
        environment: makes an environment; or a pool that several policies share.
        max_steps: actions per episode at most.
        max_concurrency: environments that may be open at once; None for no limit. A pool has its own.
        thoughts: whether the model writes its thoughts before each action, as in ReAct (arXiv 2210.03629).
        on_divergence: what to do where an environment was lost and a fresh one does not repeat its observations:
            "raise" `ReplayDivergence`, which ends the run, or "restart" the episode up to three times; the calls of a
            restarted episode are paid again.
        cache: how the model's provider is asked to cache prompts.

    Raises:
        ValueError: an argument is wrong.
    """
    check_counts(max_steps=max_steps, **({} if max_concurrency is None else {"max_concurrency": max_concurrency}))
    if not (callable(environment) or isinstance(environment, EnvironmentPool)):
        raise ValueError(f"environment must be a function that makes one, or a pool, got {environment!r:.80}")
    pick("on_divergence", on_divergence, dict.fromkeys(("raise", "restart")))
    policy = as_policy(model, cache)
    pool = environment if isinstance(environment, EnvironmentPool) else EnvironmentPool(environment, max_concurrency)
    max_restarts = MAX_RESTARTS if on_divergence == "restart" else 0
    graph = StateGraph(RolloutState, context_schema=RolloutContext)
    flows = {"reset": _reset(pool), "act": _act(pool, thoughts), "step": _step(pool, max_steps, max_restarts)}
    for name, flow in flows.items():
        part = policy.part if name == "act" else None
        graph.add_node(name, _flow_node(name, flow, pool, part), trace_policy=TRACED)
    graph.add_edge(START, "reset")
    graph.add_edge("reset", "act")
    graph.add_conditional_edges("act", lambda state: END if "error" in state else "step", [END, "step"])
    graph.add_conditional_edges("step", lambda state: END if _is_over(state, max_steps) else "act", [END, "act"])
    return Policy(
        graph.compile(name=name_of_part(policy.part)), "rollout", calls=max_steps, actor=policy, discard=pool.discard
    )


def _is_over(state: RolloutState, max_steps: int) -> bool:
    steps = state["steps"]
    return bool(steps) and (steps[-1]["done"] or len(steps) >= max_steps)


def _flow_node(
    name: str, flow: Callable[[RolloutState, RolloutContext], Flow], pool: EnvironmentPool, part: Any = None
) -> Runnable[Any, Any]:
    """A flow as a node of the nested graph; an error that ends the run also releases the episode's environment."""

    def run(state: RolloutState) -> Any:
        context = resumed_context(state)
        return context.driver.perform(releasing(state, context), _key(name, state, context), context.budget)

    async def arun(state: RolloutState) -> Any:
        context = resumed_context(state)
        return await context.driver.aperform(releasing(state, context), _key(name, state, context), context.budget)

    def resumed_context(state: RolloutState) -> RolloutContext:
        context: RolloutContext = get_runtime(RolloutContext).context
        context.budget.resume(context.episode_key, add_usage(*state.get("costs", [])))
        return context

    def releasing(state: RolloutState, context: RolloutContext) -> Flow:
        try:
            return (yield from flow(state, context))
        except Exception:
            yield _free(pool.release, key=context.episode_key)
            raise

    return PlainNode(run, arun, name, part)


def _key(name: str, state: RolloutState, context: RolloutContext) -> Key:
    """The key of a node's calls; a restarted episode has keys of its own."""
    run, _, number, candidate = context.key
    restarts = state.get("restarts")
    return run, f"{name} {restarts}" if restarts else name, number, candidate, len(state.get("steps", []))


def _free(method: Callable[..., Any], **arguments: Any) -> Call:
    """A call of the environment, which costs nothing."""
    return Call(method, arguments, lambda result: result, paid=False)


def _reset(pool: EnvironmentPool) -> Callable[[RolloutState, RolloutContext], Flow]:
    def reset(state: RolloutState, context: RolloutContext) -> Flow:
        return {**(yield from _first(pool, context)), "steps": [], "costs": []}

    return reset


def _first(pool: EnvironmentPool, context: RolloutContext) -> Flow:
    """Reset the environment; returns the first observation and its hint."""
    key = context.episode_key
    outcome: Outcome = (yield _free(pool.reset, key=key, task_data=context.task_data, episode=key[1:])).value
    return {"first": outcome.observation, "hint": outcome.hint}


def _act(pool: EnvironmentPool, thoughts: bool) -> Callable[[RolloutState, RolloutContext], Flow]:
    def act(state: RolloutState, context: RolloutContext) -> Flow:
        actor, kwargs, meter = context.actor, context.sampling(len(state["steps"])), Meter()
        parent_context = {"context": context.parent_context} if actor.kind == "graph" else {}
        shrunk, response, guessed = state.get("shrunk", 0), dict[str, Any](), 0
        read, tries = partial(read_response, tags=context.reasoning_tags), list[Answered]()
        while not response:
            before = meter.usage.get("output", 0)
            messages, marks = actor.cache.mark(_turns(state, context, shrunk, thoughts))
            try:
                call = Call(actor.part, actor.input(messages), read, {**marks, **kwargs}, unkeyed_kwargs=parent_context)
                response = yield from meter.read(single(call))
                tries.append(Answered.of(response, meter.usage.get("output", 0) - before))
                if lacks_room(tries, _earlier(state)) and context.prompt(shrunk + 1) is not None:
                    shrunk, response = shrunk + 1, {}
            except BudgetExceeded as error:
                response = {"error": str(error), "error_kind": "cap", "stopped": error.cap}
            except IcrlError:
                raise
            except Exception as error:
                is_known = is_overflow(error)
                may_shrink = is_known or (not guessed and is_refusal(error))
                if may_shrink and context.prompt(shrunk + 1) is not None:
                    shrunk, guessed = shrunk + 1, guessed + (not is_known)
                else:
                    shrunk -= 0 if is_known else guessed  # it was not for its length
                    _, number, candidate = context.episode_key
                    response = failed_call(error, number, candidate)
        update = {"costs": [meter.usage], **({"shrunk": shrunk} if shrunk else {})}
        if "response" not in response:
            yield _free(pool.release, key=context.episode_key)
            return {**response, **update}
        told: Any = {name: response[name] for name in ("reasoning", "cut") if name in response}
        return {"steps": [{**_read_action(response["response"], thoughts), **told}], **update}

    return act


def _earlier(state: RolloutState) -> Iterator[Answered]:
    """How the replies of the episode so far have ended."""
    pairs = zip(reversed(state["steps"]), reversed(state["costs"]), strict=False)  # a restart keeps the costs
    return (Answered.of(step, cost.get("output", 0)) for step, cost in pairs)


_ACTION = re.compile(
    r"^[ \t>#*_`-]{0,40}(?:action(?:[ \t]+\d{1,9})?|动作|行动)[ \t*_`]{0,8}[:：](?:[*_`]{1,3}(?=\s|\Z))?[ \t]*"
    r"|<action>",
    re.I | re.M,
)
_BOXED = re.compile(r"\\boxed\{[^{}\n]*\}")
_FENCE = re.compile(r"\s*+(?:`{3,}[\w+-]*+\s*+)?")


def _read_action(response: str, thoughts: bool) -> Step:
    """The first action in a response, and the thought before it.

    A model may continue with further actions and with observations that it imagines; none of that is done.
    """
    thought, marker, rest = response, _ACTION.search(response), response
    if marker:
        thought, rest = response[: marker.start()].strip(), response[marker.end() :]
        rest = re.split("</action>", rest, maxsplit=1, flags=re.I)[0]
    elif boxes := list(_BOXED.finditer(response)):  # as models that were trained to reason end
        marker = boxes[-1]
        thought, rest = response[: marker.start()].strip(), marker[0]
    line = next((line for line in rest.splitlines() if not _FENCE.fullmatch(line)), "")
    action = _unmarked(line, marker[0] if marker else "")
    return Step(action=action, thought=thought) if thoughts and marker and thought else Step(action=action)


def _unmarked(line: str, before: str) -> str:
    """An action without what only sets it off: the sign of a list, bold type, code, quotes or a box around all of it.

    Args:
        line: the action.
        before: the marker before it, in which such a sign may have been opened.
    """
    action = re.sub(r"^[-*>•]\s+", "", line.strip())
    for sign in ("**", "*", "`"):
        action = action.removesuffix(sign) if before.count(sign) % 2 else action
    for first, last in (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("“", "”"), (r"\boxed{", "}")):
        inside = action.removeprefix(first).removesuffix(last)
        if f"{first}{inside}{last}" == action and first not in inside and last not in inside:
            action = inside
    return action.strip()


def _step(pool: EnvironmentPool, max_steps: int, max_restarts: int) -> Callable[[RolloutState, RolloutContext], Flow]:
    def step(state: RolloutState, context: RolloutContext) -> Flow:
        key, task_data = context.episode_key, context.task_data
        actions = [each["action"] for each in state["steps"]]
        seen = [state["first"], *(each["observation"] for each in state["steps"][:-1])]
        try:
            call = _free(pool.step, key=key, task_data=task_data, seen=seen, actions=actions, episode=key[1:])
            outcome: Outcome = (yield call).value
        except ReplayDivergence as error:
            restarts = state.get("restarts", 0) + 1
            if restarts > max_restarts:
                raise
            logger.warning("the episode is restarted: %s", error)
            return {**(yield from _first(pool, context)), "steps": Overwrite([]), "restarts": restarts}
        if outcome.done or len(actions) >= max_steps:
            yield _free(pool.release, key=key)
        result = Step(
            observation=outcome.observation,
            reward=outcome.reward,
            done=outcome.done,
            success=outcome.success,
            info=dict(outcome.info),
        )
        _, number, candidate = key
        event = {"type": "step", "round": number, "candidate": candidate, "step": len(actions) - 1}
        context.emit(cast(StepEvent, {**event, "action": actions[-1], **result}))
        return {"steps": [result], "hint": outcome.hint}

    return step


def _turns(state: RolloutState, context: RolloutContext, shrunk: int, thoughts: bool) -> list[Message]:
    """The prompt of the next action: that of the round, how to answer, and the episode so far."""
    messages = context.prompt(shrunk)
    assert messages is not None
    *before, last = messages
    opening = f"{REACT if thoughts else ACT}\n\n{state['first']}"
    prompt = [*before, {**last, "content": _append(last["content"], opening)}]
    shown: Reward = context.show([each["reward"] for each in state["steps"]])
    rewards: Sequence[float | None] = shown.get("steps", [])
    for i, step in enumerate(state["steps"]):
        action = f"{step['thought']}\nAction: {step['action']}" if "thought" in step else step["action"]
        reward = f"\n{reward_line(context.reward_label, rewards[i])}" if i < len(rewards) else ""
        prompt += [
            {"role": "assistant", "content": action},
            {"role": "user", "content": step["observation"] + reward},
        ]
    if state["hint"]:
        prompt[-1] = {**prompt[-1], "content": _append(prompt[-1]["content"], state["hint"])}
    return prompt


def _append(content: Any, text: str) -> Any:
    """The content of a message, text or blocks, with a paragraph more."""
    if isinstance(content, str):
        return f"{content}\n\n{text}"
    return [*content, {"type": "text", "text": text}]


def episode_return(steps: Sequence[Mapping[str, Any]]) -> Reward:
    """The reward of an episode: the sum of its steps' rewards, and each of them."""
    rewards = [float(step.get("reward", 0.0)) for step in steps]
    return Reward(value=sum(rewards), steps=[*rewards])
