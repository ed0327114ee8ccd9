"""Episodes of many turns: a model acts in an environment, as a policy for every topology.

    START -> reset -> act -> step -> (done? END : act)

    policy = rollout("openai:gpt-4.1-mini", lambda: MyWorld(), max_steps=15)
    graph = create_icrl(policy, episode_return, rounds=10)

One action is one durable step of a nested graph. What lasts is the list of steps; the live environment is a cache of it
(`icrl_graph.environments.pool`). The current episode reaches the model as chat turns, the action as the assistant's,
the observation and its reward as the user's; earlier episodes reach it in the compact form of `layouts.played`.

A prompt is never stored: what a turn needs beside the steps comes as the nested graph's context, made again each time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from icrl_graph.models.policy import Policy, as_policy
from icrl_graph.models.responses import failure, is_overflow, read_response
from icrl_graph.prompts.templates import ACT, REACT
from icrl_graph.prompts.text import reward_line
from icrl_graph.state.choices import name_of_part, pick
from icrl_graph.state.episode import Message, Step, Usage, add_usage
from icrl_graph.state.events import StepEvent, Tell
from icrl_graph.state.reward import Reward

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often an episode begins anew under on_divergence="restart"."""


@dataclass(frozen=True)
class RolloutContext:
    """What an episode of many turns is played with: all that is made again, and so is not part of its state."""

    prompt: Callable[[int], list[Message] | None]
    """What the round asks for, with what it shows of the rounds before, made less so many times (`shrink`);
    None if nothing is left to leave out."""
    actor: Policy
    task_data: Mapping[str, Any]
    driver: Driver
    budget: Budget
    """Of this episode and of those that are played side by side with it."""
    key: Key
    """Of the attempt."""
    reward_label: str
    """The word before a reward."""
    show: Callable[[list[float]], Reward]
    """What the model may see of the rewards of the steps so far."""
    sampling: Callable[[int], dict[str, Any]]
    """The arguments of the call for a step, counted from 0."""
    emit: Tell
    """Streams what a step came to."""
    parent_context: Any
    """The context of the graph around it."""


class RolloutState(TypedDict, total=False):
    """All that a checkpoint of an episode holds."""

    first: str
    """The observation that it began with."""
    hint: str
    """What helps with the next action."""
    steps: Annotated[list[Step], DeltaChannel(lambda old, writes: _merged(old, writes), snapshot_frequency=1000)]
    costs: Annotated[list[Usage], DeltaChannel(lambda old, writes: sum(writes, list(old)), snapshot_frequency=1000)]
    shrunk: int
    """How often what the prompt shows of the rounds before was made less, to fit into the model's context."""
    restarts: int
    """How often it began anew, because a fresh environment did not go the same way."""
    error: str
    """Why it ended without the environment having ended it."""
    stopped: str
    """The cap that was reached."""


def _merged(old: Sequence[Step], writes: Sequence[list[Step]]) -> list[Step]:
    """The reducer: a step that holds an action begins one, one without it completes the latest."""
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
    """A policy that plays an episode in an environment; give it to a topology as its model.

    Args:
        model: acts; whatever a topology takes as a model.
        environment: makes one; or the environments that several policies share.
        max_steps: actions of an episode at most.
        max_concurrency: environments that may be open at once; None for any number.
        thoughts: whether the model is to think aloud ahead of each action, as in ReAct (arXiv 2210.03629).
        on_divergence: what becomes of an episode whose environment was lost, and can't be brought to the same point
            again because a fresh one does not repeat itself: "raise" `ReplayDivergence`, which ends the run, or
            "restart" the episode, whose calls are paid again, up to three times.
        cache: how the model's provider learns what of a prompt to cache.

    Raises:
        ValueError: an argument is wrong.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be 1 or more, got {max_steps!r}")
    if not (callable(environment) or isinstance(environment, EnvironmentPool)):
        raise ValueError(f"environment is a function that makes one, got {environment!r:.80}")
    pick("on_divergence", on_divergence, dict.fromkeys(("raise", "restart")))
    policy = as_policy(model, cache)
    pool = environment if isinstance(environment, EnvironmentPool) else EnvironmentPool(environment, max_concurrency)
    most_restarts = RESTARTS if on_divergence == "restart" else 0
    graph = StateGraph(RolloutState, context_schema=RolloutContext)
    flows = {"reset": _reset(pool), "act": _act(pool, thoughts), "step": _step(pool, max_steps, most_restarts)}
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
    """A flow as a node of the nested graph; whatever ends the run within it gives the episode's environment back."""

    def run(state: RolloutState) -> Any:
        context = context_of(state)
        return context.driver.perform(
            closing(flow(state, context), context), _key(name, state, context), context.budget
        )

    async def arun(state: RolloutState) -> Any:
        context = context_of(state)
        return await context.driver.aperform(
            closing(flow(state, context), context), _key(name, state, context), context.budget
        )

    def context_of(state: RolloutState) -> RolloutContext:
        context: Any = get_runtime().context
        context.budget.resume(_episode_key(context), add_usage(*state.get("costs", [])))
        return context  # type: ignore[no-any-return]

    def closing(flow: Flow, context: RolloutContext) -> Flow:
        try:
            return (yield from flow)
        except Exception:
            yield _unpaid(pool.release, key=_episode_key(context))
            raise

    return PlainNode(run, arun, name, part)


def _key(name: str, state: RolloutState, context: RolloutContext) -> tuple[Any, ...]:
    run, _, number, candidate = context.key
    begun_anew = (f"{name} {state['restarts']}",) if state.get("restarts") else (name,)
    return run, *begun_anew, number, candidate, len(state.get("steps", []))


def _episode_key(context: RolloutContext) -> tuple[str, int, int]:
    """The run, the round and the candidate whose episode it is."""
    run, _, number, candidate = context.key
    return str(run), int(number), int(candidate)


def _unpaid(part: Callable[..., Any], **arguments: Any) -> Call:
    """A call that costs nothing: what the environment does."""
    return Call(part, arguments, lambda messages: messages, paid=False)


def _reset(pool: EnvironmentPool) -> Callable[[RolloutState, RolloutContext], Flow]:
    def reset(state: RolloutState, context: RolloutContext) -> Flow:
        return {**(yield from _reset_environment(pool, context)), "steps": [], "costs": []}

    return reset


def _reset_environment(pool: EnvironmentPool, context: RolloutContext) -> Flow:
    outcome: Outcome = (yield _unpaid(pool.reset, key=_episode_key(context), task_data=context.task_data)).value
    return {"first": outcome.observation, "hint": outcome.hint}


def _act(pool: EnvironmentPool, thoughts: bool) -> Callable[[RolloutState, RolloutContext], Flow]:
    def act(state: RolloutState, context: RolloutContext) -> Flow:
        actor, kwargs, meter = context.actor, context.sampling(len(state["steps"])), Meter()
        parent_context = {"context": context.parent_context} if actor.kind == "graph" else {}
        shrunk, reply = state.get("shrunk", 0), dict[str, Any]()
        while not reply:
            prompt, marks = actor.cache.mark(_prompt(state, context, shrunk, thoughts))
            try:
                call = Call(
                    actor.part, actor.input(prompt), read_response, {**marks, **kwargs}, unkeyed_kwargs=parent_context
                )
                reply = yield from meter.read(single(call))
            except BudgetExceeded as over:
                reply = {"error": str(over), "stopped": over.cap}
            except IcrlError:
                raise
            except Exception as error:
                if is_overflow(error) and context.prompt(shrunk + 1) is not None:
                    shrunk += 1
                else:
                    reply = {"error": failure(error, *_episode_key(context)[1:])}
        spent = {"costs": [meter.usage], **({"shrunk": shrunk} if shrunk else {})}
        if "response" not in reply:
            yield _unpaid(pool.release, key=_episode_key(context))
            return {**reply, **spent}
        return {"steps": [_read_action(reply["response"], thoughts)], **spent}

    return act


_ACTION = re.compile(r"^[ \t*]*action(?:[ \t]+\d+)?[ \t*]*:[ \t*]*", re.I | re.M)


def _read_action(reply: str, thoughts: bool) -> Step:
    """The action that a model asks for, and its thoughts before it; of several actions the first alone.

    A model may continue with what it imagines to observe; none of that is done.
    """
    thought, match, rest = reply, _ACTION.search(reply), reply
    if match:
        thought, rest = reply[: match.start()], reply[match.end() :]
    action = next((line.strip() for line in rest.splitlines() if line.strip(" \t`")), "")
    text = thought.strip() if thoughts and match else ""
    return Step(action=action, thought=text) if text else Step(action=action)


def _step(pool: EnvironmentPool, max_steps: int, most_restarts: int) -> Callable[[RolloutState, RolloutContext], Flow]:
    def step(state: RolloutState, context: RolloutContext) -> Flow:
        actions = [each["action"] for each in state["steps"]]
        seen = [state["first"], *(each["observation"] for each in state["steps"][:-1])]
        done = {"key": _episode_key(context), "task_data": context.task_data, "seen": seen, "actions": actions}
        try:
            outcome: Outcome = (yield _unpaid(pool.step, **done)).value
        except ReplayDivergence as divergence:
            restarts = state.get("restarts", 0) + 1
            if restarts > most_restarts:
                raise
            logger.warning("the episode begins anew: %s", divergence)
            return {**(yield from _reset_environment(pool, context)), "steps": Overwrite([]), "restarts": restarts}
        ends = {"done": outcome.done, "success": outcome.success}
        result: Any = {"observation": outcome.observation, "reward": outcome.reward, **ends, "info": dict(outcome.info)}
        if outcome.done or len(actions) >= max_steps:
            yield _unpaid(pool.release, key=_episode_key(context))
        _, number, candidate = _episode_key(context)
        event = {"type": "step", "round": number, "candidate": candidate, "step": len(actions) - 1}
        context.emit(cast(StepEvent, {**event, "action": actions[-1], **result}))
        return {"steps": [result], "hint": outcome.hint}

    return step


def _prompt(state: RolloutState, context: RolloutContext, shrunk: int, thoughts: bool) -> list[Message]:
    """The prompt of the next action: that of the round, how to answer, and the episode so far."""
    messages = context.prompt(shrunk)
    assert messages is not None
    *before, last = messages
    opening = f"{REACT if thoughts else ACT}\n\n{state['first']}"
    prompt = [*before, {**last, "content": _appended(last["content"], opening)}]
    shown: Reward = context.show([each["reward"] for each in state["steps"]])
    rewards: Sequence[float | None] = shown.get("steps", [])
    for at, step in enumerate(state["steps"]):
        reply = f"{step['thought']}\nAction: {step['action']}" if "thought" in step else step["action"]
        result = [step["observation"], *([reward_line(context.reward_label, rewards[at])] if at < len(rewards) else [])]
        prompt += [{"role": "assistant", "content": reply}, {"role": "user", "content": "\n".join(result)}]
    if state["hint"]:
        prompt[-1] = {**prompt[-1], "content": _appended(prompt[-1]["content"], state["hint"])}
    return prompt


def _appended(content: Any, more: str) -> Any:
    if isinstance(content, str):
        return f"{content}\n\n{more}"
    return [*content, {"type": "text", "text": more}]


def episode_return(steps: Sequence[Mapping[str, Any]]) -> Reward:
    """The reward of an episode that was played: the sum of its steps' rewards, and these."""
    rewards = [float(step.get("reward", 0.0)) for step in steps]
    return Reward(value=sum(rewards), steps=[*rewards])
