"""Language models as judges: evaluators that ask a model and read its verdict.

Each question is a call of its own: counted, journaled, and asked side by side with the others. What is judged stands in
the question as escaped, delimited data. Where there is no valid verdict, or no reply, the judge is asked once more;
then the judgement is missing, never a number. Of several judgements the rest is averaged; if none is left, the attempt
is unscored.

A judge sees the task, the response and, for a comparison, the reference in the task data, which no policy ever sees. A
run whose judge is the model itself says "self-judged" in its output.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from statistics import mean, pstdev
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.evaluators.evaluator import BoundEvaluator, bind_evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow
from icrl_graph.execution.retry import describe
from icrl_graph.models.policy import Policy, as_policy
from icrl_graph.models.responses import is_permanent, read_response
from icrl_graph.prompts.templates import COMPARE, JUDGE, JUDGE_AGAINST, fill
from icrl_graph.prompts.text import block, text_of
from icrl_graph.state.checks import is_number
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.plain import last_line, last_object
from icrl_graph.state.reward import LARGEST, Reward
from icrl_graph.state.unicode import cleaned


class Judgement(NamedTuple):
    """What one judge answered."""

    value: float | None
    """Its verdict as a number; None if it gave none."""
    words: str
    """Its reasons, or why there is no verdict."""


Read = Callable[[Mapping[str, Any]], Judgement]
"""Reads a judge's reply, the fields that `read_response` gives."""


def _no_truth_value(score: Any) -> Any:
    """Raise ValueError for true and false, which pydantic would take for 1 and 0."""
    if isinstance(score, bool):
        raise ValueError("a score is a number")
    return score


_NoTruthValue = BeforeValidator(_no_truth_value)


class Verdict(BaseModel):
    """A judge's answer, where the model gives structured output."""

    reasons: str = Field(description="Briefly, what speaks for and against the answer.")
    score: Annotated[float, _NoTruthValue] = Field(description="The score, on the scale that was given.")


def llm_judge(
    model: Any,
    rubric: str,
    *,
    scale: tuple[float, float] = (1, 10),
    samples: int = 1,
    explain: bool = False,
    base: str | None = None,
) -> BoundEvaluator:
    """A judge that scores an answer by a rubric.

    Models that can are asked for structured output; else, and where that can't be read, a last line "Score: N" counts.

    Args:
        model: the model that judges, or several of them; whatever `create_icrl` takes as a model. Another one than the
            policy's is fairer.
        rubric: what makes an answer good.
        scale: the lowest and the highest score. A score outside is not a verdict.
        samples: how often each judge is asked; the reward is the mean, its spread the standard deviation.
        explain: give the first judge's reasons as feedback, too.
        base: an answer that the score is relative to, shown with every answer: the middle of the scale (5 of 1 to 10)
            is for one that is as good. It never reaches a prompt of the policy.

    Raises:
        ValueError: the scale is not two numbers in order, there is no rubric, the base is empty, or samples is below 1.
    """
    if base is not None and not (isinstance(base, str) and base.strip()):
        raise ValueError(f"base is the text of an answer to compare with, got {base!r:.80}")
    is_pair = isinstance(scale, list | tuple) and len(scale) == 2 and all(map(is_number, scale))
    if not (is_pair and -LARGEST <= scale[0] < scale[1] <= LARGEST):
        raise ValueError(f"scale is the lowest and the highest score, such as (1, 10), got {scale!r:.80}")
    lowest, highest = scale
    policies = policies_of(model, rubric, samples)
    judges = [(policy, _structured(policy)) for policy in policies for _ in range(samples)]

    def read(reply: Mapping[str, Any]) -> Judgement:
        answer = reply.get("answer")
        if isinstance(answer, Mapping):
            score, words = answer.get("score"), str(answer.get("reasons", ""))
        else:
            words = reply.get("response", "")
            score = read_score(words, highest)
        if not is_number(score) or not lowest <= score <= highest:
            return Judgement(None, f"no score from {lowest:g} to {highest:g} in: {words[-80:]!r}")
        return Judgement(float(score), words)

    relative = {} if base is None else {"base": block("attempt", base), "middle": f"{_middle(lowest, highest):g}"}
    frame = JUDGE if base is None else JUDGE_AGAINST

    def judge(task: Any, response: str) -> Generator[Any, Any, Reward]:
        question = fill(
            frame,
            rubric=rubric,
            task=text_of(task),
            answer=block("attempt", response),
            lowest=f"{lowest:g}",
            highest=f"{highest:g}",
            **relative,
        )
        judgements = yield [ask(policy, question, read, structured) for policy, structured in judges]
        reward = mean_of(judgements)
        valid = [judgement.words for judgement in judgements if judgement.value is not None]
        return Reward(**reward, feedback=valid[0]) if explain and valid else reward

    told = (rubric, scale, samples, explain) if base is None else (rubric, scale, samples, explain, base)
    name = f"llm_judge({_names(policies)}, {digest_of(*told)})"
    return bind_judge(judge, policies, calls=len(policies) * samples, name=name, frame=frame + rubric + (base or ""))


def _middle(lowest: float, highest: float) -> float:
    """Of a scale, where an answer is as good as the one to compare with: 5 of 1 to 10, as in arXiv 2506.06303."""
    middle = (lowest + highest) / 2
    return middle // 1 if highest - lowest > 2 else middle


def pairwise_judge(model: Any, rubric: str, *, reference: str = "reference", samples: int = 1) -> BoundEvaluator:
    """A judge that compares an answer with a reference: 1 if the answer is better, 0 if the reference is, 0.5 if equal.

    Each pair is shown in both orders; a judge whose verdict turns with the order counts as 0.5 (position bias). The
    spread is the standard deviation of all its verdicts: 0 where they agree.

    Args:
        model: the model that judges, or several of them.
        rubric: what makes an answer good.
        reference: where the reference stands in the task data; it never reaches a prompt of the policy.
        samples: how often each judge is asked for both orders.

    Raises:
        ValueError: there is no rubric, or samples is below 1.
    """
    policies = policies_of(model, rubric, samples)
    read = verdict_reader({"a": 1.0, "b": 0.0, "c": 0.5})

    def both(policy: Policy, questions: Sequence[str]) -> Flow:
        first, second = yield [ask(policy, question, read) for question in questions]
        if first.value is None or second.value is None:
            return [first if first.value is None else second]
        return [first, second._replace(value=1 - second.value)]

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
        verdicts = yield [both(policy, questions) for policy in policies for _ in range(samples)]
        reward = mean_of([_agreed(pair) for pair in verdicts])
        every = [one.value for pair in verdicts for one in pair if one.value is not None]
        return {**reward, "spread": pstdev(every)} if every else reward

    name = f"pairwise_judge({_names(policies)}, {digest_of(rubric, reference, samples)})"
    return bind_judge(judge, policies, calls=2 * len(policies) * samples, name=name, frame=COMPARE + rubric)


def _agreed(verdicts: Sequence[Judgement]) -> Judgement:
    """The verdict in both orders, 0.5 if they differ; where one is missing, that it is."""
    first, last = verdicts[0], verdicts[-1]
    return first if first.value == last.value else Judgement(0.5, first.words)


class _Scored(BaseModel):
    """A verdict in JSON, with or without its reasons."""

    score: Annotated[float | str, _NoTruthValue]


_NUMBER = r"([-+]?[0-9]+(?:\.[0-9]+|,[0-9]{1,2})?)"
_OUT_OF = r"(?: ?(?:/|(?:out )?of|von|sur|de|su|из) ?([0-9]+(?:\.[0-9]+)?))"
_SCORE = re.compile(
    r"(?:score|rating|grade|note|bewertung|wertung|punktzahl|puntuación|calificación|nota|pontuação|punteggio|voto|оценка"
    r"|评分|得分|分数|スコア|評価|点数|점수|평점)",
    re.I,
)
_SCORED = re.compile(
    rf"{_SCORE.pattern}(?: ?[(\[][^()\[\]]{{0,20}}?([0-9]+)[)\]])?(?:\W+(?:is|of|ist|est|es)\b|[是为為は])?"
    rf"\W*?{_NUMBER}[^\w/]{{0,4}}{_OUT_OF}?(?: ?(?:points?|punkten?|puntos|分|点|점))?\W*",
    re.I,
)
_SCORED_ALONE = re.compile(rf"\W*?{_NUMBER}{_OUT_OF}?\W*", re.I)
_BEFORE_SCORE = re.compile(
    r"(?:(?:my|the|so|thus|therefore|final|overall|total|meine|ma|mi|la)[ ,]+|(?:最终|综合|总体|最終) ?)*"
    r"|i(?: would|'d| will|'ll)? (?:give|award|assign) (?:it|this|(?:this|the) \w+) an? (?:final |overall )?",
    re.I,
)


def read_score(text: str, highest: float) -> float | None:
    """The score that a text ends with; None if it ends otherwise, or with one on another scale.

    That is its last line, or the last sentence of it: "Score: N", "Overall rating: N/10", "Note : 7,5 sur 10", "I would
    give it a score of N out of 10"; or an object of JSON with a "score", also in a fence. "N/10" will do on that line,
    and a number where there is nothing else.

    Args:
        text: what a judge has answered.
        highest: the end of the scale, the only number that a score may be said to be out of.
    """
    held = last_object(text)
    if held and (held.endswith("}") or "}" not in held):
        return _score_in_json(held, highest)
    return _score_in_words(last_line(text), highest, is_all="\n" not in text.strip())


def _score_in_json(held: str, highest: float) -> float | None:
    """The score of an object; None if it is broken: what is left of a number that was cut off is another."""
    try:
        score = _Scored.model_validate_json(held).score
    except ValidationError:
        return None
    return score if isinstance(score, float) else _score_in_words(score, highest, is_all=True)


def _score_in_words(line: str, highest: float, is_all: bool) -> float | None:
    starts = [match.start() for match in _SCORE.finditer(line)]
    if starts:
        scored = _SCORED.fullmatch(line[starts[-1] :]) if _may_lead(line[: starts[-1]]) else None
        scale, number, out_of = scored.groups() if scored else (None, None, None)
    else:
        scored, scale = _SCORED_ALONE.fullmatch(line), None
        number, out_of = scored.groups() if scored else (None, None)
        number = number if is_all or out_of else None
    is_other = any(end is not None and float(end) != highest for end in (scale, out_of))
    return None if number is None or is_other or ("%" in line and highest != 100) else float(number.replace(",", "."))


def _may_lead(before: str) -> bool:
    """Whether what stands before a score on its line is the beginning of a line or a sentence."""
    begun = _begun(before).strip(" *_#>(`-")
    return not _WORD.search(before) or not begun or bool(_BEFORE_SCORE.fullmatch(f"{begun} "))


def _begun(before: str) -> str:
    """The sentence that a text leaves open; all of it within a quotation, whose sentences are somebody else's."""
    return before if before.count('"') % 2 else re.split("[.!?;] ", before)[-1]


_WORD = re.compile(r"[^\W_]+")


def policies_of(model: Any, rubric: str, samples: int) -> list[Policy]:
    """The models of a judge, its arguments checked."""
    if not (isinstance(rubric, str) and rubric.strip()):
        raise ValueError(f"rubric is a text that says what makes an answer good, got {rubric!r:.80}")
    if not (type(samples) is int and samples >= 1):
        raise ValueError(f"samples must be a whole number, 1 or more, got {samples!r:.80}")
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ValueError("a judge needs a model, got none")
    return [as_policy(each) for each in models]


def _structured(policy: Policy) -> Policy:
    """The same model with structured output, if it supports it."""
    if not isinstance(policy.part, BaseChatModel):
        return policy
    try:
        return policy.structured(Verdict, describe=False)
    except NotImplementedError:
        return policy


def ask(
    policy: Policy,
    question: str,
    read: Read,
    structured: Policy | None = None,
    *,
    read_reply: Callable[[Any], Mapping[str, Any]] = read_response,
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Flow:
    """Ask a judge; gives its `Judgement`. Without a valid verdict the plain model is asked once more.

    Args:
        policy: the model that judges.
        question: the whole prompt.
        read: reads the reply.
        structured: the same model with structured output, which is asked first; None for the plain one twice.
        read_reply: makes of the raw reply what `read` gets, and what is saved.
        kwargs: further arguments of the call.
    """
    judgement, messages = Judgement(None, ""), [{"role": "user", "content": cleaned(question)}]
    for judge in (structured or policy, policy):
        try:
            reply = yield Call(judge.part, judge.input(messages), read_reply, kwargs)
            judgement = _read_whole(reply.value, read)
        except BudgetExceeded as over:  # one judgement is missing; what others have answered counts
            return Judgement(None, judgement.words or str(over))
        except IcrlError:
            raise
        except Exception as error:
            if is_permanent(error):
                raise
            judgement = Judgement(None, describe(error))
        if judgement.value is not None:
            break
    return judgement


def _read_whole(reply: Mapping[str, Any], read: Read) -> Judgement:
    """What a judge says, if it could say all of it."""
    if "response" not in reply:
        return Judgement(None, reply["error"])
    return Judgement(None, "the judgement was cut off") if reply.get("cut") else read(reply)


def mean_of(judgements: Sequence[Judgement]) -> Reward:
    """The reward that several judgements come to; unscored, with the reason, if there is no verdict among them."""
    values = [judgement.value for judgement in judgements if judgement.value is not None]
    if not values:
        return Reward(value=None, error=f"the judge gave no verdict: {judgements[0].words}")
    reward = Reward(value=mean(values))
    if len(values) > 1:
        reward["spread"] = pstdev(values)
    return reward


def _names(policies: Sequence[Policy]) -> str:
    return ", ".join(name_of_part(policy.part) for policy in policies)


def digest_of(*arguments: Any) -> str:
    """What distinguishes two judges of one model, in saved runs."""
    return hashlib.sha256(repr(arguments).encode()).hexdigest()[:8]


def bind_judge(
    judge: Callable[..., Flow], policies: Sequence[Policy], *, calls: int, name: str, frame: str
) -> BoundEvaluator:
    """Bind the flow of a judge, with the models that it asks; the rest as in `BoundEvaluator`."""
    models = tuple(policy.part for policy in policies)
    return replace(bind_evaluator(judge), name=name, calls=calls, models=models, frame=frame)


def verdict_reader(values: Mapping[str, float]) -> Read:
    """A reader of replies that end with one of these words."""

    def read(reply: Mapping[str, Any]) -> Judgement:
        words = reply.get("response", "")
        value = read_verdict(words, values)
        why = f"none of {', '.join(values)} on the last line of: {words[-80:]!r}"
        return Judgement(value, words if value is not None else why)

    return read


_LABEL = re.compile(r"[\W_]*+[^\W_]++[\"'*_` ]{0,4}:[\W_]*+")
_BEFORE_VERDICT = re.compile(
    r"[ *_#>(`\[-]*+(?:(?:(?:(?:my|the|so|thus|therefore|final|overall)[ ,]+)*(?:(?:better|best|stronger) )?"
    r"(?:answer|verdict|judge?ment|conclusion|decision|choice|winner|option|response|one)(?: is)?"
    r"|(?:最终)?(?:判断|结论|答案|评价)是?)[\W_]*+)?"
)
_IS_BETTER = re.compile(r" is (?:the )?(?:better|best|stronger|winner)(?: (?:answer|one|option|response))?[\W_]*+$")


def read_verdict(text: str, values: Mapping[str, float]) -> float | None:
    """The value of the verdict that a text ends with; None if it ends otherwise.

    That is one of the words as the last line or its last sentence, also behind "Verdict:" and the like, or in front of
    "is better".
    """
    line = _IS_BETTER.sub("", last_line(text).lower())
    words = list(_WORD.finditer(line))
    if not words:
        return None
    before = line[: words[-1].start()]
    is_verdict = len(words) == 1 or _LABEL.fullmatch(before) or _BEFORE_VERDICT.fullmatch(_begun(before))
    return values.get(words[-1][0]) if is_verdict else None
