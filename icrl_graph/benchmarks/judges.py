"""The judges of the shipped benchmarks: steps of Game of 24, coherence of creative writing."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.evaluators.judge import Judgement, _ask, _reader, _told, llm_judge
from icrl_graph.execution.driver import Flow
from icrl_graph.models.policy import as_policy, name_of_part
from icrl_graph.prompts.templates import (
    GAME24_ANSWER_JUDGE,
    GAME24_STEP_JUDGE,
    WRITING_RUBRIC,
    fill,
)
from icrl_graph.state.reward import Reward
from icrl_graph.tasks.game24.verifier import read_numbers, read_steps, verify
from icrl_graph.tasks.writing.verifier import endings as check

STEP_VALUES: Mapping[str, float] = {"sure": 3.0, "likely": 1.0, "impossible": 0.0}
"""Rewards of a step of Game of 24 (arXiv 2506.06303)."""


ANSWER_VALUES: Mapping[str, float] = {"sure": 10.0, "impossible": 0.0}
"""Rewards of its answer."""


def judge_game24(model: Any) -> Evaluator:
    """The step judge of Game of 24: a model says of each step whether what it leaves can still make 24.

    The reward of a step is 3 (sure), 1 (likely) or 0 (impossible), that of the answer 10 or 0; the value is their sum,
    0 to 19. Four questions at most: a step that can't be read or is not right, and an answer that is no expression,
    earn 0 unasked. The metric is exact, from the verifier. A reply without a verdict leaves its step, and the sum,
    unscored.

    Args:
        model: who judges; may be the model that is judged. Whatever `create_icrl` takes as a model.
    """
    policy = as_policy(model)

    def ask(question: str | None, values: Mapping[str, float]) -> Flow:
        if question is None:
            return Judgement(0.0, "")
        return (yield from _ask(policy, question, _reader(values)))

    def judge(response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        numbers = read_numbers(task_data)
        steps = [step.left for step in read_steps(response, numbers)] + [None] * 3
        answer = verify(response, numbers)
        questions = [None if left is None else _about_step(left) for left in steps[:3]]
        flows = [ask(question, STEP_VALUES) for question in questions]
        checked = None if answer.value is None else _about_answer(answer.expression, numbers)
        judgements = yield [*flows, ask(checked, ANSWER_VALUES)]
        rewards = [judgement.value for judgement in judgements]
        metric = float(answer.reason == "correct")
        if None in rewards:
            at = rewards.index(None)
            place = ("step 1", "step 2", "step 3", "the answer")[at]
            error = f"the judge gave no verdict on {place}: {judgements[at].words}"
            return Reward(value=None, steps=rewards, metric=metric, error=error)
        return Reward(value=sum(rewards), steps=rewards, metric=metric)

    return _told(judge, [policy], 4, f"judge_game24({name_of_part(policy.part)})", GAME24_STEP_JUDGE)


def _about_step(left: Any) -> str:
    return fill(GAME24_STEP_JUDGE, left=" ".join(map(str, left)))


def _about_answer(expression: str, numbers: Any) -> str:
    return fill(GAME24_ANSWER_JUDGE, expression=expression, numbers=" ".join(map(str, numbers)))


def judged(model: Any, scale: tuple[float, float] = (1, 10)) -> Evaluator:
    """The judge of the writing task: a model scores how well the passage reads.

    The value is the judge's score. The metric is the exact constraint, 1.0 or 0.0, and there even where the judge gives
    no verdict; neither the judge nor the policy sees it. So a policy that wins the judge over while it drops the
    sentences is found out.

    Args:
        model: who judges, or several of them; whatever `create_icrl` takes as a model. Another one than the policy's is
            fairer.
        scale: the lowest and the highest score.

    Raises:
        ValueError: the scale is none, or there is no model.
    """
    inner: Any = llm_judge(model, WRITING_RUBRIC, scale=scale)

    def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        checked = check(response, task_data)  # first, so that nothing is paid for a task without sentences
        reward: Reward = yield from inner(task, response)
        return {**reward, "metric": checked["metric"]}

    told: Any = judge  # what its inner judge tells: who judges, by how many calls, and what these ask
    told.calls, told.judges, told.frame = inner.calls, inner.judges, inner.frame
    told.label = f"judged_writing({inner.label})"
    return judge
