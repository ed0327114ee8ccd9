"""What every topology takes beside its own arguments; all of it is checked and sorted into parts and settings here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
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
from icrl_graph.models.registry import load_model
from icrl_graph.models.sampling import check_sampling
from icrl_graph.models.structured import is_of_openai
from icrl_graph.prompts.feedback import check_limits
from icrl_graph.prompts.memory import Memory
from icrl_graph.prompts.plan import Schedule, Spread
from icrl_graph.prompts.templates import INSTRUCTIONS
from icrl_graph.state.checks import check_function, is_number
from icrl_graph.state.choices import find, name_of_part
from icrl_graph.state.episode import Message
from icrl_graph.state.events import Emit
from icrl_graph.state.fingerprint import fingerprint, fingerprint_of_value
from icrl_graph.state.reward import OnError, check_on_error, check_target
from icrl_graph.state.stop_rules import StopRule, check_stops
from icrl_graph.state.unicode import cleaned
from icrl_graph.tasks.mathematics.answers import canonical_answer
from icrl_graph.topologies import settings
from icrl_graph.topologies.nodes.parts import Parts
from icrl_graph.topologies.settings import MAIN, SWITCH, RunSettings
from icrl_graph.topologies.switching import check_switch


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
    """Texts for "explore", "exploit", "autonomous" or names that a custom schedule gives; with a shipped one, other
    names are refused."""
    sampling: Mapping[str, Mapping[str, Any]]
    """Sampling parameters per instruction: `{"explore": {"temperature": 1.2}, "default": {...}}`. Chat models only; one
    that the model does not know is refused."""
    max_response_tokens: int | None
    """Tokens of each response at most, reflections included. Chat models only; functions do not see it."""
    inputs: Callable[[Mapping[str, Any], Random], Mapping[str, Any]] | None
    """Completes a run's input: called with `task` and `task_data` (None and {} where they are missing) and a random
    generator of the run's own; gives those that are to be replaced."""
    extract: Callable[[str], Any] | type[BaseModel] | str | None
    """Makes the answer of a response, in JSON-able values; a pydantic model instead asks for structured output. May be
    named, as "path.py:name" or "mathematics" (of `icrl_graph.tasks.mathematics`: equal numbers are equal answers)."""
    cache: str | None
    """How the model's provider learns what of a prompt to cache: "openai" (which requests belong together),
    "openai-marks" (also what to cache, as GPT-5.6 and later want it), "anthropic", "off"; default "auto", by the model.
    Chat models only."""
    prices: Prices | None
    """US dollars for a million tokens by model, such as `{"my-model": {"input": 0.4, "cached": 0.1, "output": 1.6}}`;
    default those that the extra `prices` knows."""
    rate_limit: RateLimit | None
    """How fast paid calls are made, and how often one is retried after a transient failure; default `RateLimit()`: no
    limit, and up to six attempts. `RateLimit(max_attempts=1)` retries nothing."""
    journal: Journal | None
    """Where paid replies are saved; default in the graph's store, else beside the checkpoints."""
    watch: Emit | Sequence[Emit]
    """A function, or several, called with each event of a run (`icrl_graph.state.events`), wherever the graph runs:
    for trackers and user interfaces. It must not block; what it raises is logged, and ends nothing."""
    end_on: Sequence[type[Exception]]
    """Errors of the model or the evaluator that end the run, as they are, where others are data on the attempt: such
    as another library's limit. Its attempts stay saved, and it can be resumed. They are still retried if transient."""
    # settings; each can be overridden for one run by `context=`
    width: int
    """Attempts a round, side by side: all see the rounds before, none sees the others; default 1."""
    spread: str | Spread
    """What the attempts of a round after its first are asked for: "same" (the default), "explore", "differ" (each is
    told to go another way, by its number), or a function of the round's instruction, its own number and the width."""
    warmup: int
    """Number of first rounds that see no history."""
    reward_label: str
    """The word before a reward in the prompt."""
    target: float | None
    """Stop when a reward reaches this."""
    patience: int | None
    """Stop after this many rounds without a better reward."""
    stop: str | StopRule | None
    """Stop once another attempt is not worth its price: "gain:PRICE", the reward that one paid call must be expected to
    gain (see `icrl_graph.state.stop_rules`; needs `target` or `bounds`), or a function."""
    confirmations: int | None
    """For noisy verifiers: an attempt whose reward reaches the target is judged again until this many passes in a row
    have reached it, or one has not. The lowest is its reward, so that the run stops on success only when confirmed."""
    on_error: OnError | None
    """The reward of an attempt on which its evaluator, metric or selector raises, such as 0, or "unscored"; the model
    reads what was raised. Default None: unscored, and the model reads nothing of it. The failure of a judge's model or
    provider is always unscored."""
    retests: int
    """Times that the three best attempts are judged again, for noisy rewards: half chooses, the rest is reported."""
    reasoning_tags: str | None
    """How the model marks reasoning within its replies, which is split off: "<plan>...</plan>", with commas between
    several, or "off". Default "auto": `<think>` and the other ways that are known."""
    max_failures: int
    """Stop after this many rounds in a row whose calls have failed."""
    max_evaluator_failures: int | None
    """Stop after this many attempts in a row that the evaluator has failed to judge, while none is scored yet; 0 or
    None: never. One that has a reward by `on_error`, or whose exception the model reads, is none of them."""
    feedback_limit: int | None
    """Tokens of an attempt's feedback in a prompt, about: longer feedback is cut in the middle, with a mark. The whole
    of it stays with the attempt."""
    latest_feedback_limit: int | None
    """The same for the latest round; default None: whole. If both are the same, prompts only grow."""
    switch_after: int | None
    """Switch after this many rounds without a better reward, to one or more of the next three, for the rest of the run;
    `patience` begins anew then."""
    switch_model: Any
    """The model to switch to, given as the first one is: a cheap model first, a strong one where that is stuck."""
    switch_memory: str | Memory | None
    """The memory to switch to."""
    switch_schedule: str | Schedule | None
    """The schedule to switch to."""
    max_calls: int | None
    """Budget of paid calls: stop before one would pass it."""
    max_tokens: int | None
    """Budget of tokens, in and out: start no call once it is spent."""
    max_usd: float | None
    """Budget of US dollars: start no call once it is spent. Needs the prices of the models."""
    max_seconds: float | None
    """Budget of seconds: start no call once it is spent waiting, and give up on one in flight."""
    seed: int | None
    """Makes ablations repeatable, and samples, if the model takes a seed."""


def at_temperature(temperature: float | None) -> dict[str, Any]:
    """The option that gives every call of the model a temperature; none for None.

    Raises:
        ValueError: it is below 0 or not finite.
    """
    if temperature is None:
        return {}
    if not (is_number(temperature) and 0 <= temperature < math.inf):
        raise ValueError(f"temperature must be 0 or more, got {temperature!r:.80}")
    return {"sampling": {"default": {"temperature": temperature}}}


def assemble(
    base: type[RunSettings],
    models: Mapping[str, Any],
    evaluator: Evaluator,
    metric: Evaluator | None,
    options: Mapping[str, Any],
    others: Mapping[str, Any],
    **fixed: Any,
) -> Parts:
    """Check all arguments of a topology and sort them into parts and settings.

    Args:
        base: the settings of this kind of graph.
        models: the models that answer, by name; "model" is the main one.
        evaluator: gives the reward.
        metric: gives what is reported, or None.
        options: see `Options`, and the defaults of the settings.
        others: further parts, such as a reflector, by the names under which a run saves them.
        fixed: fields of `Parts` that the topology sets.

    Raises:
        ValueError: an argument is wrong; the message names it, its value and the choices.
    """
    chosen, defaults = _sort(options, base)
    if (second := defaults.get(SWITCH)) is not None:
        models = {**models, SWITCH: second}
        defaults = {name: value for name, value in defaults.items() if name != SWITCH or isinstance(value, str)}
    cache = chosen.get("cache") or "auto"
    named_models = {
        name: load_model(model, role=name) if isinstance(model, str) else model for name, model in models.items()
    }
    policies = {name: as_policy(model, cache) for name, model in named_models.items()}
    policy, model = policies[MAIN], models[MAIN]
    bound, measured = bind_evaluator(evaluator), None if metric is None else bind_evaluator(metric, "metric")
    further = {"evaluator": bound, "metric": measured, **others}
    parts = {name: part for name, part in further.items() if part is not None}
    names = {name: name_of_part(each.part) for name, each in policies.items()}
    names |= {name: part if isinstance(part, str) else name_of_part(part) for name, part in parts.items()}
    named = {"model": model} if isinstance(model, str) else {}
    schema = settings.schema(base, {**named, **defaults}, names, list(policies))
    models_of = [part.models if isinstance(part, BoundEvaluator) else (part,) for part in parts.values()]
    schema.options = {
        name: fingerprint_of_value(chosen[name]) for name in _FINGERPRINTED if chosen.get(name) is not None
    }
    code_of = {name: each.responder.part for name, each in policies.items()} | parts
    code_of |= {kind: list(functions.values()) for kind, functions in schema.custom.items()}
    schema.code = {name: code for name, part in code_of.items() if (code := fingerprint(part)) is not None}
    responders, judges = [each.responder for each in policies.values()], chat_models(*chain.from_iterable(models_of))
    if schema.model_fields["max_usd"].default is not None:
        for name in dict.fromkeys((*chat_models(*(each.part for each in responders)), *judges)):
            check_price(name, chosen.get("prices") or {})
    check_on_error(
        schema.model_fields["on_error"].default if bound.on_error is None else bound.on_error, chosen.get("bounds")
    )
    values = schema().model_dump()
    check_target(values.get("target"), chosen.get("bounds"))
    check_stops(values.get("stop"), values.get("confirmations"), values.get("target"), chosen.get("bounds"))
    check_limits(values.get("feedback_limit"), values.get("latest_feedback_limit"))
    check_switch(values, SWITCH in policies)
    settings.check_drawn(values, schema.custom)
    sampling, tokens = chosen.get("sampling") or {}, chosen.get("max_response_tokens")
    limit = {} if tokens is None else {"max_tokens": tokens}  # LangChain's name of it
    if any(each.kind != "chat" for each in responders):
        if sampling:
            raise ValueError("sampling parameters are passed to chat models only; the model is not a chat model")
        if limit:
            raise ValueError("max_response_tokens is for chat models only; the model is not a chat model")
    for each in responders if sampling else ():
        check_sampling(each.part, {name for given in sampling.values() for name in given})
    if policy.kind != "chat" and chosen.get("cache") not in (None, "auto", "off"):
        remedy = "give it to rollout(cache=...)" if policy.actor else "the model is not a chat model"
        raise ValueError(f"cache={chosen['cache']!r} is for chat models only; {remedy}")
    plain_switch = policies[SWITCH].responder if SWITCH in policies else None
    if plain_switch is not None and policy.actor is not None and policies[SWITCH].actor is None:
        policies[SWITCH] = policy.with_model(plain_switch)  # it acts in the same episodes
    extract, watch = chosen.get("extract"), chosen.get("watch")
    if isinstance(extract, type) and issubclass(extract, BaseModel):
        policies = {name: _structured(each, extract, sampling, limit) for name, each in policies.items()}
        extract = None
    system = [{"role": "system", "content": chosen["system"]}] if chosen.get("system") else []
    preamble = [*system, *convert_to_openai_messages(list(chosen.get("examples") or []))]
    return Parts(
        schema=schema,
        driver=Driver(
            chosen.get("journal"), chosen.get("prices"), chosen.get("rate_limit"), tuple(chosen.get("end_on") or ())
        ),
        policies=policies,
        plain=policy.responder,
        plain_switch=plain_switch,
        evaluator=bound,
        metric=measured,
        bounds=chosen.get("bounds"),
        timeout=chosen.get("timeout"),
        instructions=cleaned({**INSTRUCTIONS, **(chosen.get("instructions") or {})}),
        preamble=cleaned(preamble),
        sampling={**sampling, "default": {**limit, **sampling.get("default", {})}} if limit else sampling,
        extract=extract,
        complete=chosen.get("inputs"),
        watch=[watch] if callable(watch) else tuple(watch or ()),
        models=judges,
        **fixed,
    )


_FINGERPRINTED = (
    *("bounds", "system", "examples", "instructions", "sampling", "max_response_tokens", "inputs", "extract"),
)
"""The options that a saved run is known by."""


def _sort(options: Mapping[str, Any], base: type[RunSettings]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts among the options, checked, and the rest, which are settings."""
    parts = {name: options[name] for name in _CHECKS if name in options}
    if isinstance(parts.get("extract"), str):
        parts["extract"] = find("extractor", parts["extract"], EXTRACTORS)
    defaults = {name: value for name, value in options.items() if name not in parts}
    first = [name for name in base.model_fields if name not in RunSettings.model_fields]
    choices = dict.fromkeys((*first, *_CHECKS, *base.model_fields))
    if unknown := defaults.keys() - choices.keys():
        raise ValueError(f"unknown argument {', '.join(map(repr, sorted(unknown)))}; choose among {', '.join(choices)}")
    check_function("inputs", parts.get("inputs"), "inputs", "random")
    for name, value in parts.items():
        valid, form = _CHECKS[name]
        if value is not None and not valid(value):
            raise ValueError(f"{name} is {form}, got {value!r:.80}")
    return parts, defaults


def _structured(policy: Policy, form: type[BaseModel], sampling: Any, limit: Any) -> Policy:
    """The policy, with structured output."""
    if not isinstance(policy.part, BaseChatModel) or sampling:
        raise ValueError("structured output is asked of a chat model, without sampling parameters per instruction")
    if limit and not is_of_openai(policy.part):
        raise ValueError("for structured output of this provider, set max_response_tokens as an option of the model")
    try:
        return policy.structured(form)
    except NotImplementedError:
        reason = f"{name_of_part(policy.part)} gives no structured output"
        raise ValueError(f"extract={form.__name__}: {reason}; give a function of its response") from None


def _are_bounds(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def _are_messages(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(
        isinstance(m, BaseMessage) or (isinstance(m, Mapping) and {"role", "content"} <= m.keys()) for m in value
    )


def _watches(value: Any) -> bool:
    return all(map(_is_plain_function, [value] if callable(value) or not isinstance(value, Sequence) else value))


def _is_plain_function(value: Any) -> bool:
    return callable(value) and not inspect.iscoroutinefunction(value)


def _are_errors(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(isinstance(each, type) and issubclass(each, Exception) for each in value)


def _maps_names_to(kind: type) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        return all(isinstance(name, str) and isinstance(held, kind) for name, held in value.items())

    return check


EXTRACTORS: Mapping[str, Callable[[str], Any]] = {"mathematics": canonical_answer}
"""By name, what makes an answer of a response."""


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bounds": (_are_bounds, "(lowest, highest) reward, two numbers"),
    "timeout": (lambda value: is_number(value) and value > 0, "a time in seconds, above 0"),
    "system": (lambda value: isinstance(value, str), "a text"),
    "examples": (_are_messages, "chat messages, each with role and content"),
    "instructions": (_maps_names_to(str), "texts by name, such as {'explore': 'Try something else.'}"),
    "sampling": (
        _maps_names_to(Mapping),
        "parameters by instruction or 'default', such as {'explore': {'temperature': 1.2}}",
    ),
    "max_response_tokens": (lambda value: type(value) is int and value >= 1, "a number of tokens, 1 or more"),
    "inputs": (callable, "a function of the input and a random generator"),
    "extract": (callable, "a function or a pydantic model"),
    "cache": (lambda value: value in caching.CHOICES, f"one of {', '.join(map(repr, caching.CHOICES))}"),
    "prices": (are_prices, "US dollars for a million tokens by model, such as {'my-model': {'input': 1, 'output': 4}}"),
    "rate_limit": (
        lambda value: isinstance(value, RateLimit),
        "a RateLimit, such as RateLimit(requests_per_minute=60)",
    ),
    "journal": (lambda value: isinstance(value, Journal), "a Journal, such as SqliteJournal(path)"),
    "watch": (_watches, "a plain function of an event, or several"),
    "end_on": (_are_errors, "classes of errors, each an Exception, such as [MyLimitError]"),
}
"""The parts among the options: whether one is well formed, and what it should be."""
