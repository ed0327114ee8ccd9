"""The client behind "openai:..." models, made for long histories.

A prompt of a hundred turns costs a client more than the rest of a round: LangChain looks at every character of every
assistant turn, and the SDK walks through the type of every message, to send what is there already. `LeanChatOpenAI`
passes texts on as they are, and makes LangChain's messages of a long history once, not with each call. It depends on
one private method of LangChain; without it, it is a plain `ChatOpenAI`. To the servers of others it sends the limit of
an answer under both of its names; it counts the usage of a stream once.

Of a message `ChatOpenAI` keeps what OpenAI sends. Here its reasoning is kept too, which other servers have in fields of
their own: `reasoning_content` (DeepSeek, llama.cpp, SGLang, vLLM up to 0.15), `reasoning` (vLLM, OpenRouter, Ollama).

Only `icrl_graph.models.registry` imports this, and only for a model of OpenAI's protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Self

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata, add_usage, subtract_usage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import PromptValue
from langchain_openai import ChatOpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions
from pydantic import PrivateAttr, model_validator

from icrl_graph.models.completions import readable
from icrl_graph.models.lean_completions import AsyncLeanCompletions, LeanCompletions
from icrl_graph.models.servers import address_of, is_openai
from icrl_graph.state.unicode import cleaned

_LONG, _KEPT = 64, 8192
"""Messages of a prompt from which on they are kept for the next prompts, and how many a model keeps at most."""
_Kind = type[HumanMessage | AIMessage]
_Make = Callable[[_Kind, str], BaseMessage]


class LeanChatOpenAI(ChatOpenAI):
    """A `ChatOpenAI` that sends the same bodies to OpenAI for a fraction of the CPU, where a history is long."""

    _make_once: _Make = PrivateAttr(default_factory=lambda: lru_cache(_KEPT)(_make))

    @classmethod
    def lc_id(cls) -> list[str]:
        """The id of the class that it stands for, so that it is saved and traced as that."""
        return ChatOpenAI.lc_id()

    @model_validator(mode="after")
    def _ask_without_walks(self) -> Self:
        if type(self.client) is Completions:
            self.client = LeanCompletions(self.root_client)
        if type(self.async_client) is AsyncCompletions:
            self.async_client = AsyncLeanCompletions(self.root_async_client)
        return self

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        """A prompt of LangChain's messages; those of a long history are made once, not with each call."""
        if isinstance(model_input, list):
            make = self._make_once if len(model_input) >= _LONG else _make
            model_input = [_as_message(message, make) for message in model_input]
        return super()._convert_input(model_input)

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The request's fields, with the messages where the SDK passes them on without looking at their types."""
        if self.use_responses_api is not False:  # another protocol, or not yet decided
            return cleaned(super()._get_request_payload(input_, stop=stop, **kwargs))
        messages = super()._convert_input(input_).to_messages()
        texts = [_as_text(message) for message in messages]
        others = [message for message, text in zip(messages, texts, strict=True) if text is None]
        payload = super()._get_request_payload(others, stop=stop, **kwargs)
        converted = iter(payload["messages"])
        sent = [cleaned(next(converted)) if text is None else text for text in texts]
        body = {"messages": sent, **self._other_limit(payload), **(payload.get("extra_body") or {})}
        return {**payload, "messages": [], "extra_body": body}

    def _other_limit(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The limit of an answer under its other name, which is all that many servers but OpenAI's know."""
        limit = payload.get("max_completion_tokens")
        return {} if limit is None or is_openai(address_of(self)) else {"max_tokens": limit}

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        """The chunks of an answer, which together have what it used."""
        count_once = _CountedOnce()
        yield from map(count_once, super()._stream(*args, **kwargs))

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        """`_stream` under `ainvoke`."""
        count_once = _CountedOnce()
        async for chunk in super()._astream(*args, **kwargs):
            yield count_once(chunk)

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        choices = response["choices"] if isinstance(response, dict) else response.choices
        for generation, choice in zip(result.generations, choices, strict=True):
            told = choice["message"] if isinstance(choice, dict) else choice.message.model_extra
            _keep_reasoning(generation.message, told)
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        told = {**chunk, "usage": readable(chunk.get("usage"))}
        converted = super()._convert_chunk_to_generation_chunk(told, default_chunk_class, base_generation_info)
        if converted is not None and (choices := chunk.get("choices")):
            _keep_reasoning(converted.message, choices[0]["delta"])
        return converted


class _CountedOnce:
    """Makes the usage of a chunk what it adds to that of the chunks before it.

    LangChain sums the usage of all chunks, and some servers tell all that was used so far in each of them, or twice at
    the end (`continuous_usage_stats` of vLLM and SGLang; LiteLLM, pydantic/pydantic-ai/issues/5260).
    """

    def __init__(self) -> None:
        self._most: UsageMetadata | None = None

    def __call__(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        message = chunk.message
        if isinstance(message, AIMessageChunk) and message.usage_metadata:
            message.usage_metadata = subtract_usage(message.usage_metadata, self._most)
            self._most = add_usage(self._most, message.usage_metadata)
        return chunk


def _keep_reasoning(message: BaseMessage, told: Mapping[str, Any] | None) -> None:
    """Keep the reasoning that a message, or a piece of one, was sent with, where LangChain's own classes keep it."""
    reasoning = next((told[name] for name in ("reasoning_content", "reasoning") if told and told.get(name)), None)
    if isinstance(reasoning, str):
        message.additional_kwargs["reasoning_content"] = reasoning


def _as_text(message: BaseMessage) -> dict[str, Any] | None:
    """A user's or an assistant's message as it can be encoded and is sent, if it is plain text; None for any other."""
    role = _ROLES.get(type(message))
    if role is None or not isinstance(message.content, str) or message.name is not None or message.additional_kwargs:
        return None
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        return None
    return {"content": cleaned(message.content), "role": role}


_KINDS: dict[str, _Kind] = {"user": HumanMessage, "assistant": AIMessage}
_ROLES: dict[type[BaseMessage], str] = {kind: role for role, kind in _KINDS.items()}


def _as_message(message: Any, make: _Make) -> Any:
    """LangChain's message of a role and a text; any other as it is."""
    if type(message) is not dict or len(message) != 2:
        return message
    role, text = message.get("role"), message.get("content")
    if type(role) is not str or type(text) is not str or role not in _KINDS:
        return message
    kind = _KINDS[role]
    made = make(kind, text)
    changed = made.content != text or made.name or made.id or made.additional_kwargs or made.response_metadata
    return kind(text) if changed else made  # a callback may have


def _make(kind: _Kind, text: str) -> BaseMessage:
    return kind(text)
