"""generate: the prompt of a plan, and what the policy makes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.config import get_stream_writer
from langgraph.runtime import get_runtime

from icrl_graph import ablations, context
from icrl_graph.calls import Call
from icrl_graph.driver import Budget, Driver, Flow, Key, Meter, one
from icrl_graph.errors import BudgetExceeded, IcrlError, ModelError
from icrl_graph.events import ResponseEvent, Tell
from icrl_graph.growing import Scene, next_prompt
from icrl_graph.models import Policy, is_overflow, is_permanent, read_response
from icrl_graph.nodes.parts import Extract, Parts, budget_of, identity, key_of, node, random_of
from icrl_graph.rewards import Reward
from icrl_graph.state import (
    Episode,
    LoopState,
    Message,
    Plan,
    add_usage,
    plain,
)

logger = logging.getLogger(__name__)


def prompt(state: LoopState, parts: Parts, at: int = -1) -> list[Message]:
    """The prompt of an episode, made again from its plan; by default of the latest one."""
    episodes = state["episodes"]
    at %= len(episodes)
    return rendered(state, parts, episodes[:at], episodes[at]["plan"], parts.shows)


def rendered(
    state: LoopState, parts: Parts, past: Sequence[Episode], plan: Plan, shows: context.Shows
) -> list[Message]:
    """The prompt of a plan over these episodes, as far as it shows them."""
    preamble, task, style, layout = _scene(state, parts, shows)
    return context.render(preamble, task, past, plan, style, layout)


def _scene(state: LoopState, parts: Parts, shows: context.Shows) -> Scene:
    frozen = state["settings"]
    style = context.Style(shows, frozen["label"], parts.instructions)
    return Scene(parts.preamble, state["inputs"]["task"], style, parts.pick("layout", frozen))


@dataclass(frozen=True)
class Stage:
    """What an episode of many turns is played with: all that is made again, and so is no part of its state."""

    prompt: Callable[[int], list[Message] | None]
    """What the round asks for, with what it shows of the rounds before, made less so many times (`context.shrink`);
    None if nothing is left to leave out."""
    actor: Policy
    task_data: Mapping[str, Any]
    driver: Driver
    budget: Budget
    """Of this episode and of those that are played side by side with it."""
    key: Key
    """Of the attempt."""
    label: str
    """The word ahead of a reward."""
    show: Callable[[list[float]], Reward]
    """What the model may see of the rewards of the steps so far."""
    sampling: Callable[[int], dict[str, Any]]
    """The arguments of the call for a step, counted from 0."""
    tell: Tell
    """Streams what a step came to."""
    outer: Any
    """The context of the graph around it."""


def _stage(state: LoopState, parts: Parts, actor: Policy, prompt: list[Message]) -> Stage:
    frozen, now = state["settings"], state["episodes"][-1]
    ablation, instruction = parts.pick("show", frozen), now["plan"]["instruction"]

    def budget() -> Budget:
        return budget_of(state)

    def shorter(times: int) -> list[Message] | None:
        if times == 0:
            return prompt
        smaller = _shrunk(now["plan"], times)
        return None if smaller is None else rendered(state, parts, state["episodes"][:-1], smaller, parts.shows)

    return Stage(
        prompt=shorter,
        actor=actor,
        task_data=state["inputs"]["task_data"],
        driver=parts.driver,
        budget=parts.driver.remembered.share(frozen["run"], "budget", budget) if "n" in frozen else budget(),
        key=key_of("generate", state),
        label=frozen["label"],
        show=lambda rewards: ablations.show(
            Reward(value=sum(rewards), steps=list(rewards)), ablation, random_of(frozen, now, "show")
        ),
        sampling=lambda step: sampling_of(actor, parts, frozen, now, instruction, step),
        tell=get_stream_writer(),
        outer=getattr(get_runtime(), "context", None),
    )


def _shrunk(plan: Plan, times: int) -> Plan | None:
    """The plan, made less so many times; None if nothing is left to leave out."""
    smaller: Plan | None = plan
    for _ in range(times):
        smaller = None if smaller is None else context.shrink(smaller)
    return smaller


def _read_rollout(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was played, as fields of an episode."""
    steps: list[Any] = [step for step in values["steps"] if "observation" in step]
    kept = [{name: told for name, told in step.items() if name != "info"} for step in steps[:-1]] + steps[-1:]
    text = "\n".join(map(context.step_line, steps))
    said = {"error": values["error"]} if "error" in values else {"response": text}
    ended = {"stopped": values["stopped"]} if "stopped" in values else {}
    return {
        **said,
        **ended,
        "steps": kept,
        "usage": add_usage(*values.get("costs", [])),
        "shrunk": values.get("shrunk", 0),
    }


def generate(parts: Parts) -> Runnable[Any, Any]:
    """Ask the policy. Whatever goes wrong with one attempt is data on its episode.

    A prompt that does not fit into the model's context is made again with less of the history, and that is recorded.
    """

    def generate(state: LoopState, part: Any) -> Flow:
        *past, now = state["episodes"]
        who = parts.by(parts.policy, state["settings"])
        kwargs = sampling_of(who, parts, state["settings"], now, now["plan"]["instruction"])
        plan, meter = now["plan"], Meter()
        scene, run = _scene(state, parts, parts.shows), state["settings"]["run"]
        shares = who.cache.waits and state["settings"].get("n", 1) > 1
        said: Any = None
        while said is None:
            messages, breaks = next_prompt(parts.driver.remembered, run, now["candidate"], scene, past, plan)
            try:
                if who.kind == "rollout":
                    stage = {"context": _stage(state, parts, who.speaker, messages)}
                    call = Call(who.part, {"steps": []}, _read_rollout, stage, paid=False, accounts=True)
                else:
                    asked, marks = who.cache.mark(messages)
                    call = Call(who.part, who.input(asked), read_response, {**marks, **kwargs}, shares=shares)
                said = yield from meter.read(one(call))
            except BudgetExceeded as over:
                told = Episode(**identity(now), error=str(over), costs={"generate": meter.usage})
                return {"episodes": [told], "stopped": over.cap}
            except IcrlError:
                raise
            except Exception as error:
                smaller = context.shrink(plan) if is_overflow(error) else None
                if smaller is None:
                    said = {"error": failure(error, now["round"], now["candidate"])}
                else:
                    plan = smaller
        plan = _shrunk(plan, said.pop("shrunk", 0)) or plan
        changed = {} if plan is now["plan"] else {"plan": plan}
        told_once = who.kind != "rollout"  # its prompts grow within one message, by an episode a round
        cost = add_usage(meter.usage, said.pop("usage", {}), {"breaks": breaks} if breaks and told_once else {})
        ended = {"stopped": said.pop("stopped")} if "stopped" in said else {}
        patch: Any = {**identity(now), **changed, **said, "costs": {"generate": cost}}
        patch = {**patch, **_extracted(patch, parts.extract)}
        get_stream_writer()(
            ResponseEvent(
                type="response",
                round=now["round"],
                candidate=now["candidate"],
                response=patch.get("response"),
                error=patch.get("error"),
            )
        )
        return {"episodes": [patch], **ended}

    return node("generate", generate, parts.policy.part, parts.driver, parts.policy.abandon)


def failure(error: Exception, round: int, candidate: int) -> str:
    """The words for a call that failed.

    Raises:
        ModelError: no other attempt can succeed either.
    """
    told = f"{type(error).__name__}: {error}"
    if is_permanent(error):
        raise ModelError(told) from error
    logger.warning("round %d, candidate %d: %s", round, candidate, told)
    return told


def sampling_of(
    policy: Policy, parts: Parts, frozen: Mapping[str, Any], now: Episode, instruction: str, step: int | None = None
) -> dict[str, Any]:
    """The arguments of a call beside its prompt, for what is asked for; of one of many turns, for its step."""
    if policy.kind != "chat":
        return {}
    sampling = {**parts.sampling.get("default", {}), **parts.sampling.get(instruction, {})}
    kwargs = {**policy.cache.key(frozen["run"]), **sampling}
    if frozen["seed"] is not None:
        asked = "sample" if instruction == now["plan"]["instruction"] else instruction
        kwargs["seed"] = random_of(frozen, now, asked if step is None else f"{asked}/{step}").getrandbits(31)
    return kwargs


def _extracted(episode: Episode, extract: Extract | None) -> dict[str, Any]:
    if extract is None or "response" not in episode:
        return {}
    try:
        answer = plain(extract(episode["response"]), "the answer")
    except Exception as error:
        return {"answer": None, "error": f"no answer could be extracted: {type(error).__name__}: {error}"}
    return {"answer": answer} if answer is not None else {"answer": None, "error": "no answer could be extracted"}
