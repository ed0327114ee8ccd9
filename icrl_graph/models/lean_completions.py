"""The SDK's chat completions, sent and read without a walk through the types of all that is in them.

The SDK looks up the type of every field that it sends, and makes objects of an answer one value at a time. Here a body
is written as it is, byte for byte what the SDK would write, and pydantic reads the answer whole. Connections, retries,
errors, headers and streams are the SDK's. What may need more than that goes its own way: options of a call, objects
that are no JSON, answers in another form than OpenAI's, and a method that a tracer has wrapped. Structured output is
not asked for through these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any

import openai
import orjson
from openai import AsyncStream, Stream
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError


class LeanCompletions(Completions):
    """`client.chat.completions`, for bodies that are ready."""

    def create(self, **fields: Any) -> Any:
        """What the SDK's returns; the same arguments."""
        if _is_wrapped(Completions.create) or (request := _request(fields)) is None:
            return super().create(**fields)
        return self._post(**request, stream_cls=Stream[ChatCompletionChunk])


class AsyncLeanCompletions(AsyncCompletions):
    """`LeanCompletions` under `ainvoke`."""

    async def create(self, **fields: Any) -> Any:
        """What the SDK's returns; the same arguments."""
        if _is_wrapped(AsyncCompletions.create) or (request := _request(fields)) is None:
            return await super().create(**fields)
        return await self._post(**request, stream_cls=AsyncStream[ChatCompletionChunk])


class _Completion(ChatCompletion):
    """An answer; what the SDK reads one has this method make."""

    @classmethod
    def build(cls, *, response: Any, data: object) -> Any:
        """The answer that a body holds."""
        try:
            return cls.model_validate(data, strict=True)
        except ValidationError:
            return cls.model_construct(**data) if isinstance(data, Mapping) else data


_SDK = str(Path(openai.__file__).parent)


def _is_wrapped(method: Any) -> bool:
    """Whether a method of the SDK is no longer its own, as under OpenTelemetry."""
    return type(method) is not FunctionType or not method.__code__.co_filename.startswith(_SDK)


_FIELDS = ("model", "stream", "service_tier", "messages", *signature(Completions.create).parameters)
_OF_THE_CALL = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
_ORDER = [name for name in dict.fromkeys(_FIELDS) if name not in _OF_THE_CALL]
"""The fields of a body, as the SDK orders them."""


def _request(fields: dict[str, Any]) -> dict[str, Any] | None:
    """What is posted for these arguments; None where it takes the SDK to tell."""
    body = {name: fields[name] for name in _ORDER if name in fields}
    if fields.keys() - body.keys() - {"extra_headers", "extra_body"}:
        return None
    try:
        content = _written({**body, **(fields.get("extra_body") or {})})
    except TypeError:  # an object
        return None
    options = {"headers": fields.get("extra_headers") or {}, "security": {"bearer_auth": True}}
    sent = {"path": "/chat/completions", "content": content, "options": options}
    return {**sent, "cast_to": _Completion, "stream": bool(fields.get("stream"))}


def _written(body: Mapping[str, Any]) -> bytes:
    """A body as JSON. The messages, which are long, are written by the faster of two writers that agree on texts."""
    writers = {"messages": _text_json}
    fields = (b"%b:%b" % (_json(name), writers.get(name, _json)(value)) for name, value in body.items())
    return b"{%b}" % b",".join(fields)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _text_json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME)
