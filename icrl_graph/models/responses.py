"""Replies of models: responses, structured answers, and the message of a call that failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from langchain_core.exceptions import (
    ModelAuthenticationError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    OutputParserException,
)
from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import BaseModel

from icrl_graph.errors import ModelError
from icrl_graph.execution.retry import describe
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


def read_response(raw: Any) -> dict[str, Any]:
    """A policy's reply as fields of an episode: `response`, the `answer` of a structured one, or an `error`.

    An empty answer, a refusal and a filtered answer are replies like others: paid for, and saved.

    Raises:
        ValueError: it is neither text nor a message.
    """
    reply = cleaned(_read(raw))
    return {**reply, "error_kind": "reply"} if "error" in reply else reply


def _read(raw: Any) -> dict[str, Any]:
    if isinstance(raw, Mapping) and "raw" in raw and "parsed" in raw:
        return _read_structured(raw)
    if isinstance(raw, Mapping) and raw.get("messages"):
        (raw,) = convert_to_messages(raw["messages"][-1:])
    if isinstance(raw, BaseMessage):
        text, ending = str(raw.text), _ending(raw)
        cut = _cut(ending)
        if refusal := raw.additional_kwargs.get("refusal") or (ending == "refusal" and (text.strip() or "no words")):
            return {"error": f"the model refused: {refusal}"}
        if ending in _WITHHELD:
            return {"error": "the provider's content filter withheld the answer"}
    elif isinstance(raw, str):
        text, cut = raw, {}
    else:
        raise ValueError(f"a model gives text or a message, got {raw!r:.80}")
    return {"response": text, **cut} if text.strip() else {"error": "the model gave an empty answer", **cut}


_WITHHELD = ("content_filter", "content_filtered", "guardrail_intervened", "safety", "prohibited_content", "blocklist")
"""Why a message ended, where a filter has withheld it: OpenAI and Azure, Bedrock, Google."""
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
"""Where it has reached the limit of its tokens: OpenAI, Ollama; Google, Anthropic, Bedrock; OpenAI's Responses;
Mistral."""


def _ending(message: BaseMessage) -> str:
    """Why a message ended, in its provider's word, in small letters; "" where it does not say."""
    told = message.response_metadata
    names = ("finish_reason", "stop_reason", "stopReason", "done_reason")
    incomplete = (told.get("incomplete_details") or {}).get("reason")
    return str(next((told[name] for name in names if told.get(name)), incomplete) or "").lower()


def _cut(ending: str) -> dict[str, bool]:
    return {"cut": True} if ending in _CUT else {}


def _read_structured(raw: Mapping[str, Any]) -> dict[str, Any]:
    parsed = raw["parsed"]
    answer = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
    text = str(raw["raw"].text) or ("" if answer is None else json.dumps(answer))
    response: dict[str, Any] = {**({"response": text} if text.strip() else {}), **_cut(_ending(raw["raw"]))}
    if answer is None:
        reason = raw.get("parsing_error") or "the model answered in words of its own"
        return {**response, "answer": None, "error": f"not in the asked-for form: {reason}"}
    return {**response, "answer": answer}


def is_permanent(error: Exception) -> bool:
    """Whether no other attempt can succeed: the key, the model's name or the address is wrong."""
    kinds = (ModelAuthenticationError, ModelPermissionDeniedError, ModelNotFoundError)
    # Not `status_of`: it also reads the status of what an agent's tools fetch, which must not end a run.
    return isinstance(error, kinds) or getattr(error, "status_code", None) in (401, 403, 404)


def is_unreadable_reply(error: Exception) -> bool:
    """Whether a parser, of LangChain or OpenAI's client, raised because of what the model has replied."""
    names = ("LengthFinishReasonError", "ContentFilterFinishReasonError", "OpenAIRefusalError")
    return isinstance(error, OutputParserException) or type(error).__name__ in names
