"""Replies of models: responses, structured answers, and the message of a call that failed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from langchain_core.exceptions import (
    ModelAuthenticationError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    OutputParserException,
)
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from pydantic import BaseModel, TypeAdapter

from icrl_graph.errors import ModelError
from icrl_graph.execution.retry import describe
from icrl_graph.execution.status import status_of, words_of
from icrl_graph.models.reasoning import split_message
from icrl_graph.state.episode import plain
from icrl_graph.state.unicode import cleaned

logger = logging.getLogger(__name__)


def failure(error: Exception, round: int, candidate: int) -> str:
    """The message of a call that failed, which is also logged.

    Raises:
        ModelError: no other attempt can succeed either.
    """
    message = describe(error)
    if is_permanent(error):
        raise ModelError(message) from error
    logger.warning("round %d, candidate %d: %s", round + 1, candidate + 1, message)  # people count from 1
    return message


def failed_call(error: Exception, round: int, candidate: int) -> dict[str, Any]:
    """A call that raised as fields of an episode: a reply that could not be read was paid for, and is the model's.

    Raises:
        ModelError: no other attempt can succeed either.
    """
    kind = "reply" if is_unreadable_reply(error) else "call"
    return {"error": failure(error, round, candidate), "error_kind": kind}


def read_response(raw: Any, tags: str | None = None) -> dict[str, Any]:
    """A policy's reply as fields of an episode: `response`, the `answer` of a structured one, or an `error`.

    Its `reasoning` is a field of its own. An object, pydantic's or a dictionary, as LangChain's structured output gives
    it, is a structured answer, and so is the `structured_response` of an agent. An empty answer, a refusal and a
    filtered answer are replies like others: paid for, and saved.

    Args:
        raw: the reply.
        tags: how reasoning is marked (`icrl_graph.models.reasoning.split`).

    Raises:
        ValueError: it is neither text, nor a message, nor an object of JSON values.
    """
    reply = cleaned(_read(raw, tags))
    return {**reply, "error_kind": "reply"} if "error" in reply else reply


def _read(raw: Any, tags: str | None) -> dict[str, Any]:
    if isinstance(raw, Mapping) and "raw" in raw and "parsed" in raw:
        return _read_structured(raw, tags)
    if isinstance(raw, Mapping) and raw.get("messages"):
        if (form := raw.get("structured_response")) is not None:  # of LangChain's agents
            return _read_object(form)
        (raw,) = convert_to_messages(raw["messages"][-1:])
    if raw is None:  # as LangChain's structured output gives it where the model has used no tool
        raw = ""
    if isinstance(raw, str):
        raw = AIMessage(raw)
    if isinstance(raw, BaseMessage):
        return _read_message(raw, tags)
    if isinstance(raw, BaseModel | Mapping) and "messages" not in raw:
        return _read_object(raw)
    raise ValueError(f"a model gives text or a message, or an object of JSON values, got {raw!r:.80}")


def _read_object(given: Any) -> dict[str, Any]:
    values = given if isinstance(given, Mapping) else TypeAdapter(type(given)).dump_python(given, mode="json")
    answer = plain(values, "the answer")
    return {"response": json.dumps(answer, ensure_ascii=False), "answer": answer}


def _read_message(message: BaseMessage, tags: str | None) -> dict[str, Any]:
    reasoning, answer, is_open = split_message(message, tags)
    ending = _ending(message)
    fields: dict[str, Any] = {
        **({"reasoning": reasoning} if reasoning else {}),
        **({"finish_reason": ending} if ending else {}),
        **({"cut": True} if ending in _CUT else {}),
    }
    refusal = message.additional_kwargs.get("refusal") or (ending == "refusal" and (answer.strip() or "no words"))
    if refusal:
        return {"error": f"the model refused: {refusal}", **fields}
    if ending in _WITHHELD:
        return {"error": "the provider's content filter withheld the answer", **fields}
    if answer.strip():
        return {"response": answer, **fields}
    return {"error": _why_empty(message, fields, is_open), **fields}


def _why_empty(message: BaseMessage, fields: Mapping[str, Any], is_open: bool) -> str:
    """Why a reply has no answer."""
    usage: Mapping[str, Any] = getattr(message, "usage_metadata", None) or {}
    if "cut" in fields:
        spent = f"{usage['output_tokens']} tokens" if usage.get("output_tokens") else "tokens"
        thought = "reasoning" in fields or (usage.get("output_token_details") or {}).get("reasoning")
        why = f"all of its {spent} went into reasoning" if thought else f"it was cut off, and its {spent} hold no text"
        return f"no answer: {why}; allow it more (max_response_tokens){', or less reasoning' if thought else ''}"
    if is_open:
        return "no answer: the model's reasoning does not end"
    if calls := getattr(message, "tool_calls", None):  # diegosouzapw/OmniRoute/issues/12696
        return f"no answer: the model called a tool instead ({', '.join(call['name'] for call in calls):.80})"
    return "no answer: the model only reasoned" if "reasoning" in fields else "the model gave an empty answer"


_WITHHELD = (
    *("content_filter", "content_filtered", "guardrail_intervened"),
    *("safety", "prohibited_content", "blocklist", "recitation", "spii", "sensitive"),
)
"""Why a message ended, where a filter has withheld it: OpenAI and Azure, Bedrock; Google, Zhipu
(langgenius/dify/issues/7559)."""
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded")
"""Where it has reached the limit of its tokens: OpenAI, Ollama; Google, Anthropic, Bedrock; OpenAI's Responses;
Mistral; Anthropic, Zhipu (mozilla-ai/any-llm/pull/1204)."""


def _ending(message: BaseMessage) -> str:
    """Why a message ended, in its provider's word, in small letters; "" where it does not say."""
    told = message.response_metadata
    names = ("finish_reason", "stop_reason", "stopReason", "done_reason")
    incomplete = (told.get("incomplete_details") or {}).get("reason")
    return str(next((told[name] for name in names if told.get(name)), incomplete) or "").lower()


def _read_structured(raw: Mapping[str, Any], tags: str | None) -> dict[str, Any]:
    parsed = raw["parsed"]
    answer = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
    reply = _read_message(raw["raw"], tags)
    if answer is not None:
        reply.pop("error", None)  # some have it in a tool call, and no words
        return {"response": json.dumps(answer), **reply, "answer": answer}
    reason = raw.get("parsing_error") or "the model answered in words of its own"
    if "cut" in reply:
        reason = "it was cut off; allow it more tokens (max_response_tokens)"
    return {"error": f"not in the asked-for form: {reason}", **reply, "answer": None}


def is_permanent(error: Exception) -> bool:
    """Whether no other attempt can succeed: the key, the model's name or the address is wrong.

    A prompt that OpenRouter's moderation has flagged is refused by a 403, too, and the next one may not be.
    """
    if status_of(error) == 403 and re.search("input was flagged|flagged_input|moderation", words_of(error)):
        return False
    kinds = (ModelAuthenticationError, ModelPermissionDeniedError, ModelNotFoundError)
    # Not `status_of`: it also reads the status of what an agent's tools fetch, which must not end a run.
    return isinstance(error, kinds) or getattr(error, "status_code", None) in (401, 403, 404)


def is_unreadable_reply(error: Exception) -> bool:
    """Whether a parser, of LangChain or OpenAI's client, raised because of what the model has replied."""
    names = ("LengthFinishReasonError", "ContentFilterFinishReasonError", "OpenAIRefusalError")
    return isinstance(error, OutputParserException) or type(error).__name__ in names
