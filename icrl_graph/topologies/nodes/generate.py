"""generate: the prompt of a plan, and what the policy makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.config import get_stream_writer
from langgraph.runtime import get_runtime

from icrl_graph.environments.rollout import RolloutContext
from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow, Meter, single
from icrl_graph.models.policy import Policy
from icrl_graph.models.responses import failure, is_overflow, read_response
from icrl_graph.prompts import ablations
from icrl_graph.prompts.incremental import PromptSettings, next_prompt
from icrl_graph.prompts.layouts import Shows, Style, render
from icrl_graph.prompts.plan import shrink
from icrl_graph.prompts.text import step_line
from icrl_graph.state.episode import Episode, LoopState, Message, Plan, add_usage, plain
from icrl_graph.state.events import ResponseEvent
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.nodes.parts import Extract, Parts, budget_of, identity, key_of, node, random_of


def prompt(state: LoopState, parts: Parts, at: int = -1) -> list[Message]:
    """The prompt of an episode, made again from its plan; by default of the latest one."""
    episodes = state["episodes"]
    at %= len(episodes)
    return rendered(state, parts, episodes[:at], episodes[at]["plan"], parts.shows)


def rendered(state: LoopState, parts: Parts, past: Sequence[Episode], plan: Plan, shows: Shows) -> list[Message]:
    """The prompt of a plan over these episodes, as far as it shows them."""
    preamble, task, style, layout = _prompt_settings(state, parts, shows)
    return render(preamble, task, past, plan, style, layout)


def _prompt_settings(state: LoopState, parts: Parts, shows: Shows) -> PromptSettings:
    frozen = state["settings"]
    style = Style(shows, frozen["label"], parts.instructions)
    return PromptSettings(parts.preamble, state["inputs"]["task"], style, parts.pick("layout", frozen))


def _rollout_context(state: LoopState, parts: Parts, actor: Policy, prompt: list[Message]) -> RolloutContext:
    frozen, now = state["settings"], state["episodes"][-1]
    ablation, instruction = parts.pick("show", frozen), now["plan"]["instruction"]

    def budget() -> Budget:
        return budget_of(state)

    def shorter(times: int) -> list[Message] | None:
        if times == 0:
            return prompt
        smaller = _shrunk(now["plan"], times)
        return None if smaller is None else rendered(state, parts, state["episodes"][:-1], smaller, parts.shows)

    return RolloutContext(
        prompt=shorter,
        actor=actor,
        task_data=state["inputs"]["task_data"],
        driver=parts.driver,
        budget=parts.driver.run_cache.share(frozen["run"], "budget", budget) if "n" in frozen else budget(),
        key=key_of("generate", state),
        label=frozen["label"],
        show=lambda rewards: ablations.show(
            Reward(value=sum(rewards), steps=list(rewards)), ablation, random_of(frozen, now, "show")
        ),
        sampling=lambda step: sampling_of(actor, parts, frozen, now, instruction, step),
        tell=get_stream_writer(),
        parent_context=getattr(get_runtime(), "context", None),
    )


def _shrunk(plan: Plan, times: int) -> Plan | None:
    """The plan, made less so many times; None if nothing is left to leave out."""
    smaller: Plan | None = plan
    for _ in range(times):
        smaller = None if smaller is None else shrink(smaller)
    return smaller


def _read_rollout(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was played, as fields of an episode."""
    steps: list[Any] = [step for step in values["steps"] if "observation" in step]
    kept = [{name: told for name, told in step.items() if name != "info"} for step in steps[:-1]] + steps[-1:]
    text = "\n".join(map(step_line, steps))
    said = {"error": values["error"]} if "error" in values else {"response": text}
    ended = {"stopped": values["stopped"]} if "stopped" in values else {}
    return {
        **said,
        **ended,
        "steps": kept,
        "usage": add_usage(*values.get("costs", [])),
        "shrunk": values.get("shrunk", 0),
    }


def generate_node(parts: Parts) -> Runnable[Any, Any]:
    """Ask the policy. Whatever goes wrong with one attempt is data on its episode.

    A prompt that does not fit into the model's context is made again with less of the history, and that is recorded.
    """

    def generate(state: LoopState, part: Any) -> Flow:
        *past, now = state["episodes"]
        who = parts.by(parts.policy, state["settings"])
        kwargs = sampling_of(who, parts, state["settings"], now, now["plan"]["instruction"])
        plan, meter = now["plan"], Meter()
        prompt_settings, run = _prompt_settings(state, parts, parts.shows), state["settings"]["run"]
        run_cache, key = parts.driver.run_cache, ("rendered", now["candidate"])
        shares_prompt = who.cache.waits and state["settings"].get("n", 1) > 1
        said: Any = None
        while said is None:
            messages, breaks, rendered_now = next_prompt(run_cache.get(run, key), prompt_settings, past, plan)
            run_cache.put(run, key, rendered_now)
            try:
                if who.kind == "rollout":
                    stage = {"context": _rollout_context(state, parts, who.responder, messages)}
                    call = Call(who.part, {"steps": []}, _read_rollout, stage, paid=False, tracks_own_cost=True)
                else:
                    asked, marks = who.cache.mark(messages)
                    call = Call(
                        who.part, who.input(asked), read_response, {**marks, **kwargs}, shares_prompt=shares_prompt
                    )
                said = yield from meter.read(single(call))
            except BudgetExceeded as over:
                told = Episode(**identity(now), error=str(over), costs={"generate": meter.usage})
                return {"episodes": [told], "stopped": over.cap}
            except IcrlError:
                raise
            except Exception as error:
                smaller = shrink(plan) if is_overflow(error) else None
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

    return node("generate", generate, parts.policy.part, parts.driver, parts.policy.discard)


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
