"""prepare: the beginning of a run, or its going on for more rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from langchain_core.messages import convert_to_openai_messages
from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from icrl_graph.execution.prices import check_price
from icrl_graph.models.policy import chat_models
from icrl_graph.state.episode import Episode, LoopState, Message, Output
from icrl_graph.topologies import settings
from icrl_graph.topologies.nodes.parts import SCHEMA_VERSION, Parts, check_schema_version
from icrl_graph.topologies.stopping import more_rounds


def prepare_node(parts: Parts) -> Callable[..., Any]:
    """Check the input, freeze the settings of this run into the state, and start with no episodes.

    Or, with `more`, go on with the run that is there.
    """

    def prepare(state: LoopState, runtime: Runtime[Any]) -> dict[str, Any]:
        if state.get("more") is not None:
            return go_on(state, settings.told(parts.schema, runtime.context))
        frozen = settings.resolve(parts.schema, runtime.context)
        check_models(frozen)
        where = runtime.execution_info  # the same again when a killed run is resumed, another for every other run
        source = f"{where.thread_id}/{where.checkpoint_ns}/{where.checkpoint_id}" if where else repr(object())
        frozen["run"] = hashlib.sha256(source.encode()).hexdigest()[:16]
        frozen["form"] = SCHEMA_VERSION
        frozen["parts"] = dict(parts.schema.parts)
        given: Any = {"task": state.get("task"), "task_data": dict(state.get("task_data") or {})}
        if parts.complete is not None:
            drawn = Random(f"{frozen['run'] if frozen['seed'] is None else frozen['seed']}/inputs")
            given = {**given, **parts.complete(given, drawn)}
        inputs = {"task": check_task(given["task"]), "task_data": given["task_data"]}
        return {**fresh(state), "inputs": Overwrite(inputs), "settings": frozen, "episodes": Overwrite([])}

    def check_models(frozen: Mapping[str, Any]) -> None:
        parts.by(parts.policy, frozen)
        if frozen["max_usd"] is not None:
            for name in dict.fromkeys((*chat_models(parts.asked(frozen)), *parts.models)):
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
        check_schema_version(state["settings"])
        frozen = more_rounds(state["settings"], state["episodes"], state["more"], told, parts.calls_each)
        check_models(frozen)
        again = [e for e in state["episodes"] if e.get("retests")]  # the leaders of then; others will be judged again
        forgotten = [Episode(round=e["round"], candidate=e["candidate"], retests=[]) for e in again]
        return {**fresh(state), "settings": frozen, "episodes": forgotten}

    return prepare


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
