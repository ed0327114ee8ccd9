"""A chat model with scripted replies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from pydantic import Field

from icrl_graph.models.function import FunctionModel
from icrl_graph.state.episode import Message

Replies = Callable[..., Any] | Sequence[str | AIMessage | Exception]


class ScriptedModel(FunctionModel):
    """A chat model with scripted replies, which records its prompts.

    Args:
        replies: a function, as for `FunctionModel`, or the replies, call after call; an exception among them is raised.
        fields: such as `usage`.

    Attributes:
        prompts: the prompts that it got, as dictionaries in OpenAI's format.
        usage: tokens to report for each call, such as `{"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}`.
        takes_tools: whether tools can be bound to it, as agents do; a reply that calls one is an `AIMessage`.
    """

    prompts: list[list[Message]] = Field(default_factory=list)
    usage: UsageMetadata | None = None
    takes_tools: bool = False

    def __init__(self, replies: Replies, **fields: Any) -> None:
        super().__init__(reply=replies if callable(replies) else _queue(replies), name="scripted", **fields)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Itself, if it takes tools: it calls those that its replies call, whatever it is offered."""
        return self if self.takes_tools else super().bind_tools(tools, **kwargs)

    def _answer(self, offered: Mapping[str, Any]) -> str | AIMessage:
        self.prompts.append(offered["messages"])
        answer: Any = super()._answer(offered)
        if isinstance(answer, Exception):
            raise answer
        if self.usage is not None:
            answer = AIMessage(answer) if isinstance(answer, str) else answer
            answer = answer.model_copy(update={"usage_metadata": self.usage})
        return answer  # type: ignore[no-any-return]


def _queue(replies: Sequence[Any]) -> Callable[[], Any]:
    waiting, lock = iter(replies), threading.Lock()

    def next_reply() -> Any:
        with lock:
            try:
                return next(waiting)
            except StopIteration:
                return RuntimeError(f"the scripted model has given all of its {len(replies)} replies")

    return next_reply
