"""Answers to problems of mathematics: compared exactly with the right one, or with the other attempts.

Numbers are compared as they are written. Formulas are compared by Math-Verify (extra `math`) in a worker process with
limits of time and memory, so that no answer can hang or end a run: one that reaches a limit is not right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from icrl_graph.errors import missing_extra
from icrl_graph.evaluators.evaluator import BoundEvaluator, bind_evaluator
from icrl_graph.evaluators.isolation import LimitReached, isolated
from icrl_graph.state.loading import load
from icrl_graph.state.reward import UNSCORED, Reward
from icrl_graph.tasks.mathematics.answers import (
    LONGEST,
    canonical_answer,
    is_prose,
    normal,
    rational,
    read_answer,
    read_targets,
)

CPU_SECONDS = 5.0
"""For the comparison of two formulas."""
MEMORY = 1024.0
"""MiB of a worker."""
TIMEOUT = 300.0
"""Seconds by the clock after which a worker is given up, and the attempt is unscored: the limit of the processor's time
has come long before, unless the machine is overloaded."""


def verify(response: str, task_data: Mapping[str, Any]) -> Reward:
    r"""The evaluator: 1 if the response's answer is right, else 0; an answer that can't be read is not right.

    Args:
        response: with its answer in `<answer>...</answer>` or `\boxed{...}`.
        task_data: the right answer by "target", a text or a number, or a list of several right ones.

    Raises:
        ValueError: there is no target, or it can't be read.
        MissingExtra: the answer has to be compared as a formula, and Math-Verify is not installed.
    """
    targets, answer = read_targets(task_data), read_answer(response)
    if answer is None:
        return Reward(value=0.0, feedback="There is no answer in <answer>...</answer> or \\boxed{...}.")
    if len(answer) > LONGEST:
        return Reward(value=0.0, feedback=f"The answer is longer than {LONGEST} characters.")
    compared = [compare(answer, target) for target in targets]
    return next((reward for reward in compared if reward["value"] == 1), compared[0])


def compare(answer: str, target: str) -> Reward:
    """Whether an answer equals a target; raises as `verify` does."""
    number, wanted = rational(answer), rational(target)
    if number is not None and wanted is not None:
        return Reward(value=float(number == wanted))
    try:
        reward: Reward = _workers()(answer=normal(answer), task_data={"target": normal(target)})
    except LimitReached:
        return Reward(value=0.0, feedback="The answer is too large to be worked out.")
    return reward


def check_targets(task_data: Mapping[str, Any]) -> None:
    """Raise if the right answers of a task can't be compared with, as `read_targets` and `check_target` do."""
    for target in read_targets(task_data):
        check_target(target)


@cache
def check_target(target: str) -> None:
    """Raise if a right answer can't be compared with.

    Raises:
        ValueError: it can't be read as a formula, or is longer than answers that are compared.
        MissingExtra: Math-Verify is not installed.
    """
    if find_spec("math_verify") is None:
        raise _missing()
    try:
        is_right = not is_prose(target) and len(target) <= LONGEST and compare(target, target)["value"] == 1
    except RuntimeError:  # the worker's ValueError
        is_right = False
    if not is_right:
        raise ValueError(
            f"the right answer {target!r:.200} can't be read as a number or a formula: it has to be the answer alone, "
            f"of {LONGEST} characters at most"
        )


exact = replace(bind_evaluator(verify), on_error=UNSCORED, check=check_targets)
"""`verify` as an evaluator. Whatever it raises is a fault of the task data or of this machine, and never a 0."""


def agreement(response: str, history: Sequence[Mapping[str, Any]], siblings: Sequence[Mapping[str, Any]] = ()) -> float:
    """Without labels: 1 if no answer so far is more frequent than this one, shared among equals.

    The pseudo-reward of TR-ICRL (arXiv 2604.00438), over the attempts of a run up to this one and those beside it. An
    attempt without an answer earns 0. The first one, if alone, has nobody to disagree with, and earns 1.

    Args:
        response: with its answer, as for `verify`.
        history: the attempts of the rounds before.
        siblings: the other attempts of its round.
    """
    answer = canonical_answer(response)
    others = (canonical_answer(each["response"]) for each in (*history, *siblings) if each["response"])
    counts = Counter(each for each in (*others, answer) if each)
    most = max(counts.values(), default=0)
    return 1 / list(counts.values()).count(most) if answer and counts[answer] == most else 0.0


majority = replace(bind_evaluator(agreement), name="majority", rewarded_by="self-judged")
"""`agreement` as an evaluator. Nobody but the model says what is right, so its rewards are told as self-judged."""


class _InWorker:
    """The comparison of two formulas, as it is copied to a worker, which alone imports what it needs."""

    def __call__(self, answer: str, task_data: Mapping[str, Any]) -> Reward:
        """What the worker does.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("formulas are compared in a worker")

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return load, ("icrl_graph.tasks.mathematics.equality:equal",)


@cache
def _workers() -> BoundEvaluator:
    if find_spec("math_verify") is None:
        raise _missing()
    return isolated(_InWorker(), timeout=TIMEOUT, cpu=CPU_SECONDS, memory=MEMORY)


def _missing() -> Exception:
    return missing_extra("math-verify, which compares formulas,", "math")
