"""The nodes: prepare, build_context, generate, evaluate, reflect, select; each made by a factory from what it needs.

Every topology is a wiring of these. They work under `invoke` and `ainvoke` alike: those that pay are flows, performed
by the driver of `icrl_graph.driver`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Overwrite, TracePolicy

from icrl_graph import ablations, context, settings
from icrl_graph.calls import Call
from icrl_graph.context import Memory
from icrl_graph.driver import Budget, Driver, Flow, Key, Meter, exhausted, one
from icrl_graph.errors import BudgetExceeded, IcrlError, ModelError, ThreadMismatch
from icrl_graph.events import BudgetEvent, DoneEvent, EpisodeEvent, ResponseEvent, RoundEvent, Tell
from icrl_graph.growing import Scene, next_prompt
from icrl_graph.models import Policy, as_policy, is_overflow, is_permanent, name_of_part, read_response, same_model
from icrl_graph.prices import check_price
from icrl_graph.prompts import INSTRUCTIONS
from icrl_graph.rewards import Reward, Scorer, as_reward, unscored
from icrl_graph.state import (
    Episode,
    LoopState,
    Message,
    Output,
    Plan,
    Usage,
    add_usage,
    answer_of,
    answering,
    best,
    best_value,
    cost_of,
    leaders,
    metric_of,
    outcome,
    plain,
    side_by_side,
    spent,
    upsert,
    value_of,
)
from icrl_graph.stops import caps_of, more_rounds, why_stop

logger = logging.getLogger(__name__)

Chooser = Callable[[Sequence[Episode]], Episode | None]
"""Which episode gives the answer; None if none can."""
Extract = Callable[[str], Any]
"""Makes the answer of a response; None if there is none in it."""
Complete = Callable[[Mapping[str, Any], Random], Mapping[str, Any]]
"""Adds what is missing to an input, `task` and `task_data`, such as a task where none is given."""


@dataclass(frozen=True)
class Parts:
    """What a graph is built of, beside its settings: all that is no name or number."""

    schema: type[settings.RunSettings]
    driver: Driver
    policy: Policy
    """Who answers, unless the settings name another model."""
    evaluator: Scorer
    shows: context.Shows = ("response", "shown")
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    preamble: Sequence[Message] = ()
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extract: Extract | None = None
    complete: Complete | None = None
    models: Sequence[str] = ()
    """The names of the chat models, as far as they can be told ahead."""
    others: dict[str, Policy] = field(default_factory=dict)
    """The models that runs have named, in place of the graph's own."""

    def by(self, policy: Policy, frozen: Mapping[str, Any]) -> Policy:
        """A policy, or the same one with the model that the settings name.

        Raises:
            ValueError: there is none of that name, its key is missing, or the policy has no chat model to replace.
        """
        name = frozen["model"]
        if name in (None, self.schema.model_fields["model"].default):
            return policy
        if name not in self.others:
            self.others[name] = as_policy(name)
        return policy.by(self.others[name])

    def rewarded_by(self, frozen: Mapping[str, Any] | None = None) -> str:
        """Who gives the rewards of a run with these settings: "oracle", "judged", "self-judged" or "human"."""
        policy = self.policy if frozen is None else self.by(self.policy, frozen)
        judges = getattr(self.evaluator.part, "judges", ())
        if told := getattr(self.evaluator.part, "rewarded_by", None):
            return str(told)
        if any(same_model(judge, policy.speaker.part) for judge in judges):
            return "self-judged"
        return "judged" if self.evaluator.calls else "oracle"

    def pick(self, kind: str, frozen: Mapping[str, Any]) -> Any:
        """The memory, schedule, layout or ablation that the settings name."""
        return settings.part(kind, frozen[kind], self.schema.custom)


def _node(name: str, flow: Callable[[Any, Any], Flow], part: Any, driver: Driver) -> Runnable[Any, Any]:
    """A flow as a node; `part` is what it calls."""

    def run(state: LoopState) -> Any:
        with _forgetting(driver, state):
            return driver.perform(flow(state, part), _key(name, state), _budget(state))

    async def arun(state: LoopState) -> Any:
        with _forgetting(driver, state):
            return await driver.aperform(flow(state, part), _key(name, state), _budget(state))

    return Straight(run, arun, name, part)


class Straight(RunnableLambda[Any, Any]):
    """Functions as a node, called straight: LangGraph has set up around a node all that a RunnableLambda would.

    Args:
        func: called under `invoke`.
        afunc: called under `ainvoke`.
        name: the node's.
        part: what they call; LangGraph looks there for a graph within the node.
    """

    def __init__(
        self, func: Callable[[Any], Any], afunc: Callable[[Any], Awaitable[Any]], name: str, part: Any = None
    ) -> None:
        super().__init__(func, afunc=afunc, name=name)
        called = getattr(part, "__self__", part)
        # told, not found: LangChain would keep what it finds in a function, the journal too, when the graph has gone
        self.deps = [called] if isinstance(called, Runnable) else []

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the one."""
        return self.func(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the other."""
        afunc: Callable[[Any], Awaitable[Any]] = self.afunc  # type: ignore[assignment]
        return await afunc(input)


def _brief(state: Any) -> dict[str, Any]:
    """What a trace records of a node's input: not the whole history again with each span."""
    now: Any = (state.get("episodes") or [{}])[-1]
    where = {name: now[name] for name in ("round", "candidate") if name in now}
    return {**where, **{name: len(state[name]) for name in ("episodes", "steps") if name in state}}


TRACED = TracePolicy(process_inputs=_brief)
"""How every node is traced, with LangSmith or anything else that listens to LangChain's callbacks."""


def straight(function: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """A function that never waits, as a node or a router: LangGraph would give it a thread under `ainvoke`."""

    async def afunction(state: Any) -> Any:
        return function(state)

    return Straight(function, afunction, function.__name__)


@contextmanager
def _forgetting(driver: Driver, state: LoopState) -> Iterator[None]:
    """Hold on to nothing of a run that something has ended."""
    try:
        yield
    except BaseException:
        driver.remembered.forget(state["settings"]["run"])
        raise


def _key(name: str, state: LoopState) -> Key:
    check_form(state["settings"])
    now = state["episodes"][-1]
    return state["settings"]["run"], name, now["round"], now["candidate"]


def _budget(state: LoopState) -> Budget:
    caps = caps_of(state["settings"])
    return Budget(caps, spent(state["episodes"]) if caps else {})


def _identity(episode: Episode) -> Episode:
    return Episode(round=episode["round"], candidate=episode["candidate"])


def _costs(episode: Episode, node: str, usage: Usage) -> dict[str, Usage]:
    """What an episode has cost, with what a node has spent on it now."""
    return {**episode.get("costs", {}), node: usage}


def random_of(frozen: Mapping[str, Any], episode: Episode, what: str) -> Random:
    """A generator of an episode's own: the same again if the run is repeated with the same seed, or resumed."""
    source = frozen["run"] if frozen["seed"] is None else frozen["seed"]
    return Random(f"{source}/{episode['round']}/{episode['candidate']}/{what}")


# ------------------------------------------------------------------------------------------------------------- prepare


def prepare(parts: Parts) -> Callable[..., Any]:
    """Check the input, freeze the settings of this run into the state, and start with no episodes.

    Or, with `more`, go on with the run that is there.
    """

    def prepare(state: LoopState, runtime: Runtime[Any]) -> dict[str, Any]:
        if "more" in state:
            return go_on(state, settings.told(parts.schema, runtime.context))
        frozen = settings.resolve(parts.schema, runtime.context)
        check_models(frozen)
        where = runtime.execution_info  # the same again when a killed run is resumed, another for every other run
        source = f"{where.thread_id}/{where.checkpoint_ns}/{where.checkpoint_id}" if where else repr(object())
        frozen["run"] = hashlib.sha256(source.encode()).hexdigest()[:16]
        frozen["form"] = STATE_FORM
        frozen["parts"] = dict(parts.schema.parts)
        given: Any = {"task": state.get("task"), "task_data": dict(state.get("task_data") or {})}
        if parts.complete is not None:
            drawn = Random(f"{frozen['run'] if frozen['seed'] is None else frozen['seed']}/inputs")
            given = {**given, **parts.complete(given, drawn)}
        inputs = {"task": check_task(given["task"]), "task_data": given["task_data"]}
        return {**fresh(state), "inputs": Overwrite(inputs), "settings": frozen, "episodes": Overwrite([])}

    def check_models(frozen: Mapping[str, Any]) -> None:
        speaker = parts.by(parts.policy, frozen).speaker
        if frozen["max_usd"] is not None:
            named = [name_of_part(speaker.part)] if speaker is not parts.policy.speaker else []
            for name in (*parts.models, *named):
                check_price(name, parts.driver.prices)

    def fresh(state: LoopState) -> dict[str, Any]:
        """No output yet; each key costs every checkpoint, so only those that are there."""
        none = Output(
            answer=None, reward=None, metric=None, regret=None, rewarded_by=None, rounds_done=0, stopped=None, usage={}
        )
        return {name: value for name, value in none.items() if name in state}

    def go_on(state: LoopState, told: Mapping[str, Any]) -> dict[str, Any]:
        if state.get("task") is not None or state.get("task_data"):
            raise ValueError("more goes on with the run of the thread, on its task: give no other one")
        if not state.get("episodes"):
            raise ValueError("there is no run on this thread to go on with; give a task")
        check_form(state["settings"])
        frozen = more_rounds(state["settings"], state["episodes"], state["more"], told)
        check_models(frozen)
        return {**fresh(state), "settings": frozen}

    return prepare


STATE_FORM = 3
"""The form of the state; stored with every run."""


def check_form(frozen: Mapping[str, Any]) -> None:
    """Raise `ThreadMismatch` if a run was written by another version of this package than can go on with it."""
    if (form := frozen.get("form")) != STATE_FORM:
        raise ThreadMismatch(
            f"the thread was written in form {form}, this version of icrl_graph reads form {STATE_FORM}: go on with "
            "the version that wrote it, or begin a new thread"
        )


def check_task(task: Any) -> str | list[Message]:
    """The task as text or as messages in OpenAI's format.

    Raises:
        ValueError: it is empty, or neither.
    """
    if isinstance(task, str) and task.strip():
        return task
    if isinstance(task, Sequence) and not isinstance(task, str) and task:
        try:
            messages = convert_to_openai_messages(list(task))
        except (ValueError, TypeError, KeyError, NotImplementedError) as wrong:
            raise ValueError(f"the task's messages are not in OpenAI's format: {wrong}") from wrong
        if messages[-1]["role"] == "assistant":
            raise ValueError("the task's last message must not be the assistant's")
        return list(messages)
    raise ValueError(f"the task must be a text or a list of messages, got {task!r:.80}")


# ------------------------------------------------------------------------------------------------------- build_context


def build_context(parts: Parts, calls_each: int = 1) -> Runnable[Any, Any]:
    """Open the next round: decide, for each of its candidates, what the prompt shows and asks.

    Args:
        parts: what the graph is built of.
        calls_each: paid calls that a candidate takes, its judges' included.
    """

    def build_context(state: LoopState) -> dict[str, Any]:
        frozen, past = state["settings"], state["episodes"]
        check_form(frozen)
        number = past[-1]["round"] + 1 if past else 0
        memory, schedule = parts.pick("memory", frozen), parts.pick("schedule", frozen)
        plan = context.make_plan(number, past, memory, schedule, frozen["warmup"])
        if frozen.get("said", {}).get("round") == number:  # a person has (see `icrl_graph.people`)
            plan = {**plan, "instruction": frozen["said"]["text"]}
        width = frozen.get("n", 1)
        if width > 1 and frozen["max_calls"] is not None:  # side by side, they can't see what the others spend
            width = max(1, min(width, frozen["max_calls"] // calls_each))
        get_stream_writer()(
            RoundEvent(
                type="round",
                round=number,
                instruction=plan["instruction"],
                shown=len(context.chosen(past, plan)),
                left_out=plan["left_out"],
                attempts=width,
            )
        )
        return {"episodes": [Episode(round=number, candidate=c, plan=plan) for c in range(width)]}

    async def abuild_context(state: LoopState) -> dict[str, Any]:
        named = (parts.pick(kind, state["settings"]) for kind in ("memory", "schedule"))
        if all(map(context.is_ours, named)):
            return build_context(state)
        return await asyncio.to_thread(build_context, state)  # the user's own may block

    return Straight(build_context, abuild_context, "build_context")


# ------------------------------------------------------------------------------------------------------------ generate


def prompt(state: LoopState, parts: Parts, at: int = -1) -> list[Message]:
    """The prompt of an episode, made again from its plan; by default of the latest one."""
    episodes = state["episodes"]
    at %= len(episodes)
    return _render(state, parts, episodes[:at], episodes[at]["plan"], parts.shows)


def _render(state: LoopState, parts: Parts, past: Sequence[Episode], plan: Plan, shows: context.Shows) -> list[Message]:
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


def _stage(state: LoopState, parts: Parts, actor: Policy, prompt: list[Message]) -> Stage:
    frozen, now = state["settings"], state["episodes"][-1]
    ablation, instruction = parts.pick("show", frozen), now["plan"]["instruction"]

    def shorter(times: int) -> list[Message] | None:
        if times == 0:
            return prompt
        smaller = _shrunk(now["plan"], times)
        return None if smaller is None else _render(state, parts, state["episodes"][:-1], smaller, parts.shows)

    return Stage(
        prompt=shorter,
        actor=actor,
        task_data=state["inputs"]["task_data"],
        driver=parts.driver,
        budget=_budget(state),
        key=_key("generate", state),
        label=frozen["label"],
        show=lambda rewards: ablations.show(
            Reward(value=sum(rewards), steps=list(rewards)), ablation, random_of(frozen, now, "show")
        ),
        sampling=lambda step: _sampling(actor, parts, frozen, now, instruction, step),
        tell=get_stream_writer(),
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


def generate(policy: Policy, parts: Parts) -> Runnable[Any, Any]:
    """Ask the policy. Whatever goes wrong with one attempt is data on its episode.

    A prompt that does not fit into the model's context is made again with less of the history, and that is recorded.
    """

    def generate(state: LoopState, part: Any) -> Flow:
        *past, now = state["episodes"]
        who = parts.by(policy, state["settings"])
        kwargs = _sampling(who, parts, state["settings"], now, now["plan"]["instruction"])
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
                told = Episode(**_identity(now), error=str(over), costs={"generate": meter.usage})
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
        patch: Any = {**_identity(now), **changed, **said, "costs": {"generate": cost}}
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

    return _node("generate", generate, policy.part, parts.driver)


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


def _sampling(
    policy: Policy, parts: Parts, frozen: Mapping[str, Any], now: Episode, instruction: str, step: int | None = None
) -> dict[str, Any]:
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


# ------------------------------------------------------------------------------------------------------------ evaluate


def evaluate(
    evaluator: Scorer,
    metric: Scorer | None,
    parts: Parts,
    bounds: tuple[float, float] | None = None,
    timeout: float | None = None,
    calls_each: int = 1,
) -> Runnable[Any, Any]:
    """Judge what the round has answered, decide what later prompts may see of it, and whether the run is over.

    Args:
        evaluator: gives the reward.
        metric: gives what is reported, if it is another one.
        parts: what the graph is built of.
        bounds: lowest and highest reward that make sense.
        timeout: seconds for one evaluation.
        calls_each: paid calls that a round takes; the run is over where they can't all be paid.
    """

    def score(state: LoopState, episode: Episode) -> Flow:
        if "response" not in episode:
            return unscored(episode.get("error", "no response")), Usage()
        if "answer" in episode and episode["answer"] is None:
            return unscored(episode["error"]), Usage()
        reward, usage = yield from _ask(evaluator, state, episode, bounds, timeout)
        if metric is not None:
            measured, more = yield from _ask(metric, state, episode, None, timeout)
            reward, usage = {**reward, "metric": measured["value"]}, add_usage(usage, more)
            if "error" in measured:
                reward.setdefault("error", f"metric: {measured['error']}")
        return reward, usage

    def evaluate(state: LoopState, part: Any) -> Flow:
        frozen, episodes = state["settings"], state["episodes"]
        todo = [episode for episode in episodes if "reward" not in episode]
        flows = [score(state, episode) for episode in todo]
        judged = yield from _all(flows, evaluator, metric)
        ablation = parts.pick("show", frozen)
        patches: list[Episode] = []
        for episode, (reward, usage) in zip(todo, judged, strict=True):
            patch = _identity(episode)
            patch["reward"] = reward
            patch["shown"] = ablations.show(reward, ablation, random_of(frozen, episode, "show"))
            patch["costs"] = _costs(episode, "evaluate", usage)
            patches.append(patch)
        episodes = upsert(episodes, [patches])
        _tell(frozen, episodes, len(patches))
        return {"episodes": patches, "stopped": state.get("stopped") or why_stop(frozen, episodes, calls_each)}

    return _node("evaluate", evaluate, evaluator.part, parts.driver)


def _ask(
    scorer: Scorer, state: LoopState, episode: Episode, bounds: tuple[float, float] | None, timeout: float | None
) -> Flow:
    """One evaluator on one episode; whatever goes wrong leaves it unscored. Gives the reward and what it cost."""
    arguments = scorer.arguments(
        **deepcopy(state["inputs"]),  # an evaluator that writes into it must not change the run
        response=episode["response"],
        answer=answer_of(episode),
        steps=episode.get("steps"),
        history=_history(state, episode) if "history" in scorer.names else None,
    )
    if scorer.flow:
        flow = scorer.part(**arguments)
    else:
        flow = one(Call(scorer.part, arguments, lambda given: as_reward(given, bounds), paid=scorer.calls > 0))
    meter = Meter()
    try:
        given = yield from meter.read(flow, timeout)
    except BudgetExceeded as over:
        return unscored(str(over)), meter.usage
    except (IcrlError, GraphBubbleUp):  # a flow may ask a person
        raise
    except Exception as error:
        return unscored(failure(error, episode["round"], episode["candidate"])), meter.usage
    return as_reward(given, bounds), meter.usage


def _history(state: LoopState, episode: Episode) -> list[dict[str, Any]]:
    """The attempts of the rounds before, as somebody who judges may see them."""
    before = (e for e in state["episodes"] if e["round"] < episode["round"])
    told = ((e, e.get("reward", {})) for e in before)
    return [{"response": e.get("response"), "reward": r.get("value"), "feedback": r.get("feedback")} for e, r in told]


def _all(flows: list[Flow], *scorers: Scorer | None) -> Flow:
    """Side by side where all that is asked is paid; else one by one.

    Functions may ask a person by `interrupt`, and LangGraph hands out the answers in the order of the questions.
    """
    if all(scorer.calls and not scorer.asks for scorer in scorers if scorer is not None):
        return (yield flows)
    judged = []
    for flow in flows:
        judged += yield [flow]
    return judged


def _tell(frozen: Mapping[str, Any], episodes: Sequence[Episode], new: int) -> None:
    write = get_stream_writer()
    for at in range(len(episodes) - new, len(episodes)):
        episode = episodes[at]
        write(
            EpisodeEvent(
                type="episode",
                round=episode["round"],
                candidate=episode["candidate"],
                instruction=episode["plan"]["instruction"],
                response=episode.get("response"),
                answer=answer_of(episode),
                reward=value_of(episode),
                steps=episode["reward"].get("steps", []),
                metric=metric_of(episode),
                error=episode.get("error") or episode["reward"].get("error"),
                best=best_value(episodes[: at + 1]),
                usage=cost_of(episode),
            )
        )
    if caps := caps_of(frozen):
        write(BudgetEvent(type="budget", spent=spent(episodes), caps=caps))


# ------------------------------------------------------------------------------------------------------------- reflect


def reflect(
    policy: Policy, parts: Parts, instruction: str, shows: context.Shows, memory: Memory | None = None, own: bool = True
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
        plan = context.make_plan(
            len(episodes),
            episodes,
            lambda past: [*chosen(past), len(past) - 1],
            lambda number, past: instruction,
        )
        asked = _render(state, parts, episodes, plan, shows)
        who, meter = parts.by(policy, frozen) if own else policy, Meter()
        try:
            call = Call(who.part, who.input(asked), read_response, _sampling(who, parts, frozen, now, instruction))
            said = yield from meter.read(one(call))
        except BudgetExceeded as over:
            return {"stopped": over.cap}
        except IcrlError:
            raise
        except Exception as error:
            said = {"error": failure(error, now["round"], now["candidate"])}
        patch = Episode(**_identity(now), costs=_costs(now, "reflect", meter.usage))
        if "response" in said:
            patch["reflection"] = said["response"]
        else:
            patch["reflection_error"] = said["error"]
        cap = exhausted(caps_of(frozen), spent(upsert(episodes, [[patch]])))
        return {"episodes": [patch], **({"stopped": cap} if cap else {})}

    return _node("reflect", reflect, policy.part, parts.driver)


# -------------------------------------------------------------------------------------------------------------- select


LEADERS = 3
"""How many of the attempts are judged again before one is chosen, if the settings ask for it."""


def select(
    parts: Parts,
    evaluator: Scorer,
    choose: Chooser = best,
    selector: Scorer | None = None,
    bounds: tuple[float, float] | None = None,
    timeout: float | None = None,
) -> Runnable[Any, Any]:
    """Write the answer and what it took, once, so that no step before carries them.

    Args:
        parts: what the graph is built of.
        evaluator: who gave the rewards; judges the leaders again, if the settings ask for retests.
        choose: which episode gives the answer; by default the one with the highest reward.
        selector: instead, an evaluator: the answer is what it values most.
        bounds: lowest and highest reward that make sense.
        timeout: seconds for one evaluation.
    """

    def value(state: LoopState) -> Flow:
        """What the selector gives each attempt: patches."""
        assert selector is not None
        candidates = [episode for episode in state["episodes"] if answer_of(episode) is not None]
        judged = yield from _all([_ask(selector, state, each, None, timeout) for each in candidates], selector)
        return [
            Episode(**_identity(each), selection=reward, costs=_costs(each, "select", usage))
            for each, (reward, usage) in zip(candidates, judged, strict=True)
        ]

    def retest(state: LoopState, times: int) -> Flow:
        """What the leaders are given again: patches. A turn that could not be judged for all of them does not count."""
        candidates = leaders(state["episodes"], LEADERS)
        flows = [_ask(evaluator, state, each, bounds, timeout) for _ in range(times) for each in candidates]
        judged = yield from _all(flows, evaluator)
        turns = [judged[at : at + len(candidates)] for at in range(0, len(judged), len(candidates) or 1)]
        whole = [turn for turn in turns if all(reward["value"] is not None for reward, _ in turn)]
        together = side_by_side if evaluator.calls else lambda usages: add_usage(*usages)
        return [
            Episode(
                **_identity(each),
                retests=[turn[i][0]["value"] for turn in whole],
                costs=_costs(each, "select", together([turn[i][1] for turn in turns])),
            )
            for i, each in enumerate(candidates)
        ]

    def compare(state: LoopState) -> Flow:
        """What the choice is made by, beside the rewards: patches for the episodes."""
        if selector is not None:
            return (yield from value(state))
        times = state["settings"]["retests"]
        if times and choose is best and state.get("stopped") != "failures":
            return (yield from retest(state, times))
        return []

    def select(state: LoopState, part: Any) -> Flow:
        patches = yield from compare(state)
        episodes, frozen = upsert(state["episodes"], [patches]), state["settings"]
        top = answering(episodes, choose) if selector is None else choose(episodes)
        output = outcome(episodes, top, parts.rewarded_by(frozen))
        parts.driver.remembered.forget(frozen["run"])
        get_stream_writer()(
            DoneEvent(
                type="done",
                stopped=state.get("stopped"),
                answer=output["answer"],
                reward=output["reward"],
                metric=output["metric"],
                rounds=output["rounds_done"],
                usage=output["usage"],
            )
        )
        ended = {} if frozen["parts"] == parts.schema.parts else {"settings": {**frozen, "parts": parts.schema.parts}}
        return {**output, **ended, "episodes": patches}  # a run may be ended by another model than it was begun with

    return _node("select", select, None if selector is None else selector.part, parts.driver)
