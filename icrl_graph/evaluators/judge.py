"""Language models as judges: evaluators that ask a model and read its verdict.

Each question is a call of its own: counted, journaled, and asked side by side with the others. What is judged stands in
the question as escaped, delimited data. Where there is no valid verdict, or no reply, the judge is asked once more;
then the judgement is missing, never a number. Of several judgements the rest is averaged; if none is left, the attempt
is unscored.

A judge sees the task, the response and, for a comparison, the reference in the task data, which no policy ever sees. A
run whose judge is the model itself is labelled "self-judged" in its output.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from statistics import mean, pstdev
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, Field

from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow
from icrl_graph.models.policy import Policy, as_policy, name_of_part
from icrl_graph.models.responses import is_permanent, read_response
from icrl_graph.prompts.templates import COMPARE, JUDGE, fill
from icrl_graph.prompts.text import block, text_of
from icrl_graph.state.reward import Reward


class Judgement(NamedTuple):
    """What one judge said."""

    value: float | None
    """Its verdict as a number; None if it gave none."""
    words: str
    """Its reasons, or why there is no verdict."""


class Verdict(BaseModel):
    """A judge's answer, where the model gives structured output."""

    reasons: str = Field(description="Briefly, what speaks for and against the answer.")
    score: float = Field(description="The score, on the scale that was given.")


def llm_judge(
    model: Any,
    rubric: str,
    *,
    scale: tuple[float, float] = (1, 10),
    samples: int = 1,
    explain: bool = False,
) -> Evaluator:
    """A judge that scores an answer by a rubric.

    Models that can are asked for structured output; else, and where that can't be read, a last line "Score: N" counts.

    Args:
        model: who judges, or several of them; whatever `create_icrl` takes as a model. Another one than the policy's is
            fairer.
        rubric: what makes an answer good.
        scale: the lowest and the highest score. A score outside is no verdict.
        samples: how often each judge is asked; the reward is the mean, its spread the standard deviation.
        explain: give the first judge's reasons as feedback, too.

    Raises:
        ValueError: the scale is none, there is no rubric, or samples is below 1.
    """
    lowest, highest = scale
    if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
        raise ValueError(f"scale is the lowest and the highest score, such as (1, 10), got {scale!r}")
    policies = _policies(model, rubric, samples)
    asked = [(policy, _structured(policy)) for policy in policies]

    def read(said: Mapping[str, Any]) -> Judgement:
        answer = said.get("answer")
        if isinstance(answer, Mapping):
            score, words = answer.get("score"), str(answer.get("reasons", ""))
        else:
            words = said.get("response", "")
            score = read_score(words, highest)
        if score is None or not lowest <= score <= highest:
            return Judgement(None, f"no score from {lowest:g} to {highest:g} in: {words[-80:]!r}")
        return Judgement(float(score), words)

    def judge(task: Any, response: str) -> Generator[Any, Any, Reward]:
        question = fill(
            JUDGE,
            rubric=rubric,
            task=text_of(task),
            answer=block("attempt", response),
            lowest=f"{lowest:g}",
            highest=f"{highest:g}",
        )
        judgements = yield [_ask(policy, question, read, form) for policy, form in asked for _ in range(samples)]
        reward = _mean(judgements)
        valid = [judgement.words for judgement in judgements if judgement.value is not None]
        return Reward(**reward, feedback=valid[0]) if explain and valid else reward

    label = f"llm_judge({_names(policies)}, {_digest(rubric, scale, samples, explain)})"
    return _told(judge, policies, len(policies) * samples, label, JUDGE + rubric)


def pairwise_judge(model: Any, rubric: str, *, reference: str = "reference", samples: int = 1) -> Evaluator:
    """A judge that compares an answer with a reference: 1 if the answer is better, 0 if the reference is, 0.5 if equal.

    Each pair is shown in both orders; a judge whose verdict turns with the order counts as 0.5 (position bias).

    Args:
        model: who judges, or several of them.
        rubric: what makes an answer good.
        reference: where the reference stands in the task data; it never reaches a prompt of the policy.
        samples: how often each judge is asked for both orders.

    Raises:
        ValueError: there is no rubric, or samples is below 1.
    """
    policies = _policies(model, rubric, samples)
    read = _reader({"a": 1.0, "b": 0.0, "c": 0.5})

    def both(policy: Policy, questions: Sequence[str]) -> Flow:
        ahead, behind = yield [_ask(policy, question, read) for question in questions]
        if ahead.value is None or behind.value is None:
            return ahead if ahead.value is None else behind
        turned = 1 - behind.value
        return Judgement(ahead.value if ahead.value == turned else 0.5, ahead.words)

    def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        if not isinstance(other := task_data.get(reference), str):
            return Reward(
                value=None, error=f"task_data[{reference!r}] must be the text to compare with, got {other!r:.80}"
            )
        pair = (block("attempt", response), block("attempt", other))
        questions = [
            fill(COMPARE, rubric=rubric, task=text_of(task), first=first, second=second)
            for first, second in (pair, pair[::-1])
        ]
        return _mean((yield [both(policy, questions) for policy in policies for _ in range(samples)]))

    label = f"pairwise_judge({_names(policies)}, {_digest(rubric, reference, samples)})"
    return _told(judge, policies, 2 * len(policies) * samples, label, COMPARE + rubric)


def read_score(text: str, highest: float) -> float | None:
    """The number on the last line "Score: N" of a text, or "Score: N/highest"; None if its last line is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = (
        re.fullmatch(r"\W*score\W*?(-?\d+(?:\.\d+)?)(?: ?/ ?(\d+(?:\.\d+)?))?\W*", lines[-1], re.I) if lines else None
    )
    if found is None or (found[2] is not None and float(found[2]) != highest):
        return None
    return float(found[1])


def _policies(model: Any, rubric: str, samples: int) -> list[Policy]:
    if not (isinstance(rubric, str) and rubric.strip()):
        raise ValueError(f"rubric is a text that says what makes an answer good, got {rubric!r:.80}")
    if not (type(samples) is int and samples >= 1):
        raise ValueError(f"samples must be a whole number, 1 or more, got {samples!r}")
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ValueError("a judge needs a model, got none")
    return [as_policy(given) for given in models]


def _structured(policy: Policy) -> Policy:
    """The same model with structured output, if it can give that."""
    if not isinstance(policy.part, BaseChatModel):
        return policy
    try:
        return policy.structured(Verdict)
    except NotImplementedError:
        return policy


def _ask(policy: Policy, question: str, read: Any, structured: Policy | None = None) -> Flow:
    """Ask, and ask the plain model once more if there is no valid verdict. A call that fails gives none."""
    judgement = Judgement(None, "")
    for asked in (structured or policy, policy):
        try:
            said = yield Call(asked.part, asked.input([{"role": "user", "content": question}]), read_response)
            judgement = read(said.value)
        except (BudgetExceeded, IcrlError):
            raise
        except Exception as error:
            if is_permanent(error):
                raise
            judgement = Judgement(None, f"{type(error).__name__}: {error}")
        if judgement.value is not None:
            break
    return judgement


def _mean(judgements: Sequence[Judgement]) -> Reward:
    values = [judgement.value for judgement in judgements if judgement.value is not None]
    if not values:
        return Reward(value=None, error=f"the judge gave no verdict: {judgements[0].words}")
    reward = Reward(value=mean(values))
    if len(values) > 1:
        reward["spread"] = pstdev(values)
    return reward


def _names(policies: Sequence[Policy]) -> str:
    return ", ".join(name_of_part(policy.part) for policy in policies)


def _digest(*asked: Any) -> str:
    """What tells two judges of one model apart, for runs that are kept."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:8]


def _told(judge: Any, policies: Sequence[Policy], calls: int, label: str, frame: str) -> Evaluator:
    """Tell who judges, by how many calls, and what each of them asks beside the task and the answer."""
    judge.calls, judge.label, judge.judges = calls, label, [policy.part for policy in policies]
    judge.frame = frame
    return judge


# ----------------------------------------------------------------------------------------------------------- game of 24


def _reader(values: Mapping[str, float]) -> Callable[[Mapping[str, Any]], Judgement]:
    """Reads a reply that ends with one of these words."""

    def read(said: Mapping[str, Any]) -> Judgement:
        words = said.get("response", "")
        value = read_verdict(words, values)
        why = f"none of {', '.join(values)} on the last line of: {words[-80:]!r}"
        return Judgement(value, words if value is not None else why)

    return read


def read_verdict(text: str, values: Mapping[str, float]) -> float | None:
    """The value of the verdict that a text ends with; None if its last line is none of the words."""
    lines = [line for line in text.lower().splitlines() if line.strip()]
    word = re.fullmatch(r"[\W_]*(?:\w+ ?: *)?[\W_]*([a-z]+)[\W_]*", lines[-1]) if lines else None
    return values.get(word[1]) if word else None
