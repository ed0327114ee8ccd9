"""What every topology takes beside its own arguments; all of it is checked and sorted into parts and settings here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.execution.driver import Driver
from icrl_graph.execution.journal import Journal
from icrl_graph.execution.prices import Prices, are_prices, check_price
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models import prompt_cache as caching
from icrl_graph.models.policy import Policy, as_policy, chat_models
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.templates import INSTRUCTIONS
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.episode import Message
from icrl_graph.topologies import settings
from icrl_graph.topologies.nodes import Parts
from icrl_graph.topologies.settings import RunSettings


class Options(TypedDict, total=False):
    """What every topology takes beside its own arguments."""

    # parts
    bounds: tuple[float, float] | None
    """Lowest and highest reward that make sense; one outside leaves the attempt unscored."""
    timeout: float | None
    """Seconds for one evaluation, or for each call of one that makes several; after that the attempt is unscored."""
    system: str
    """A system prompt."""
    examples: Sequence[Message]
    """Few-shot turns ahead of the task, as chat messages."""
    instructions: Mapping[str, str]
    """Texts of your own for "explore", "exploit", "autonomous" or names that your schedule gives."""
    sampling: Mapping[str, Mapping[str, Any]]
    """Sampling parameters per instruction: `{"explore": {"temperature": 1.2}, "default": {...}}`. Chat models only."""
    inputs: Callable[[Mapping[str, Any], Random], Mapping[str, Any]] | None
    """Completes a run's input: called with `task` and `task_data` (None and {} where they are not given) and a random
    generator of the run's own; gives those that are to be others."""
    extract: Callable[[str], Any] | type[BaseModel] | None
    """Makes the answer of a response, in JSON-able values; a pydantic model instead asks for structured output."""
    cache: str | None
    """How the model's provider is told what of a prompt to cache: "openai" (which requests belong together),
    "openai-marks" (also what to cache, as GPT-5.6 and later want it), "anthropic", "off"; default "auto", by the model.
    Chat models only."""
    prices: Prices | None
    """US dollars for a million tokens by model, such as `{"my-model": {"input": 0.4, "cached": 0.1, "output": 1.6}}`;
    default those that the extra `prices` knows."""
    rate_limit: RateLimit | None
    """How fast paid calls are made, and how often one is retried after a transient failure; default `RateLimit()`: no
    limit, and up to six attempts. `RateLimit(max_attempts=1)` retries nothing."""
    journal: Journal | None
    """Where paid replies are kept; default in the graph's store, else beside the checkpoints."""
    # settings; each can be overridden for one run by `context=`
    warmup: int
    """The first rounds that see no history."""
    label: str
    """The word ahead of a reward in the prompt."""
    target: float | None
    """Stop when a reward reaches this."""
    patience: int | None
    """Stop after so many rounds without a better reward."""
    retests: int
    """Judge the three leading attempts so many times more before one is chosen: for rewards that are noisy."""
    max_failures: int
    """Stop after so many rounds in a row without any response."""
    max_calls: int | None
    """Stop before a paid call would pass this."""
    max_tokens: int | None
    """Start no call once so many tokens, in and out, are spent."""
    max_usd: float | None
    """Start no call once so many US dollars are spent. Needs the prices of the models."""
    max_seconds: float | None
    """Start no call once so many seconds are spent waiting."""
    seed: int | None
    """Makes ablations repeatable, and samples, if the model takes a seed."""


@dataclass(frozen=True)
class Assembled:
    """What a topology wires: all of its arguments, checked."""

    metric: BoundEvaluator | None
    parts: Parts
    bounds: tuple[float, float] | None
    timeout: float | None


def assemble(
    base: type[RunSettings],
    model: Any,
    evaluator: Evaluator,
    metric: Evaluator | None,
    defaults: dict[str, Any],
    options: Options,
    shows: Shows = ("response", "shown"),
    **others: Any,
) -> Assembled:
    """Check all arguments of a topology and sort them into parts and settings.

    Args:
        base: the settings of this kind of graph.
        model: who answers.
        evaluator: who gives the reward.
        metric: who gives what is reported, or None.
        defaults: the topology's own settings.
        options: all the others.
        shows: what of each attempt a prompt shows.
        others: further parts, such as a reflector, by the names under which a run keeps them.

    Raises:
        ValueError: an argument is wrong; the message names it, its value and the choices.
    """
    given, settable = _sort(options, base, defaults)
    policy = as_policy(model, given.get("cache") or "auto")
    scorer, measured = bind_evaluator(evaluator), None if metric is None else bind_evaluator(metric, "metric")
    pieces = {
        name: part for name, part in {"evaluator": scorer, "metric": measured, **others}.items() if part is not None
    }
    names = {name: part if isinstance(part, str) else name_of_part(part) for name, part in pieces.items()}
    named = {"model": model} if isinstance(model, str) else {}
    schema = settings.schema(base, {**named, **defaults, **settable}, {"model": name_of_part(policy.part), **names})
    asked = [part.models if isinstance(part, BoundEvaluator) else (part,) for part in pieces.values()]
    speaker, models = policy.responder, chat_models(*chain.from_iterable(asked))
    if schema.model_fields["max_usd"].default is not None:
        for name in dict.fromkeys((*chat_models(speaker.part), *models)):
            check_price(name, given.get("prices") or {})
    sampling = given.get("sampling") or {}
    if sampling and speaker.kind != "chat":
        raise ValueError("sampling parameters are passed to chat models only; the model given is none")
    if policy.kind != "chat" and given.get("cache") not in (None, "auto", "off"):
        told = "tell it to rollout(cache=...)" if policy.actor else "the model given is none"
        raise ValueError(f"cache={given['cache']!r} is for chat models only; {told}")
    answering, extract = _structured(policy, given.get("extract"), sampling)
    system = [{"role": "system", "content": given["system"]}] if given.get("system") else []
    parts = Parts(
        schema=schema,
        driver=Driver(given.get("journal"), given.get("prices"), given.get("rate_limit")),
        policy=answering,
        plain=speaker,
        evaluator=scorer,
        shows=shows,
        instructions={**INSTRUCTIONS, **(given.get("instructions") or {})},
        preamble=[*system, *convert_to_openai_messages(list(given.get("examples") or []))],
        sampling=sampling,
        extract=extract,
        complete=given.get("inputs"),
        models=models,
    )
    return Assembled(measured, parts, given.get("bounds"), given.get("timeout"))


def _sort(
    options: Options, base: type[RunSettings], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts among the options, checked, and the rest, which are settings."""
    settable: dict[str, Any] = dict(options)
    parts = {name: settable.pop(name) for name in _CHECKS if name in settable}
    choices = [*defaults, *_CHECKS, *(name for name in base.model_fields if name not in defaults)]
    if unknown := settable.keys() - set(choices):
        raise ValueError(f"unknown argument {', '.join(map(repr, sorted(unknown)))}; choose among {', '.join(choices)}")
    for name, value in parts.items():
        valid, form = _CHECKS[name]
        if value is not None and not valid(value):
            raise ValueError(f"{name} is {form}, got {value!r:.80}")
    return parts, settable


def _structured(policy: Policy, extract: Any, sampling: Any) -> tuple[Policy, Any]:
    """The policy and the extract function; a pydantic model as extract asks the policy for structured output."""
    if not (isinstance(extract, type) and issubclass(extract, BaseModel)):
        return policy, extract
    if not isinstance(policy.part, BaseChatModel) or sampling:
        raise ValueError("structured output is asked of a chat model, without sampling parameters per instruction")
    return policy.structured(extract), None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_bounds(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _are_messages(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(
        isinstance(m, BaseMessage) or (isinstance(m, Mapping) and {"role", "content"} <= m.keys()) for m in value
    )


def _maps_names_to(kind: type) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        return all(isinstance(name, str) and isinstance(held, kind) for name, held in value.items())

    return check


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bounds": (_are_bounds, "(lowest, highest) reward, two numbers"),
    "timeout": (lambda value: _is_number(value) and value > 0, "a time in seconds, above 0"),
    "system": (lambda value: isinstance(value, str), "a text"),
    "examples": (_are_messages, "chat messages, each with role and content"),
    "instructions": (_maps_names_to(str), "texts by name, such as {'explore': 'Try something else.'}"),
    "sampling": (
        _maps_names_to(Mapping),
        "parameters by instruction or 'default', such as {'explore': {'temperature': 1.2}}",
    ),
    "inputs": (callable, "a function of the input and a random generator"),
    "extract": (callable, "a function or a pydantic model"),
    "cache": (lambda value: value in caching.CHOICES, f"one of {', '.join(map(repr, caching.CHOICES))}"),
    "prices": (are_prices, "US dollars for a million tokens by model, such as {'my-model': {'input': 1, 'output': 4}}"),
    "rate_limit": (
        lambda value: isinstance(value, RateLimit),
        "a RateLimit, such as RateLimit(requests_per_minute=60)",
    ),
    "journal": (lambda value: isinstance(value, Journal), "a Journal, such as SqliteJournal(path)"),
}
"""The parts among the options: whether one is well formed, and what it should be."""
