"""What of a body, or of an event of a stream, is a chat completion: only that is handed on to the clients.

They take what they read for what it should be, and break on all else with errors that name no server. A message's role
is mended: some servers leave it out or send null (langchain-ai/langchain/pull/27398), and whoever answers a prompt is
its assistant. Usage that can't be read is taken out, as if it had not been told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

_Fields = dict[str, Any]
_Tokens = Annotated[float, Field(strict=True, multiple_of=1)] | None


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    id: str | None = None
    index: int | None = None
    function: _Function


class _Said(BaseModel):
    """A message, or a piece of one."""

    content: str | list[str | _Fields] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Fields | None = None
    refusal: str | None = None
    id: str | None = None
    name: str | None = None


class _Choice(BaseModel):
    message: _Said


class _Body(BaseModel):
    model: str | None = None
    service_tier: str | None = None


class _Completion(_Body):
    choices: list[_Choice] = Field(min_length=1)


class _Piece(BaseModel):
    delta: _Said | None


class _Chunk(_Body):
    choices: list[_Piece] | None = None


class _Usage(BaseModel):
    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None
    total_tokens: _Tokens = None
    prompt_tokens_details: dict[str, _Tokens] | None = None
    completion_tokens_details: dict[str, _Tokens] | None = None


_USAGE: TypeAdapter[Any] = TypeAdapter(_Usage | None)


def is_completion(told: Any) -> bool:
    """Whether a body is a whole answer."""
    return _has_form(_Completion, told)


def is_chunk(told: Any) -> bool:
    """Whether an event of a stream is a piece of an answer."""
    return _has_form(_Chunk, told)


def mended(completion: Mapping[str, Any]) -> Mapping[str, Any]:
    """A whole answer as clients can read it; the same object where they can."""
    choices, usage = completion["choices"], completion.get("usage")
    if all(choice["message"].get("role") == "assistant" for choice in choices) and readable(usage) is usage:
        return completion
    choices = [{**each, "message": {**each["message"], "role": "assistant"}} for each in choices]
    return {**completion, "choices": choices, "usage": readable(usage)}


def readable(usage: Any) -> Any:
    """What a server says that it used; None if that can't be read."""
    try:
        _USAGE.validate_python(usage)
    except ValidationError:
        return None
    return usage


def _has_form(form: type[BaseModel], told: Any) -> bool:
    try:
        form.model_validate(told)
    except ValidationError:
        return False
    return True
