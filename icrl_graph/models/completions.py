"""What of a body, or of an event of a stream, is a chat completion: only that is handed on to the clients.

They take what they read for what it should be, and break on all else with errors that name no server. A message's role
is mended: some servers leave it out or send null (langchain-ai/langchain/pull/27398), and whoever answers a prompt is
its assistant. Usage that can't be read is taken out, as if it had not been told. What else is mended:

* a choice without a message, or a piece of one without a `delta`, says nothing: Gemini's, where all tokens went into
  reasoning (agentgateway/agentgateway/issues/1464), Azure's, of its asynchronous filter (langchain-ai/langchain/issues/
  18977, BerriAI/litellm/issues/3811)
* the arguments of a tool's call as an object (ggml-org/llama.cpp/issues/20198, huggingface/text-generation-inference/
  issues/2461) are written as JSON
* why an answer ended counts once: LangChain joins the reasons, and the model's names beside them, to "stopstop"
  (langchain-ai/langchainjs/issues/11054, OpenRouter); `""` (ollama/ollama/issues/4357, sgl-project/sglang/issues/3912)
  and `"null"` (PowerShell/AIShell/issues/350, KoboldCpp) are none
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from icrl_graph.execution.calls import is_broken_off

_Fields = dict[str, Any]
_Tokens = Annotated[float, Field(strict=True, multiple_of=1)] | None


class _Function(BaseModel):
    name: str | None = None
    arguments: str | _Fields | None = None


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
    message: _Said | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_or_ends(cls, choice: Any) -> Any:
        is_silent = isinstance(choice, Mapping) and choice.get("message") is None
        if is_silent and (not ending(choice) or choice.keys() & {"text", "delta"}):
            raise ValueError("neither a message nor the end of one")
        return choice


class _Body(BaseModel):
    model: str | None = None
    service_tier: str | None = None


class _Completion(_Body):
    choices: list[_Choice] = Field(min_length=1)


class _Piece(BaseModel):
    delta: _Said | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_answer(cls, choice: Any) -> Any:
        if isinstance(choice, Mapping) and "delta" not in choice and choice.keys() & {"text", "message"}:
            raise ValueError("a whole answer, or one of another protocol")
        return choice


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


def ending(choice: Mapping[str, Any]) -> str | None:
    """Why an answer ended, so far as is told; "error" where the provider behind a router broke it off."""
    told, native = choice.get("finish_reason"), choice.get("native_finish_reason")
    if is_broken_off(native):  # OpenRouter, beside a null or a "stop": OleksandrChekhovskyi/hax/pull/15
        return "error"
    return None if told in ("", "null") else told


def mended(completion: Mapping[str, Any]) -> Mapping[str, Any]:
    """A whole answer as clients can read it; the same object where they can."""
    told = {**completion, "usage": readable(completion.get("usage"))}
    told["choices"] = [
        {**choice, "message": {**_called(choice.get("message") or {}), "role": "assistant"}}
        for choice in completion["choices"]
    ]
    return told if told != {"usage": None, **completion} else completion


def mended_chunk(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """A piece of an answer as clients can read it, but for the reason why the answer ended (`closing`)."""
    if not chunk.get("choices"):
        return chunk
    choices = [
        {**choice, "delta": _called(choice.get("delta") or {}), "finish_reason": None} for choice in chunk["choices"]
    ]
    return {**chunk, "choices": choices}


def closing(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """A piece that says why an answer ended, and nothing else, of one that says so among other things."""
    ended = [
        {"index": choice.get("index", 0), "delta": {}, "finish_reason": ending(choice)} for choice in chunk["choices"]
    ]
    return {**chunk, "choices": ended, "usage": None}


def _called(said: _Fields) -> _Fields:
    """A message, or a piece of one, whose calls of tools have their arguments as texts."""
    if not any(isinstance(call["function"].get("arguments"), dict) for call in said.get("tool_calls") or ()):
        return said
    calls = [{**call, "function": _with_text(call["function"])} for call in said["tool_calls"]]
    return {**said, "tool_calls": calls}


def _with_text(function: _Fields) -> _Fields:
    arguments = function.get("arguments")
    return {**function, "arguments": json.dumps(arguments)} if isinstance(arguments, dict) else function


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
