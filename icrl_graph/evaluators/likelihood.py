"""Judges of one word, whose reward is read off the probabilities that the model gives to the words it may say.

A judge that says YES with probability .6 and one that says it with .99 give the same verdict, and other rewards:
p(YES), as in arXiv 2506.06303, or the expected score over the probabilities of the scores (arXiv 2607.05391). So ties
are rare, and one call tells what many samples would.

The model must give the log-probabilities of its tokens, as servers of OpenAI's protocol do (`logprobs`,
`top_logprobs`). Models that reason before they answer mostly don't.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from icrl_graph.errors import ModelError
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.judge import Judgement, ask, bind_judge, digest_of, mean_of, policies_of, read_verdict
from icrl_graph.models.responses import read_response
from icrl_graph.models.sampling import check_sampling
from icrl_graph.prompts.templates import JUDGE_IN_A_WORD, REFERENCE, fill
from icrl_graph.prompts.text import block, text_of
from icrl_graph.state.checks import is_number
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.reward import LARGEST, Reward

YES_OR_NO: Mapping[str, float] = {"YES": 1.0, "NO": 0.0}
"""p(YES)."""
DIGITS: Mapping[str, float] = {str(score): float(score) for score in range(10)}
"""A score from 0 to 9: a single token in all models."""
ASKED: Mapping[str, Any] = {"logprobs": True, "top_logprobs": 20}
"""Of each call; 20 alternatives are the most that OpenAI gives."""


def likelihood_judge(
    model: Any, rubric: str, *, values: Mapping[str, float] = YES_OR_NO, reference: str | None = None
) -> BoundEvaluator:
    """A judge that answers with one word: the reward is the mean of what the words are worth, by their probabilities.

    Args:
        model: the model that judges, or several of them, whose rewards are averaged; chat models that give
            log-probabilities.
        rubric: what makes an answer good, and which word says so.
        values: the words, each a single token, and what they are worth: `YES_OR_NO`, `DIGITS`, or others.
        reference: where a right answer stands in the task data, which the judge then sees, and no policy; None for
            none.

    Raises:
        ValueError: there is no rubric, the values are not two or more words with numbers, or a model is no chat model
            or takes no `logprobs`.
    """
    policies = policies_of(model, rubric, 1)
    worth = _checked(values)
    for policy in policies:
        if policy.kind != "chat":
            raise ValueError(f"{name_of_part(policy.part)} is no chat model, and gives no log-probabilities")
        check_sampling(policy.part, ASKED)

    def read_reply(raw: Any) -> dict[str, Any]:
        reply = read_response(raw)
        return {**reply, "expected": expected_value(_tokens(raw), worth)} if "response" in reply else reply

    def read(reply: Mapping[str, Any]) -> Judgement:
        words = reply["response"]
        if reply["expected"] is None or read_verdict(words, worth) is None:
            return Judgement(None, f"none of {', '.join(values)}, as a word of its own, in: {words[-80:]!r}")
        return Judgement(reply["expected"], words)

    def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        known = task_data.get(reference) if reference else None
        if reference and known is None:
            return Reward(value=None, error=f"task_data[{reference!r}] must be a right answer, for the judge to see")
        shown = known if isinstance(known, list) else [known]
        question = fill(
            JUDGE_IN_A_WORD,
            rubric=rubric,
            task=text_of(task),
            reference=fill(REFERENCE, reference="\nor\n".join(map(str, shown))) if reference else "",
            answer=block("attempt", response),
            choices=", ".join(values),
        )
        return mean_of((yield [ask(p, question, read, read_reply=read_reply, kwargs=ASKED) for p in policies]))

    names = ", ".join(name_of_part(policy.part) for policy in policies)
    name = f"likelihood_judge({names}, {digest_of(rubric, worth, reference)})"
    return bind_judge(judge, policies, calls=len(policies), name=name, frame=JUDGE_IN_A_WORD + rubric)


def expected_value(tokens: Sequence[Mapping[str, Any]], worth: Mapping[str, float]) -> float | None:
    """The mean of what the words are worth, by the probabilities that they have in the place of the last of them.

    Args:
        tokens: of a reply, each with its `token`, its `logprob` and its alternatives, `top_logprobs`.
        worth: of each word, in small letters.

    Returns:
        The mean over the words that are among the alternatives; None if no token is one of the words.
    """
    for token in reversed(tokens):
        if _word(token["token"]) in worth:
            told = {each["token"]: each["logprob"] for each in (token, *(token.get("top_logprobs") or ()))}
            weights = [(math.exp(p), worth[word]) for text, p in told.items() if (word := _word(text)) in worth]
            total = sum(weight for weight, _ in weights)
            return sum(weight * value for weight, value in weights) / total if total else None
    return None


def _word(token: str) -> str:
    return token.strip(" \t\n\"'*_`.:ĠĊ▁").lower()  # with the signs for a blank or a new line of some servers


def _tokens(raw: Any) -> Sequence[Mapping[str, Any]]:
    """The tokens of a reply, with their log-probabilities.

    Raises:
        ModelError: it has none.
    """
    told = (getattr(raw, "response_metadata", {}).get("logprobs") or {}).get("content")
    if not told:
        raise ModelError(
            "the judge's model gives no log-probabilities of its tokens: take another one, or a judge that gives its "
            "score in words (llm_judge)"
        )
    return told  # type: ignore[no-any-return]


def _checked(values: Mapping[str, float]) -> dict[str, float]:
    """What each word is worth, in small letters.

    Raises:
        ValueError: they are not two or more words, or a number is none.
    """
    is_mapping = isinstance(values, Mapping) and all(
        isinstance(word, str) and word.isalnum() and is_number(value) and abs(value) <= LARGEST
        for word, value in values.items()
    )
    worth = {word.lower(): float(value) for word, value in values.items()} if is_mapping else {}
    if len(worth) < 2 or len(worth) < len(values):
        raise ValueError(f"values are two or more words, each with what it is worth, got {values!r:.80}")
    return worth
