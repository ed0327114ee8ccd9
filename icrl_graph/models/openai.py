"""The client behind "openai:..." models, made for long histories.

A prompt of a hundred turns costs a client more than the rest of a round: LangChain looks at every character of every
assistant turn, and the SDK walks through the type of every message, to send what is there already. `LeanChatOpenAI`
passes texts on as they are. It depends on one private method of LangChain; without it, it is a plain `ChatOpenAI`.

Of a message `ChatOpenAI` keeps what OpenAI sends. Here its reasoning is kept too, which other servers have in fields of
their own: `reasoning_content` (DeepSeek, llama.cpp, SGLang, vLLM up to 0.15), `reasoning` (vLLM, OpenRouter, Ollama).

Only `icrl_graph.models.registry` imports this, and only for a model of OpenAI's protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI


class LeanChatOpenAI(ChatOpenAI):
    """A `ChatOpenAI` that sends the same bodies for a fraction of the CPU, where a history is long."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """The id of the class that it stands for, so that it is saved and traced as that."""
        return ChatOpenAI.lc_id()

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The request's fields, with the messages where the SDK passes them on without looking at their types."""
        if self.use_responses_api is not False:  # another protocol, or not yet decided
            return super()._get_request_payload(input_, stop=stop, **kwargs)
        messages = self._convert_input(input_).to_messages()
        texts = [_as_text(message) for message in messages]
        others = [message for message, text in zip(messages, texts, strict=True) if text is None]
        payload = super()._get_request_payload(others, stop=stop, **kwargs)
        converted = iter(payload["messages"])
        sent = [next(converted) if text is None else text for text in texts]
        return {**payload, "messages": [], "extra_body": {"messages": sent, **(payload.get("extra_body") or {})}}

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
        converted = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if converted is not None and (choices := chunk.get("choices")):
            _keep_reasoning(converted.message, choices[0]["delta"])
        return converted


def _keep_reasoning(message: BaseMessage, told: Mapping[str, Any] | None) -> None:
    """Keep the reasoning that a message, or a piece of one, was sent with, where LangChain's own classes keep it."""
    reasoning = next((told[name] for name in ("reasoning_content", "reasoning") if told and told.get(name)), None)
    if isinstance(reasoning, str):
        message.additional_kwargs["reasoning_content"] = reasoning


def _as_text(message: BaseMessage) -> dict[str, Any] | None:
    """A user's or an assistant's message as it is sent, if it is plain text; None for any other."""
    role = _ROLES.get(type(message))
    if role is None or not isinstance(message.content, str) or message.name is not None or message.additional_kwargs:
        return None
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        return None
    return {"content": message.content, "role": role}


_ROLES: dict[type[BaseMessage], str] = {HumanMessage: "user", AIMessage: "assistant"}
