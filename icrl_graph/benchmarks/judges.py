"""The judges of the shipped benchmarks: steps of Game of 24, coherence of creative writing."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.judge import Judgement, ask, bind_judge, llm_judge, verdict_reader
from icrl_graph.execution.driver import Flow
from icrl_graph.models.policy import as_policy
from icrl_graph.prompts.templates import (
    GAME24_ANSWER_JUDGE,
    GAME24_STEP_JUDGE,
    WRITING_RUBRIC,
    fill,
)
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.reward import Reward
from icrl_graph.tasks.game24.verifier import read_numbers, read_steps, verify
from icrl_graph.tasks.writing.texts import PASSAGE
from icrl_graph.tasks.writing.verifier import endings

STEP_VALUES: Mapping[str, float] = {"sure": 3.0, "likely": 1.0, "impossible": 0.0}
"""Rewards of a step of Game of 24 (arXiv 2506.06303)."""


ANSWER_VALUES: Mapping[str, float] = {"sure": 10.0, "impossible": 0.0}
"""Rewards of its answer."""


def judge_game24(model: Any) -> BoundEvaluator:
    """The step judge of Game of 24: a model judges of each step whether the numbers left can still make 24.

    The reward of a step is 3 (sure), 1 (likely) or 0 (impossible), that of the answer 10 or 0; the value is their sum,
    0 to 19. Four questions at most: a step that can't be read or is not right, and an answer that is not an expression,
    earn 0 without a question. The metric is exact, from the verifier. A reply without a verdict leaves its step, and
    the sum, unscored.

    Args:
        model: the model that judges; may be the one that is judged. Whatever `create_icrl` takes as a model.
    """
    policy = as_policy(model)

    def value(question: str | None, values: Mapping[str, float]) -> Flow:
        if question is None:
            return Judgement(0.0, "")
        return (yield from ask(policy, question, verdict_reader(values)))

    def judge(response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        numbers = read_numbers(task_data)
        steps = [step.left for step in read_steps(response, numbers)] + [None] * 3
        answer = verify(response, numbers)
        questions = [None if left is None else _about_step(left) for left in steps[:3]]
        flows = [value(question, STEP_VALUES) for question in questions]
        about_answer = None if answer.value is None else _about_answer(answer.expression, numbers)
        judgements = yield [*flows, value(about_answer, ANSWER_VALUES)]
        rewards = [judgement.value for judgement in judgements]
        metric = float(answer.reason == "correct")
        if None in rewards:
            at = rewards.index(None)
            place = ("step 1", "step 2", "step 3", "the answer")[at]
            error = f"the judge gave no verdict on {place}: {judgements[at].words}"
            return Reward(value=None, steps=rewards, metric=metric, error=error)
        return Reward(value=sum(rewards), steps=rewards, metric=metric)

    name = f"judge_game24({name_of_part(policy.part)})"
    return bind_judge(judge, [policy], calls=4, name=name, frame=GAME24_STEP_JUDGE)


def _about_step(left: Any) -> str:
    return fill(GAME24_STEP_JUDGE, left=" ".join(map(str, left)))


def _about_answer(expression: str, numbers: Any) -> str:
    return fill(GAME24_ANSWER_JUDGE, expression=expression, numbers=" ".join(map(str, numbers)))


def judge_writing(model: Any, scale: tuple[float, float] = (1, 10), *, base: str | None = None) -> BoundEvaluator:
    """The judge of the writing task: a model scores how well the passage reads.

    The value is the judge's score. The metric is the exact constraint, 1.0 or 0.0, also where the judge gives no
    verdict; neither the judge nor the policy sees it. So a policy that pleases the judge but drops the sentences is
    visible.

    Args:
        model: the model that judges, or several of them; whatever `create_icrl` takes as a model. Another one than the
            policy's is fairer.
        scale: the lowest and the highest score.
        base: a passage that the score is relative to, as in `llm_judge`.

    Raises:
        ValueError: the scale is not two numbers in order, or there is no model.
    """
    inner = llm_judge(model, WRITING_RUBRIC, scale=scale, base=base)

    def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        exact = endings(response, task_data)  # first, so that nothing is paid for a task without sentences
        reward: Reward = yield from inner(task=task, response=response)
        return {**reward, "metric": exact["metric"]}

    return replace(inner, part=judge, names=("task", "response", "task_data"), name=f"judged_writing({inner.name})")


def judge_writing_relative(model: Any) -> BoundEvaluator:
    """`judge_writing` relative to one fixed passage, from 1 over 5 (as coherent) to 10, as in arXiv 2506.06303.

    Args:
        model: the model that judges, or several of them.
    """
    return judge_writing(model, base=PASSAGE)
