"""Models by name, and functions in a chat model's clothes.

`chat_model("openai:gpt-4.1-mini")` talks to OpenAI or to any server that speaks its protocol; "learner:hidden-color"
and "learner:game24" are in-context learners that ship with this package; other providers come from `langchain`, if that
is installed.

Whatever can answer a prompt can stand where a model is asked for: a chat model, a Runnable, a compiled graph that takes
`messages`, or a plain function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding
from langgraph.pregel import Pregel
from pydantic import BaseModel

from icrl_graph.execution.calls import async_only
from icrl_graph.execution.signatures import accepted_names
from icrl_graph.models import prompt_cache as caching
from icrl_graph.models.function import ASKS, FunctionModel
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.layouts import flat
from icrl_graph.state.episode import Message


@dataclass(frozen=True)
class Policy:
    """Whatever answers prompts, with how it is asked.

    Attributes:
        part: the chat model, Runnable or compiled graph.
        kind: "chat" takes sampling parameters and a seed with each call, "graph" takes its prompt under `messages`,
            "rollout" plays an episode of many turns (`icrl_graph.environments.rollout`).
        cache: how its provider is told what to cache.
        calls: paid calls of an attempt, at most.
        actor: who acts, where it plays an episode.
        form: what a structured answer is asked to be.
        discard: gives up what the episode of a (run, round, candidate) holds, where something has broken it off.
        told: how its provider was to be told what to cache, one of `caching.CHOICES`.
    """

    part: Runnable[Any, Any]
    kind: Literal["chat", "graph", "runnable", "rollout"]
    cache: caching.Dialect = caching.OFF
    calls: int = 1
    actor: Policy | None = None
    form: type[BaseModel] | None = None
    discard: Callable[[tuple[str, int, int]], None] | None = None
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
