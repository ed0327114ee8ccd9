"""Language models as judges: evaluators that ask a model and read its verdict.

Each question is a call of its own: counted, journaled, and asked side by side with the others.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

from icrl_graph.calls import Call
from icrl_graph.journal import Flow
from icrl_graph.models import as_policy, name_of_part, read_response
from icrl_graph.prompts import GAME24_ANSWER_JUDGE, GAME24_STEP_JUDGE, fill
from icrl_graph.rewards import Evaluator, Reward
from icrl_graph.verifiers.game24 import read_numbers, read_steps, verify

STEP_VALUES: Mapping[str, float] = {"sure": 3.0, "likely": 1.0, "impossible": 0.0}
"""Rewards of a step of Game of 24 (arXiv 2506.06303)."""
ANSWER_VALUES: Mapping[str, float] = {"sure": 10.0, "impossible": 0.0}
"""Rewards of its answer."""


def judge_game24(model: Any) -> Evaluator:
    """The step judge of Game of 24: a model says of each step whether what it leaves can still make 24.

    The reward of a step is 3 (sure), 1 (likely) or 0 (impossible), that of the answer 10 or 0; the value is their sum,
    0 to 19. Four calls at most: a step that can't be read or is not right, and an answer that is no expression, earn 0
    unasked. The metric is exact, from the verifier. A reply without a verdict leaves its step, and the sum, unscored.

    Args:
        model: who judges; may be the model that is judged. Whatever `create_icrl` takes as a model.
    """
    policy = as_policy(model)

    def ask(question: str | None, values: Mapping[str, float]) -> Flow:
        if question is None:
            return 0.0
        said = yield Call(policy.part, policy.input([{"role": "user", "content": question}]), read_response)
        return read_verdict(said.value.get("response", ""), values)

    def judge(response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        numbers = read_numbers(task_data)
        steps = [step.left for step in read_steps(response, numbers)] + [None] * 3
        answer = verify(response, numbers)
        questions = [None if left is None else _about_step(left) for left in steps[:3]]
        flows = [ask(question, STEP_VALUES) for question in questions]
        checked = None if answer.value is None else _about_answer(answer.expression, numbers)
        rewards = yield [*flows, ask(checked, ANSWER_VALUES)]
        metric = float(answer.reason == "correct")
        if None in rewards:
            place = ("step 1", "step 2", "step 3", "the answer")[rewards.index(None)]
            return Reward(value=None, steps=rewards, metric=metric, error=f"the judge gave no verdict on {place}")
        return Reward(value=sum(rewards), steps=rewards, metric=metric)

    judge.calls = 4  # type: ignore[attr-defined]
    judge.label = f"judge_game24({name_of_part(policy.part)})"  # type: ignore[attr-defined]
    return judge


def _about_step(left: Any) -> str:
    return fill(GAME24_STEP_JUDGE, left=" ".join(map(str, left)))


def _about_answer(expression: str, numbers: Any) -> str:
    return fill(GAME24_ANSWER_JUDGE, expression=expression, numbers=" ".join(map(str, numbers)))


def read_verdict(text: str, values: Mapping[str, float]) -> float | None:
    """The value of the verdict that a text ends with; None if its last line is none of the words."""
    lines = [line for line in text.lower().splitlines() if line.strip()]
    word = re.fullmatch(r"[\W_]*(?:\w+ ?: *)?[\W_]*([a-z]+)[\W_]*", lines[-1]) if lines else None
    return values.get(word[1]) if word else None
