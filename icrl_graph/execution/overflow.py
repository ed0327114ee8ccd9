"""Whether a prompt did not fit into the model's context, by what a provider says of it.

There is no common code for it: each server has fields and words of its own. They are recognised by what they mean: the
prompt, its tokens or its length on one side, a limit of the context on the other, and between them that it is exceeded.
`tests/test_overflow.py` has the words of the servers that are known, and of errors that only look alike.
"""

from __future__ import annotations

import re

from langchain_core.exceptions import ContextOverflowError

from icrl_graph.execution.status import status_of, words_of

_FIELDS = r"context_?(?:length|window|size)_?exceeded|exceed_context_size|\bn_ctx\b|request_too_large"
"""In codes, types and names of fields: OpenAI and all that follow it, LiteLLM, llama.cpp, Anthropic."""

_CONTEXT = r"context[ _-]?(?:length|window|size|limit)"
_PROMPT = r"\b(?:prompt|inputs?|messages?|conversation)`?"
_EXCEEDS = r"(?:exceed|longer than|larger than|greater than|more than)"
_WORDS = "|".join(
    (
        rf"(?:{_EXCEEDS}|too (?:long|large|big)|\bfit\b)[^.;]{{0,60}}{_CONTEXT}",
        rf"{_CONTEXT} (?:has been |was |is )?exceed",
        rf"{_CONTEXT} (?:is|of) (?:only )?\d",
        r"maximum context length",
        rf"{_PROMPT}(?: \([^)]*\))?(?: (?:text|tokens?|length|size|is|are|was|were))* too (?:long|large|big)\b",
        rf"{_PROMPT} (?:\([^)]*\) )?(?:is |are )?{_EXCEEDS}\w* (?:the |its )?(?:max|model|limit|allowed|context)",
        rf"{_PROMPT} tokens?\b[^.;]{{0,60}}(?:{_EXCEEDS}|must be <|but model only)",
        rf"tokens in the {_PROMPT}[^.;]{{0,40}}{_EXCEEDS}",
        rf"{_PROMPT} (?:length|size)\b[^.;]{{0,40}}{_EXCEEDS}",
        r"reduce (?:the |your )?(?:(?:length|size|number) of (?:the |your |tokens in the )?(?:input )?)?"
        r"(?:messages?|prompt|inputs?|either|text)\b",
        r"shorter (?:prompt|input)\b",
        r"`inputs` must have less than \d+ tokens",
        r"range of input length should be",
        r"maximum prompt length is",
        r"exceeded model token limit",
        r"request exceeds the maximum size",
        r"too many (?:input |prompt )tokens\b|too many tokens(?::| in\b|$)",
        r"max_tokens must be at least 1, got -",
        r"超长|超过.*上下文",
    )
)
_OF_A_RATE = (
    r"per[ _-](?:second|min|hour|day|month)|rate[ _-]?limit|quota|throttl|please wait"
    r"|(?:try again|retry) (?:in|later|after)|\b[tr]p[md]\b|billing|credits?\b|monthly|daily"
)
"""Tokens are counted in limits of rates and of money, too."""


def is_overflow(error: Exception) -> bool:
    """Whether the prompt did not fit into the model's context."""
    if isinstance(error, ContextOverflowError):
        return True
    told = words_of(error)
    if _says(_FIELDS, told):
        return True
    status = status_of(error)
    return (status is None or status >= 500 or is_refusal(error)) and speaks_of_overflow(told)


def speaks_of_overflow(told: str) -> bool:
    """Whether words say that a prompt did not fit into the context."""
    return not _says(_OF_A_RATE, told) and _says(_WORDS, told)


def is_refusal(error: Exception) -> bool:
    """Whether the request was refused with a status that also stands for a prompt that is too long."""
    return status_of(error) in (400, 413, 422)


def _says(meaning: str, told: str) -> bool:
    return re.search(meaning, told, re.IGNORECASE) is not None  # compiled when it is first needed: it takes a while
