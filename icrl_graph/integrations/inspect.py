"""Inspect (https://inspect.aisi.org.uk): methods as solvers of its tasks, and its scorers as evaluators.

    inspect eval task.py --model openai/gpt-4.1-mini --solver icrl_graph/icrl -S rounds=4

The reward is the task's own scorer, unless another evaluator is named. Inspect asks the model, counts, repeats and
logs; its limits end a run, with the best answer so far. Every start of `inspect` imports this module, so it imports
what is heavy within its functions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspect_ai.log import transcript
from inspect_ai.model import GenerateConfig, ModelName, ModelOutput, messages_from_openai, messages_to_openai
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, PARTIAL, Score, Target, score, value_to_float
from inspect_ai.solver import Generate, Solver, TaskState, generate, multiple_choice, solver
from inspect_ai.util import LimitExceededError, registry_create, registry_info

if TYPE_CHECKING:
    from icrl_graph.evaluators.evaluator import BoundEvaluator
    from icrl_graph.execution.driver import Flow

logger = logging.getLogger(__name__)


class NoScorer(ValueError):
    """The task has no scorer, so there is no reward."""


@dataclass
class _Run:
    """The run on a sample, with its best answer so far: of the highest reward, or any while none has one."""

    state: TaskState
    answer: str = ""
    reward: float | None = None

    def watch(self, event: Mapping[str, Any]) -> None:
        """Show an event in Inspect's transcript, and keep the best answer."""
        if event["type"] == "response" and self.reward is None:
            self.answer = event["response"] or self.answer
        if event["type"] == "episode":
            if event["reward"] is not None and (self.reward is None or event["reward"] > self.reward):
                self.answer, self.reward = event["response"], event["reward"]
            names = ("candidate", "instruction", "reward", "best", "error", "response")
            transcript().info({"round": event["round"] + 1, **{name: event[name] for name in names}}, source="icrl")


_run: ContextVar[_Run | None] = ContextVar("icrl_inspect_run", default=None)


def _watch(event: Mapping[str, Any]) -> None:
    if (run := _run.get()) is not None:
        run.watch(event)


def _solver_of(topology: str) -> Callable[..., Solver]:
    """The solver that plays a topology."""

    def create(evaluator: Any = None, feedback: bool = False, paid: bool = False, **options: Any) -> Solver:
        """Improve the answer to each sample by its rewards.

        Args:
            evaluator: gives the reward: a scorer of Inspect or its name, or an evaluator of icrl_graph, whose task data
                is the sample's metadata and its `target`; default the task's scorer, of several the first.
            feedback: whether the model reads the scorer's explanation, which may tell the target.
            paid: whether the scorer asks a model: then a judgement counts as a call.
            options: of the topology, such as `rounds`.

        Raises:
            ValueError: an argument is wrong.
        """
        from icrl_graph.execution.rate_limit import RateLimit
        from icrl_graph.integrations.inspect_model import InspectModel, asked, metered
        from icrl_graph.state.episode import answer_text
        from icrl_graph.topologies.methods import build

        names = {name for given in (options.get("sampling") or {}).values() for name in given}
        if unknown := names - {"stop", *GenerateConfig.model_fields}:
            raise ValueError(f"unknown sampling parameter {', '.join(sorted(unknown))}; see Inspect's GenerateConfig")
        if evaluator is None:
            logger.warning(
                "icrl_graph/%s: the reward is the task's own scorer, so the score of this eval is the one that was "
                "optimised. To have it tell more, name another scorer as evaluator",
                topology,
            )
        watch, judge = options.pop("watch", ()), _evaluator(evaluator, feedback, paid)
        options["watch"] = [_watch, *([watch] if callable(watch) else watch)]
        options["end_on"] = [LimitExceededError, NoScorer, *options.pop("end_on", ())]
        options.setdefault("rate_limit", RateLimit(max_attempts=1))  # Inspect repeats calls that fail
        graph = build(topology, InspectModel(), judge, **options)
        compiled, settings = graph.compile(), graph.settings().model_dump(exclude_none=True)

        async def solve(state: TaskState, generate: Generate) -> TaskState:
            run = _Run(state)
            _run.set(run)
            asked.set(set())
            if state.tools:
                logger.warning("icrl_graph/%s offers the model none of the tools of the task", topology)
            transcript().info({"settings": settings, "evaluator": judge.name}, source="icrl")
            # in a task of its own: Inspect takes the state that one of its solvers returns for the sample's
            inputs = await asyncio.create_task(_inputs(state))
            told: dict[str, Any] = {"stopped": "cancelled"}  # as by Inspect's limits of time
            try:
                with metered() as usage:
                    result = await compiled.ainvoke(inputs, {"recursion_limit": 1_000_000_000})
                told = {name: result[name] for name in ("reward", "stopped", "regret", "rounds_done", "usage")}
                run.answer = "" if result["answer"] is None else answer_text(result)
            except LimitExceededError as limit:
                told["stopped"] = f"{limit.type} limit"
                raise
            finally:
                await _answer(state, run.answer)
                spent = {"input": usage["input_tokens"], "output": usage["output_tokens"]}
                state.metadata["icrl"] = {"evaluator": judge.name, "reward": run.reward, "usage": spent, **told}
            return state

        return solve

    create.__name__ = topology
    return solver(topology)(create)


icrl = _solver_of("icrl")
reflexion = _solver_of("reflexion")
self_refine = _solver_of("self_refine")
best_of_n = _solver_of("best_of_n")


async def _inputs(state: TaskState) -> dict[str, Any]:
    """What a topology takes, of a sample: the messages that Inspect's own solver would ask with."""
    answered = await _answer(_copied(state), "")
    asked = [message for message in answered.messages if message is not answered.output.message]
    target = state.target.text if len(state.target) == 1 else list(state.target)
    return {"task": await messages_to_openai(asked), "task_data": {**state.metadata, "target": target}}


async def _answer(state: TaskState, response: str) -> TaskState:
    """Have a response be the model's, as if Inspect's own solver had asked: choices are read and marked by that."""

    async def reply(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
        state.output = ModelOutput.from_content(str(state.model), response)
        if state.message_limit is None or len(state.messages) < state.message_limit:
            state.messages.append(state.output.message)
        return state

    several = len(state.target) > 1
    own = multiple_choice(multiple_correct=several) if len(state.choices) else generate()
    return await own(state, reply)  # type: ignore[no-any-return]


def _copied(state: TaskState) -> TaskState:
    """A state whose messages and choices are its own."""
    copied = copy(state)
    copied.messages, copied.choices = deepcopy([*state.messages]), deepcopy(state.choices)
    return copied


# ------------------------------------------------------------------------------------------------------------- scorers


def from_scorer(scorer: Any, paid: bool = False, feedback: bool = False) -> BoundEvaluator:
    """A scorer of Inspect as an evaluator, in an eval or outside of any.

    Outside, the task data's `target` (a text, or several) is what it compares with, and all of the task data is the
    sample's metadata.

    Args:
        scorer: such as `includes()`.
        paid: whether it asks a model: then a judgement counts as a call. What that model reads and writes counts anyway.
        feedback: whether the model that is judged reads the scorer's explanation, which may tell the target.

    Raises:
        ValueError: it is no scorer.
    """
    if (info := registry_info(scorer)).type != "scorer":
        raise ValueError(f"{info.name!r} is a {info.type} of Inspect, no scorer")

    async def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Score | None:
        target = Target(task_data.get("target", ""))
        if (run := _run.get()) is None:
            messages = await messages_from_openai([{"role": "user", "content": task}] if isinstance(task, str) else task)
            inputs = task if isinstance(task, str) else messages
            state = TaskState(ModelName("none/none"), "1", 1, inputs, messages, target, metadata={**task_data})
        else:
            state = _copied(run.state)
        return await scorer(await _answer(state, response), target)  # type: ignore[no-any-return]

    return _judge(judge, ("task", "response", "task_data"), info.name, paid, feedback)


async def _own_scorer(response: str) -> Score | None:
    """What the first scorer of the task says, which is logged as an intermediate score."""
    if (run := _run.get()) is None:
        raise NoScorer("there is no task outside of an eval; give a scorer")
    state = await _answer(_copied(run.state), response)
    try:
        scores = await score(state)
    except RuntimeError as error:
        if "with a scorer" not in str(error):
            raise
        scores = []
    if not scores:
        raise NoScorer("the task has no scorer that could give a reward; name one as evaluator")
    return scores[0]  # type: ignore[no-any-return]


def _evaluator(given: Any, feedback: bool, paid: bool) -> BoundEvaluator:
    """What gives the reward.

    Raises:
        ValueError: there is no such evaluator.
    """
    from icrl_graph.evaluators.evaluator import bind_evaluator

    if given is None:
        return _judge(_own_scorer, ("response",), "the task's scorer", paid, feedback)
    try:
        scorer = registry_create("scorer", given) if isinstance(given, str) else given
        return from_scorer(scorer, paid, feedback)
    except (LookupError, ValueError):  # none of Inspect's
        return bind_evaluator(given)


def _judge(judge: Any, names: tuple[str, ...], name: str, paid: bool, feedback: bool) -> BoundEvaluator:
    """A function that gives scores as an evaluator, which counts what the scorer's own model uses."""
    from langchain_core.messages import AIMessage

    from icrl_graph.evaluators.evaluator import BoundEvaluator
    from icrl_graph.execution.calls import Call
    from icrl_graph.execution.driver import single
    from icrl_graph.integrations.inspect_model import metered

    async def measured(**arguments: Any) -> dict[str, Any]:
        with metered() as usage:
            given = await judge(**arguments)
        return {"score": given, "messages": [AIMessage("", usage_metadata=usage)] if usage["total_tokens"] else []}

    def read(told: Mapping[str, Any]) -> dict[str, Any] | None:
        if (given := told["score"]) is None:
            return None
        return {"value": _number(given.value), "feedback": given.explanation if feedback else None}

    def evaluate(**arguments: Any) -> Flow:
        return (yield from single(Call(measured, arguments, read, paid=paid)))

    return BoundEvaluator(evaluate, names, name, flow=True, calls=int(paid))


_WORDS = tuple(word for each in ("yes", "no", "true", "false") for word in (each, each.title(), each.upper()))
"""That `value_to_float` knows."""


def _number(value: Any) -> float:
    """The number that a score's value stands for; `Score.as_float` knows no letters, `value_to_float` gives 0 for all else.

    Raises:
        ValueError: it stands for none.
    """
    if isinstance(value, str) and value not in (CORRECT, INCORRECT, PARTIAL, NOANSWER, *_WORDS):
        value = float(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"a reward is one number, but the scorer gives {value!r:.80}; name another one as evaluator")
    return value_to_float()(value)  # type: ignore[no-any-return]
