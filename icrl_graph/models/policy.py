"""Policies: whatever answers a prompt, adapted to one form.

A chat model, a Runnable, a compiled graph that takes `messages`, or a plain function can stand where a model is asked
for; so can a name, such as "openai:gpt-4.1-mini" or "learner:game24" (see `icrl_graph.models.registry`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langgraph.pregel import Pregel
from pydantic import BaseModel

from icrl_graph.execution.calls import async_only
from icrl_graph.execution.signatures import accepted_names
from icrl_graph.models import prompt_cache
from icrl_graph.models.function import REPLY_ARGUMENTS, FunctionModel
from icrl_graph.models.registry import chat_model, named_by
from icrl_graph.models.structured import StructuredModel
from icrl_graph.prompts.layouts import flat
from icrl_graph.state.choices import name_of_part, unbound
from icrl_graph.state.episode import Message


@dataclass(frozen=True)
class Policy:
    """Whatever answers prompts, with how it is called.

    Attributes:
        part: the chat model, Runnable or compiled graph.
        kind: "chat" takes sampling parameters and a seed with each call, "graph" takes its prompt under `messages`,
            "rollout" plays an episode of many turns (`icrl_graph.environments.rollouts`).
        cache: how its provider is made to cache its prompts.
        cache_choice: the option that `cache` follows from, one of `prompt_cache.CHOICES`.
        calls: paid calls of an attempt, at most.
        actor: the policy that acts within the episodes of a rollout; else None.
        response_schema: the pydantic model that structured answers follow; else None.
        discard: gives up what the episode of a (run, round, candidate) holds, after something has broken it off.
    """

    part: Runnable[Any, Any]
    kind: Literal["chat", "graph", "runnable", "rollout"]
    cache: prompt_cache.Dialect = prompt_cache.OFF
    cache_choice: str = "auto"
    calls: int = 1
    actor: Policy | None = None
    response_schema: type[BaseModel] | None = None
    discard: Callable[[tuple[str, int, int]], None] | None = None

    @property
    def responder(self) -> Policy:
        """The policy that answers a single prompt: the actor of a rollout, else itself."""
        return self.actor or self

    def structured(self, schema: type[BaseModel], *, describe: bool = True) -> Policy:
        """The same chat model, asked for structured output.

        Args:
            schema: the form of its answers.
            describe: whether to describe it in words to a server that does not take it.

        Raises:
            NotImplementedError: it gives none.
        """
        model = StructuredModel(cast(BaseChatModel, self.part), schema, describe=describe)
        return Policy(model, "runnable", response_schema=schema)

    def with_model(self, other: Policy) -> Policy:
        """The same policy with another chat model.

        Raises:
            ValueError: this one has no chat model that could be replaced.
        """
        if self.response_schema is not None:
            return other.structured(self.response_schema)
        if self.responder.kind != "chat":
            raise ValueError(f"no model can replace {name_of_part(self.part)}, which is not a chat model")
        return other if self.actor is None else replace(self, actor=other)

    def input(self, messages: list[Message]) -> Any:
        """The input that a prompt is handed over in."""
        plain = flat(messages)
        return {"messages": plain} if self.kind == "graph" else plain


def as_policy(model: Any, cache: str = "auto", what: str = "model") -> Policy:
    """Adapt a model.

    Args:
        model: a name, a chat model, a Runnable, a compiled graph that takes `messages`, a function, or a `Policy`,
            which is returned as it is.
        cache: how its provider is made to cache prompts, one of `prompt_cache.CHOICES`; for chat models of providers.
        what: its role, for errors.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(model, Policy):
        return model
    if isinstance(model, str):
        with named_by(what, model):
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
        local = isinstance(unbound(model), FunctionModel)  # no provider, so no cache to steer
        dialect = prompt_cache.OFF if local else prompt_cache.dialect(cache, model)
        return Policy(model, "chat", dialect, cache_choice=cache)
    if callable(model):
        accepted_names(model, REPLY_ARGUMENTS, "reply function")
        if async_only(model):
            raise ValueError("a function that stands for a model is a plain one; wrap a coroutine in a RunnableLambda")
        return Policy(FunctionModel(reply=model, name=getattr(model, "__qualname__", "function")), "chat")
    raise ValueError(f"a {what} is a name, a chat model, a Runnable, a compiled graph or a function, got {model!r:.80}")


def same_model(one: Any, other: Any) -> bool:
    """Whether two models are the same, as far as is known: one object or function, or chat models of one name."""
    one, other = unbound(one), unbound(other)
    if isinstance(one, FunctionModel) and isinstance(other, FunctionModel):
        return one.reply == other.reply
    if one is other:
        return True
    chat = isinstance(one, BaseChatModel) and type(one) is type(other)
    return chat and name_of_part(one) == name_of_part(other)


def chat_models(*models: Any) -> tuple[str, ...]:
    """The names of the providers' chat models among these, each once: whether they have prices can be checked ahead."""
    chat = (m for m in map(unbound, models) if isinstance(m, BaseChatModel) and not isinstance(m, FunctionModel))
    return tuple(dict.fromkeys(map(name_of_part, chat)))
