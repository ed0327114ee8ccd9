"""Functions wrapped as chat models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from icrl_graph.execution.calls import contained
from icrl_graph.execution.signatures import accepted_names
from icrl_graph.execution.usage import LOCAL
from icrl_graph.state.episode import Message

REPLY_ARGUMENTS = ("messages", "rng", "temperature")
"""What a function may ask for that stands for a model; see `FunctionModel`."""


class FunctionModel(BaseChatModel):
    """A function that answers prompts, as a chat model.

    The function is called with those of these arguments that it names: `messages`, the prompt as dictionaries in
    OpenAI's format; `rng`, a `random.Random` seeded by the call's `seed`, or unseeded without one; `temperature`, the
    call's or None. It returns the response, as text or as an `AIMessage`. It takes no tools: for an agent take
    `icrl_graph.testing.ScriptedModel` or `OpenAIServer`.

    Attributes:
        reply: the function.
        name: the model's name, in saved runs and as its type in traces.
        temperature: for calls that give none.
    """

    reply: Callable[..., str | AIMessage]
    name: str | None = "function"
    temperature: float | None = None
    _names: tuple[str, ...] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Check the function's signature."""
        super().model_post_init(context)
        self._names = accepted_names(self.reply, REPLY_ARGUMENTS, "reply function")

    @property
    def _llm_type(self) -> str:
        return self.name or "function"

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The name of its calls in traces: that of the class, as for other chat models."""
        return super().get_name(suffix, name=name or type(self).__name__)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Refuse them, for the function does not see them.

        Raises:
            NotImplementedError: says what takes tools.
        """
        raise NotImplementedError(
            "a function as a model takes no tools; for an agent take icrl_graph.testing.ScriptedModel(reply, "
            "takes_tools=True), or chat_model with the base_url of icrl_graph.testing.OpenAIServer(reply)"
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        offered = {
            "messages": convert_to_openai_messages(messages),
            "rng": Random(kwargs.get("seed")),
            "temperature": kwargs.get("temperature", self.temperature),
        }
        with contained():  # here, for under `ainvoke` LangChain takes what is no `Exception` for an answer
            answer = self._answer(offered)
        message = AIMessage(answer) if isinstance(answer, str) else answer
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_provider": LOCAL})

    def _answer(self, offered: Mapping[str, Any]) -> str | AIMessage:
        return self.reply(**{name: offered[name] for name in self._names})


def reply_of(model: BaseChatModel) -> Callable[..., Awaitable[AIMessage]]:
    """A chat model as an async function that answers, so that it can stand behind `icrl_graph.testing.OpenAIServer`."""

    async def reply(
        messages: Sequence[Message], rng: Random, temperature: float | None, max_tokens: int | None
    ) -> AIMessage:
        given = {"temperature": temperature, "max_tokens": max_tokens}
        sampling: Any = {name: value for name, value in given.items() if value is not None}
        return await model.ainvoke(list(messages), seed=rng.getrandbits(31), **sampling)

    return reply
