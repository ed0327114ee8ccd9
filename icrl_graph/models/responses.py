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
from icrl_graph.execution.overflow import is_overflow as is_overflow  # as `is_permanent`, for whoever reads errors
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
        text, cut = str(raw.text), _cut(raw)
        if refusal := raw.additional_kwargs.get("refusal"):
            return {"error": f"the model refused: {refusal}"}
        if raw.response_metadata.get("finish_reason") == "content_filter":
            return {"error": "the provider's content filter withheld the answer"}
    elif isinstance(raw, str):
        text, cut = raw, {}
    else:
        raise ValueError(f"a model gives text or a message, got {raw!r:.80}")
    return {"response": text, **cut} if text.strip() else {"error": "the model gave an empty answer", **cut}


def _cut(message: BaseMessage) -> dict[str, bool]:
    """Whether a message ended at the limit of its tokens, by the words of OpenAI, Google and Anthropic."""
    reasons = (message.response_metadata.get(name) for name in ("finish_reason", "stop_reason"))
    return {"cut": True} if any(str(reason).lower() in ("length", "max_tokens") for reason in reasons) else {}


def _read_structured(raw: Mapping[str, Any]) -> dict[str, Any]:
    parsed = raw["parsed"]
    answer = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
    text = str(raw["raw"].text) or ("" if answer is None else json.dumps(answer))
    response: dict[str, Any] = {**({"response": text} if text.strip() else {}), **_cut(raw["raw"])}
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
