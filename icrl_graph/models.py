"""Models by name, and functions in a chat model's clothes.

`chat_model("openai:gpt-4.1-mini")` talks to OpenAI or to any server that speaks its protocol; "learner:hidden-color"
and "learner:game24" are in-context learners that ship with this package; other providers come from `langchain`, if that
is installed.

Whatever can answer a prompt can stand where a model is asked for: a chat model, a Runnable, a compiled graph that takes
`messages`, or a plain function.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding
from langgraph.pregel import Pregel
from pydantic import BaseModel, PrivateAttr, SecretStr

from icrl_graph import caching
from icrl_graph.calls import async_only
from icrl_graph.context import flat
from icrl_graph.errors import missing_extra
from icrl_graph.learner import find_learner
from icrl_graph.rewards import accepted_names
from icrl_graph.state import Message

ASKS = ("messages", "rng", "temperature")


class FunctionModel(BaseChatModel):
    """A function that answers prompts, as a chat model.

    The function is called with those of these arguments that it names: `messages`, the prompt as dictionaries in
    OpenAI's format; `rng`, a `random.Random` seeded by the call's `seed`, or unseeded without one; `temperature`, the
    call's or None. It returns the response, as text or as an `AIMessage`.

    Attributes:
        reply: the function.
        label: the model's name in traces.
        temperature: for calls that give none.
    """

    reply: Callable[..., str | AIMessage]
    label: str = "function"
    temperature: float | None = None
    _names: tuple[str, ...] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Check the function's signature."""
        super().model_post_init(context)
        self._names = accepted_names(self.reply, ASKS, "reply function")

    @property
    def _llm_type(self) -> str:
        return self.label

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
        said = self._answer(offered)
        message = AIMessage(said) if isinstance(said, str) else said
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _answer(self, offered: Mapping[str, Any]) -> str | AIMessage:
        return self.reply(**{name: offered[name] for name in self._names})


def chat_model(name: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any) -> BaseChatModel:
    """A chat model by "provider:name".

    Args:
        name: such as "openai:gpt-4.1-mini" or "learner:hidden-color".
        base_url: the server's address; for openai by default the environment's OPENAI_BASE_URL, else OpenAI's.
        api_key: for openai by default the environment's OPENAI_API_KEY; a server at a `base_url` may need none.
        options: passed on to the model's class, such as `temperature` or `timeout` (seconds).

    Raises:
        ValueError: the name has no provider, the learner or the provider is unknown, a key is missing, or an option is
            one that the learner does not take.
        MissingExtra: the provider is not openai, and langchain is not installed.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise ValueError(f"a model is named 'provider:name', such as 'openai:gpt-4.1-mini', got {name!r}")
    if provider == "openai":
        return _openai(model, base_url=base_url, api_key=api_key, **options)
    options |= {key: given for key, given in (("base_url", base_url), ("api_key", api_key)) if given is not None}
    if provider == "learner":
        if strange := options.keys() - {"temperature"}:
            raise ValueError(f"a learner takes a temperature and no other option, got {', '.join(sorted(strange))}")
        return learner(model, **options)
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as missing:
        raise missing_extra(f"langchain, which knows the provider {provider!r},", "providers") from missing
    try:
        chosen: BaseChatModel = init_chat_model(name, **options)
    except ImportError as missing:
        raise ValueError(f"the model {name!r} can't be loaded: {missing}") from missing
    return chosen


def learner(name: str, *, temperature: float | None = None) -> FunctionModel:
    """A shipped in-context learner by name.

    Args:
        name: "hidden-color"; "game24", "game24-weak" or "game24-strong" (see `icrl_graph.learner`).
        temperature: default 1, as it was trained; 0 takes what is likeliest.

    Raises:
        ValueError: there is none of that name.
    """
    return FunctionModel(reply=find_learner(name), label=f"learner:{name}", temperature=temperature)


def _openai(model: str, *, base_url: str | None, api_key: str | None, **options: Any) -> BaseChatModel:
    from icrl_graph.openai_client import LeanChatOpenAI, async_client

    base_url = base_url or os.environ.get("OPENAI_BASE_URL")
    api_key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
    if api_key is None:
        raise ValueError(
            f"the model 'openai:{model}' needs a key: set OPENAI_API_KEY, or give base_url (or OPENAI_BASE_URL) for a "
            "server of your own"
        )
    options = {"use_responses_api": False, "http_async_client": async_client(), "max_retries": 0, **options}
    return LeanChatOpenAI(model=model, base_url=base_url, api_key=SecretStr(api_key), **options)


@dataclass(frozen=True)
class Policy:
    """Whatever answers prompts, with how it is asked.

    Attributes:
        part: the chat model, Runnable or compiled graph.
        kind: "chat" takes sampling parameters and a seed with each call, "graph" takes its prompt under `messages`,
            "rollout" plays an episode of many turns (`icrl_graph.rollouts`).
        cache: how its provider is told what to cache.
        calls: paid calls of an attempt, at most.
        actor: who acts, where it plays an episode.
        form: what a structured answer is asked to be.
        abandon: gives up what the episode of a (run, round, candidate) holds, where something has broken it off.
        told: how its provider was to be told what to cache, one of `caching.CHOICES`.
    """

    part: Runnable[Any, Any]
    kind: Literal["chat", "graph", "runnable", "rollout"]
    cache: caching.Dialect = caching.OFF
    calls: int = 1
    actor: Policy | None = None
    form: type[BaseModel] | None = None
    abandon: Callable[[tuple[str, int, int]], None] | None = None
    told: str = "auto"

    @property
    def speaker(self) -> Policy:
        """Who answers a single prompt: itself, or who acts."""
        return self.actor or self

    def structured(self, form: type[BaseModel]) -> Policy:
        """The same chat model, asked for structured output.

        Raises:
            NotImplementedError: it gives none.
        """
        asked = self.part.with_structured_output(form, include_raw=True)  # type: ignore[attr-defined]
        return Policy(asked, "runnable", form=form)

    def by(self, other: Policy) -> Policy:
        """The same policy with another chat model.

        Raises:
            ValueError: this one has no chat model that could be replaced.
        """
        if self.form is not None:
            return other.structured(self.form)
        if self.speaker.kind != "chat":
            raise ValueError(f"no model can replace {name_of_part(self.part)}, which is no chat model")
        return other if self.actor is None else replace(self, actor=other)

    def input(self, messages: list[Message]) -> Any:
        """The input that a prompt is handed over in."""
        plain = flat(messages)
        return {"messages": plain} if self.kind == "graph" else plain


def as_policy(model: Any, cache: str = "auto") -> Policy:
    """Adapt what a user gives as a model.

    Args:
        model: what the user gives.
        cache: how its provider is told what to cache, one of `caching.CHOICES`; for chat models of providers.

    Raises:
        ValueError: it is neither a name, a chat model, a Runnable, a compiled graph that takes `messages`, nor a
            function.
    """
    if isinstance(model, Policy):
        return model
    if isinstance(model, str):
        model = chat_model(model)
    if isinstance(model, Pregel):
        if "messages" not in model.get_input_jsonschema().get("properties", {}):
            raise ValueError(
                f"a graph that stands for a model takes its prompt under 'messages'; {model.name!r} does not"
            )
        return Policy(model, "graph")
    if isinstance(model, Runnable):
        if not isinstance(unbound(model), BaseChatModel):
            return Policy(model, "runnable")
        local = isinstance(unbound(model), FunctionModel)  # nobody's cache is to be told anything
        return Policy(model, "chat", caching.OFF if local else caching.dialect(cache, model), told=cache)
    if callable(model):
        accepted_names(model, ASKS, "reply function")
        if async_only(model):
            raise ValueError("a function that stands for a model is a plain one; wrap a coroutine in a RunnableLambda")
        return Policy(FunctionModel(reply=model, label=getattr(model, "__qualname__", "function")), "chat")
    raise ValueError(f"a model is a name, a chat model, a Runnable, a compiled graph or a function, got {model!r:.80}")


def read_response(raw: Any) -> dict[str, Any]:
    """What a policy gave, as fields of an episode: `response`, of a structured reply its `answer`, or an `error`.

    An empty answer, a refusal and a filtered answer are replies like others: paid for, and kept.

    Raises:
        ValueError: it is neither text nor a message.
    """
    if isinstance(raw, Mapping) and "raw" in raw and "parsed" in raw:
        return _read_structured(raw)
    if isinstance(raw, Mapping) and raw.get("messages"):
        (raw,) = convert_to_messages(raw["messages"][-1:])
    if isinstance(raw, BaseMessage):
        text = str(raw.text)
        if refusal := raw.additional_kwargs.get("refusal"):
            return {"error": f"the model refused: {refusal}"}
        if raw.response_metadata.get("finish_reason") == "content_filter":
            return {"error": "the provider's content filter withheld the answer"}
    elif isinstance(raw, str):
        text = raw
    else:
        raise ValueError(f"a model gives text or a message, got {raw!r:.80}")
    return {"response": text} if text.strip() else {"error": "the model gave an empty answer"}


def _read_structured(raw: Mapping[str, Any]) -> dict[str, Any]:
    parsed = raw["parsed"]
    answer = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
    text = str(raw["raw"].text) or ("" if answer is None else json.dumps(answer))
    said = {"response": text} if text.strip() else {}
    if answer is None:
        why = raw.get("parsing_error") or "the model answered in words of its own"
        return {**said, "answer": None, "error": f"not in the asked-for form: {why}"}
    return {**said, "answer": answer}


def is_permanent(error: Exception) -> bool:
    """Whether no other attempt can succeed: the key, the model's name or the address is wrong."""
    kinds = (ModelAuthenticationError, ModelPermissionDeniedError, ModelNotFoundError)
    # Not `pace.status_of`: what an agent's tools fetch tells its status otherwise, and is no reason to end a run.
    return isinstance(error, kinds) or getattr(error, "status_code", None) in (401, 403, 404)


def is_overflow(error: Exception) -> bool:
    """Whether the prompt did not fit into the model's context, as LangChain, OpenAI or vLLM say it."""
    told = getattr(error, "code", None) == "context_length_exceeded" or "maximum context length" in str(error)
    return told or isinstance(error, ContextOverflowError)


def unbound(part: Any) -> Any:
    """A Runnable without the arguments that are bound to it."""
    while isinstance(part, RunnableBinding):
        part = part.bound
    return part


def same_model(one: Any, other: Any) -> bool:
    """Whether two models are the same, as far as can be told: the same object or function, or chat models of a name."""
    one, other = unbound(one), unbound(other)
    if isinstance(one, FunctionModel) and isinstance(other, FunctionModel):
        return one.reply == other.reply
    if one is other:
        return True
    chat = isinstance(one, BaseChatModel) and type(one) is type(other)
    return chat and name_of_part(one) == name_of_part(other)


def chat_models(*parts: Any) -> tuple[str, ...]:
    """The names of the chat models among some parts and their judges; whether they have prices can be told ahead."""
    models = [unbound(model) for part in parts for model in (part, *getattr(part, "judges", ()))]
    chat = (m for m in models if isinstance(m, BaseChatModel) and not isinstance(m, FunctionModel))
    return tuple(dict.fromkeys(map(name_of_part, chat)))


def name_of_part(part: Any) -> str:
    """What to call a model or an evaluator in a stored run."""
    part = unbound(part)
    for name in ("model_name", "model", "model_id", "label", "name", "__qualname__"):
        if isinstance(told := getattr(part, name, None), str) and told:
            return told
    return type(part).__qualname__
