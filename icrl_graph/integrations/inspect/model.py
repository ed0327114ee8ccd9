"""The model that Inspect has chosen, as a chat model of LangChain: asked, counted, limited and logged by Inspect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from inspect_ai.model import GenerateConfig, get_model, messages_from_openai
from inspect_ai.util import token_limit
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from tenacity import RetryError
from typing_extensions import override

from icrl_graph.execution.usage import LOCAL
from icrl_graph.integrations.inspect.sample import running

asked: ContextVar[set[str]] = ContextVar("icrl_inspect_asked")
"""The prompts of a run."""


class InspectModel(BaseChatModel):
    """What `--model` names, in the eval that it is called in."""

    model_name: str = "inspect"

    @property
    def _llm_type(self) -> str:
        return "inspect"

    @override
    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        raise NotImplementedError("Inspect's models are async: use ainvoke")

    @override
    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        told = convert_to_openai_messages(messages)
        # with --cache: attempts that are asked for by the same prompt are to be attempts of their own
        again: dict[str, Any] = {"cache": False} if repr(told) in asked.get() else {}
        asked.get().add(repr(told))
        prompt = await messages_from_openai(told)
        run: Any = running.get()
        with metered() as usage:
            try:
                output = await get_model().generate(prompt, config=GenerateConfig(stop_seqs=stop, **kwargs), **again)
            except Exception as error:
                run.failure = error
                if isinstance(error, RetryError) and isinstance(reason := error.last_attempt.exception(), Exception):
                    run.failure = reason  # for which Inspect has repeated the call
                raise run.failure from None
        run.replied = True
        if output.stop_reason == "model_length" and not usage["output_tokens"]:
            raise ValueError(output.completion)  # the refusal of a prompt that is too long, which Inspect gives as text
        # of a provider whose tokens are not estimated: what Inspect does not count is free, as what its cache holds
        metadata = {"model_provider": LOCAL, "model_name": output.model, "finish_reason": output.stop_reason}
        message = AIMessage(output.completion, usage_metadata=usage, response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])


@contextmanager
def metered() -> Iterator[UsageMetadata]:
    """What Inspect's models use within the block, filled in at its end; replies from Inspect's cache are free."""
    usage = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
    with token_limit(None, type="input") as read, token_limit(None, type="output") as written:
        try:
            yield usage
        finally:
            usage["input_tokens"], usage["output_tokens"] = int(read.usage), int(written.usage)
            usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
