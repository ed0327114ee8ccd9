"""prepare: starts a run, or resumes one for more rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.runnables import Runnable
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Overwrite

from icrl_graph.execution.node import PlainNode
from icrl_graph.execution.prices import check_price
from icrl_graph.execution.sql_journals import afollow_thread, follow_thread
from icrl_graph.models.policy import chat_models
from icrl_graph.prompts.feedback import check_limits
from icrl_graph.state.episode import Episode, LoopState, Message, Output, upsert
from icrl_graph.state.reward import check_on_error, check_target
from icrl_graph.state.stop_rules import check_stops
from icrl_graph.state.unicode import cleaned
from icrl_graph.topologies.nodes.parts import SCHEMA_VERSION, Parts, check_schema_version, made_of
from icrl_graph.topologies.settings import SWITCH, SavedSettings, check_drawn, overrides, resolve
from icrl_graph.topologies.stopping import more_rounds
from icrl_graph.topologies.switching import check_switch

_NO_OUTPUT = Output(
    answer=None, reward=None, metric=None, regret=None, rewarded_by=None, rounds_done=0, stopped=None, usage={}
)


def prepare_node(parts: Parts) -> Runnable[Any, Any]:
    """Check the input, save the settings of this run in the state, and start with no episodes.

    Or, with `more`, resume the run that is there.
    """

    def prepare(state: LoopState) -> dict[str, Any]:
        follow_thread()
        return prepared(state, get_runtime())

    async def aprepare(state: LoopState) -> dict[str, Any]:
        # not in a thread: PostgreSQL's checkpointer waits for one while it holds a connection, and both would wait
        await afollow_thread()
        return prepared(state, get_runtime())

    def prepared(state: LoopState, runtime: Runtime[Any]) -> dict[str, Any]:
        if state.get("more") is not None:
            return _resumed(parts, state, overrides(parts.schema, runtime.context))
        saved = resolve(parts.schema, runtime.context)
        check_settings(parts, saved)
        saved["run"] = _run_id(runtime.execution_info)
        saved["form"] = SCHEMA_VERSION
        saved |= made_of(parts)
        inputs: Any = {"task": state.get("task"), "task_data": check_task_data(state.get("task_data"))}
        if parts.complete is not None:
            seed = saved["run"] if saved["seed"] is None else saved["seed"]
            inputs = {**inputs, **parts.complete(deepcopy(inputs), Random(f"{seed}/inputs"))}
        checked = {"task": check_task(inputs["task"]), "task_data": inputs["task_data"]}
        for each in filter(None, (parts.evaluator, parts.metric, parts.selector)):
            each.check_task(inputs["task_data"])
        new: dict[str, Any] = {"inputs": checked, "episodes": []}
        if state.get("inputs"):  # of the run before on this thread
            new = {name: Overwrite(value) for name, value in new.items()}
        return {**_cleared(state), **new, "settings": saved}

    return PlainNode(prepare, aprepare, "prepare")


def _run_id(info: Any) -> str:
    """The same again when a killed run is resumed, another for every other run."""
    source = f"{info.thread_id}/{info.checkpoint_ns}/{info.checkpoint_id}" if info else repr(object())
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def check_settings(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a model that a run names can't be used or has no price under a cap of dollars.

    Or if its target, or the reward that it gives to attempts on which the evaluator raises, is out of bounds.
    """
    settings = SavedSettings.of(saved)
    if parts.evaluator.on_error is None:
        check_on_error(settings.on_error, parts.bounds)
    check_target(settings.target, parts.bounds)
    check_stops(settings.stop, settings.confirmations, settings.target, parts.bounds)
    check_limits(settings.feedback_limit, settings.latest_feedback_limit)
    check_switch(saved, SWITCH in parts.policies)
    check_drawn(saved, parts.schema.custom)
    names = dict.fromkeys([*parts.policies, *([SWITCH] if parts.switches_model(settings) else [])])
    policies = [parts.policy_of(settings, name) for name in names]
    if settings.max_usd is not None:
        named = chat_models(*(policy.responder.part for policy in policies), parts.writer(settings).part)
        for name in dict.fromkeys((*named, *parts.models)):
            check_price(name, parts.driver.prices)


def _cleared(state: LoopState) -> dict[str, Any]:
    """No output yet; each key costs every checkpoint, so only those that are there."""
    return {name: value for name, value in _NO_OUTPUT.items() if name in state}


def _resumed(parts: Parts, state: LoopState, changed: Mapping[str, Any]) -> dict[str, Any]:
    if state.get("task") is not None or state.get("task_data"):
        raise ValueError("more resumes the run of the thread, on its task: give no other one")
    if not state.get("settings"):
        raise ValueError("there is no run on this thread to resume; give a task")
    check_schema_version(state["settings"])
    if not parts.schema.can_be_extended:
        raise ValueError("a run of another library's program can't be extended; start a new one with more rounds")
    open_rounds = {episode["round"] for episode in state["episodes"] if "reward" not in episode}
    ended = state.get("stopped") is not None and not open_rounds
    # what was interrupted in a round begins it again, and finds in the journal what was answered
    episodes = [episode for episode in state["episodes"] if episode["round"] not in open_rounds]
    calls = parts.calls_ahead(SavedSettings.of(state["settings"]), episodes)
    saved = more_rounds(state["settings"], episodes, state["more"], changed, calls, ended)
    check_settings(parts, saved)
    again = [e for e in episodes if "retests" in e or "reported" in e]  # the leaders of then
    forgotten = [Episode(round=e["round"], candidate=e["candidate"], retests=[], reported=[]) for e in again]
    whole = {"inputs": state["inputs"], "settings": saved, "episodes": upsert(episodes, [forgotten])}
    # whole, so that it is not put together from checkpoints whose order a clock that was set back has changed
    return {**_cleared(state), **{name: Overwrite(value) for name, value in whole.items()}}


def check_task_data(given: Any) -> dict[str, Any]:
    """What the evaluator gets of a task; None is nothing.

    Raises:
        ValueError: it is no mapping.
    """
    if not isinstance(given, Mapping | None):
        raise ValueError(f"task_data must be a mapping, got {given!r:.80}")
    return dict(given or {})


def check_task(task: Any) -> str | list[Message]:
    """The task as text or as messages in OpenAI's format.

    Raises:
        ValueError: it is empty, or neither.
    """
    if isinstance(task, str) and task.strip():
        return cleaned(task)
    if isinstance(task, Sequence) and not isinstance(task, str) and task:
        try:
            messages = cleaned(convert_to_openai_messages(list(task)))
        except (ValueError, TypeError, KeyError, NotImplementedError, RecursionError) as wrong:
            raise ValueError(f"the task's messages are not in OpenAI's format: {wrong}") from wrong
        if messages[-1]["role"] == "assistant":
            raise ValueError("the task's last message must not be the assistant's")
        return list(messages)
    raise ValueError(f"the task must be a text or a list of messages, got {task!r:.80}")
