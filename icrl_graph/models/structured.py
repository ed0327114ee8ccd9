"""Structured output: a chat model is asked for JSON of a form, whatever its server makes of that.

An answer that can't be read as that form is a reply like others: it was paid for. So it is read here, not by the
client, which would raise an error without its tokens. Many servers of OpenAI's protocol refuse the form or ignore it.
Then the model is asked in words from there on, also by others that ask the same server for the same form: what is
learnt in one call need not be paid for in the next.
"""

from __future__ import annotations

import json
import re
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, ValidationError

from icrl_graph.execution.calls import run_blocking
from icrl_graph.execution.overflow import is_overflow
from icrl_graph.execution.status import status_of
from icrl_graph.models.reasoning import split_message
from icrl_graph.models.servers import server_of
from icrl_graph.prompts.templates import AS_JSON, fill
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.episode import Message
from icrl_graph.state.plain import last_object

_REFUSALS = (400, 415, 422, 500, 501)
"""What servers that know no structured output answer: most a status of a bad request, some break down."""


class StructuredModel(Runnable[list[Message], dict[str, Any]]):
    """A chat model that answers in a form.

    Args:
        model: the chat model.
        schema: the form.
        describe: whether to describe the form in words where the server does not take it; not where the prompt says how
            to answer in words.

    Raises:
        NotImplementedError: the model knows no structured output.
    """

    def __init__(self, model: BaseChatModel, schema: type[BaseModel], *, describe: bool = True) -> None:
        self.name = name_of_part(model)
        self._model, self._schema, self._describe = model, schema, describe
        self._asked, self._server = _asked(model, schema), server_of(model)
        self._form = json.dumps(schema.model_json_schema())

    def invoke(self, input: list[Message], config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Ask; returns the message as `raw`, the object as `parsed` or None, and why as `parsing_error`."""
        return run_blocking(self._ask(input, kwargs, is_async=False))  # type: ignore[no-any-return]

    async def ainvoke(
        self, input: list[Message], config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """`invoke`, in an event loop."""
        return await self._ask(input, kwargs, is_async=True)

    async def _ask(self, messages: list[Message], kwargs: dict[str, Any], is_async: bool) -> dict[str, Any]:
        async def call(part: Runnable[LanguageModelInput, Any], prompt: list[Message]) -> Any:
            given: Any = prompt
            return await part.ainvoke(given, **kwargs) if is_async else part.invoke(given, **kwargs)

        refused, tags = 0, kwargs.pop("reasoning_tags", None)
        if self._server.forms[self._form] < 2:
            try:
                return self._read(await call(self._asked, messages), tags)
            except Exception as error:
                refused = _refuses(error)
                if not refused:
                    raise
        raw = await call(self._model, _in_words(messages, self._schema) if self._describe else messages)
        self._server.forms[self._form] += refused  # only where the same prompt is answered in words
        return self._read(raw, tags, in_words=True)

    def _read(self, reply: Any, tags: str | None, in_words: bool = False) -> dict[str, Any]:
        """A reply with what it says in the form; one without a trace of JSON shows that the server ignores the form."""
        is_plain = isinstance(reply, AIMessage)  # else the provider's own form of structured output
        read: dict[str, Any] = {"raw": reply, "parsed": None} if is_plain else reply
        if read["parsed"] is not None:
            return read
        text = _FENCED.sub(r"\1", split_message(read["raw"], tags).answer.strip())
        text = text if text.startswith("{") else last_object(text) or text
        try:
            return {**read, "parsed": self._schema.model_validate_json(text), "parsing_error": None}
        except ValidationError as error:
            if is_plain and text and not in_words and not text.startswith("{"):
                self._server.forms[self._form] = 2
            return {"parsing_error": error, **read}


_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.S)


def _asked(model: BaseChatModel, schema: type[BaseModel]) -> Runnable[LanguageModelInput, Any]:
    """The model with the form that it is asked for: OpenAI's `response_format`, or the provider's own way."""
    if not is_of_openai(model):
        return model.with_structured_output(schema, include_raw=True)
    from openai import pydantic_function_tool

    function = pydantic_function_tool(schema)["function"]
    form = {"name": function["name"], "schema": function["parameters"], "strict": True}
    asked = {"response_format": {"type": "json_schema", "json_schema": form}}
    if uses_responses_api(model):
        return model.bind(**asked)
    return model.bind(extra_body={**(getattr(model, "extra_body", None) or {}), **asked})  # the SDK would parse it


def is_of_openai(model: Any) -> bool:
    """Whether a model is asked for structured output in OpenAI's protocol."""
    return getattr(type(model).with_structured_output, "__module__", "").startswith("langchain_openai")


def uses_responses_api(model: Any) -> bool:
    """Whether a model of OpenAI is asked by the newer of its two protocols."""
    decide = getattr(model, "_use_responses_api", None)  # private: without it, as the field says
    return bool(model.use_responses_api if decide is None else decide({}))


def _refuses(error: Exception) -> int:
    """How much an error speaks for a server that does not take the form: 2 for certain, 1 if it may have broken."""
    if isinstance(error, NotImplementedError):
        return 2
    status = status_of(error)
    if status not in _REFUSALS or is_overflow(error):
        return 0
    return 2 if status < 500 or status == 501 else 1


def _in_words(messages: list[Message], schema: type[BaseModel]) -> list[Message]:
    """A prompt that says what form is wanted."""
    words = fill(AS_JSON, schema=json.dumps(schema.model_json_schema()))
    *before, last = messages
    if last["role"] != "user" or not isinstance(last["content"], str):
        return [*messages, {"role": "user", "content": words}]
    return [*before, {**last, "content": f"{last['content']}\n\n{words}"}]
