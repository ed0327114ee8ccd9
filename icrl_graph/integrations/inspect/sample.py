"""A sample of Inspect while it is played."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

from inspect_ai.log import transcript
from inspect_ai.model import ModelOutput, messages_to_openai
from inspect_ai.solver import TaskState, generate, multiple_choice


@dataclass
class Run:
    """A run on a sample, with its best answer so far: of the highest reward, or any while none has one."""

    state: TaskState
    answer: str = ""
    reward: float | None = None
    replied: bool = False
    """Whether the model has replied, be it an empty text or a refusal."""
    failure: Exception | None = None
    """The latest of its calls that failed."""
    unscored: str | None = None
    """Why the latest answer that the evaluator failed on has no reward."""


running: ContextVar[Run | None] = ContextVar("icrl_inspect_run", default=None)
"""The run on the sample that is played; None outside of an eval."""


def watch(event: Mapping[str, Any]) -> None:
    """Show an attempt in Inspect's transcript, and keep the best answer."""
    if (run := running.get()) is None:
        return
    if event["type"] == "response" and run.reward is None:
        run.answer = event["response"] or run.answer
    if event["type"] == "episode":
        if event["reward"] is not None and (run.reward is None or event["reward"] > run.reward):
            run.answer, run.reward = event["response"], event["reward"]
        if event["response"] is not None and event["reward"] is None and event["error"]:
            run.unscored = event["error"]
        told = {name: event[name] for name in ("candidate", "instruction", "reward", "best", "error", "response")}
        transcript().info({"round": event["round"] + 1, **told}, source="icrl")


def broken(run: Run, stopped: str) -> str | None:
    """What has kept a run from being one, which is no wrong answer: an outage, or an evaluator that only failed."""
    from icrl_graph.execution.retry import describe

    if run.failure is not None and not run.replied:
        return f"no attempt was answered: {describe(run.failure)}"
    if run.reward is None and run.unscored and stopped in ("rounds", "evaluator", "failures"):  # not a cap
        return f"no attempt was scored: {run.unscored}"
    return None


async def inputs_of(state: TaskState) -> dict[str, Any]:
    """What a topology takes: what Inspect's own solver would ask, and the sample's metadata and target."""
    answered = await answer(copied(state), "")
    asked = [message for message in answered.messages if message is not answered.output.message]
    target = state.target.text if len(state.target) == 1 else list(state.target)
    return {"task": await messages_to_openai(asked), "task_data": {**state.metadata, "target": target}}


async def answer(state: TaskState, response: str) -> TaskState:
    """Have a response be the model's, as if Inspect's own solver had asked: choices are read and marked by that."""

    async def reply(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
        state.output = ModelOutput.from_content(str(state.model), response)
        if state.message_limit is None or len(state.messages) < state.message_limit:
            state.messages.append(state.output.message)
        return state

    own = multiple_choice(multiple_correct=len(state.target) > 1) if len(state.choices) else generate()
    return await own(state, reply)


def copied(state: TaskState) -> TaskState:
    """A state whose messages and choices are its own."""
    new = copy(state)
    new.messages, new.choices = deepcopy([*state.messages]), deepcopy(state.choices)
    return new
