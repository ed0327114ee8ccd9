"""What a run will cost, before anything is paid.

The run is rehearsed: the real graph is run with stand-ins for the models, which answer with so many words and report so
many tokens. So every prompt has its real length, whatever the method, the memory and the layout make of it, and every
call is counted at the same prices as in the run itself. The run is taken to use all its rounds, and no judge to be
asked twice; what a provider's prompt cache will save is not known ahead, and not deducted. What is written into a cache
that charges for it is counted: of each prompt, what the one before did not hold.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from os.path import commonprefix
from threading import Lock
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import MIN_CACHED_CHARACTERS, single
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.policy import as_policy
from icrl_graph.models.registry import load_model
from icrl_graph.prompts.text import CHARACTERS, text_of
from icrl_graph.state.choices import name_of_part, unbound
from icrl_graph.state.episode import Message, Usage
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.methods import build
from icrl_graph.topologies.programs import ForeignGraph
from icrl_graph.topologies.settings import EARLY_STOPS, MAIN, SWITCH

WORD = "word "
_NOT_REHEARSED = (*EARLY_STOPS, "extract", "bounds", "journal", "rate_limit", "sampling")
"""Options that may end a run early, read what a stand-in has not written, take time, or are for the model alone."""


def preview(
    task: str | Sequence[Message],
    score: Evaluator,
    *,
    model: Any,
    topology: str = "icrl",
    task_data: Mapping[str, Any] | None = None,
    response_tokens: int = 300,
    **options: Any,
) -> Usage:
    """An estimate of what `improve` would spend with the same arguments.

    Args:
        task: as for `improve`, and so are the others.
        score: the evaluator.
        model: the model that answers.
        topology: a name.
        task_data: for the evaluator only.
        response_tokens: of an answer, a reflection or a judgement.
        options: the arguments of the topology's function.

    Returns:
        Calls and, for models that are priced by tokens, tokens and US dollars. Of episodes of many turns, and of
        programs of other libraries, only the calls, as many as they may have: how long their prompts will be is not
        known ahead.

    Raises:
        ValueError: an argument is wrong.
    """
    built = build(topology, model, score, **options)
    if isinstance(built, ForeignGraph):
        return Usage(calls=built.most_calls())
    rehearsed = {name: option for name, option in options.items() if name not in _NOT_REHEARSED}
    for name in ("metric", "select"):
        option = rehearsed.get(name)
        if option is not None and not (name == "select" and isinstance(option, str)):  # a way to select without calls
            rehearsed[name] = stand_in(option, response_tokens)
    for name in ("reflector", "critic"):
        if (option := rehearsed.get(name)) is not None:
            rehearsed[name] = _model(option, response_tokens)
    policy = as_policy(model)
    cache = None if isinstance(options.get("extract"), type) else options.get("cache") or "auto"
    answer_tokens = min(response_tokens, options.get("max_response_tokens") or response_tokens)
    if (second := rehearsed.get(SWITCH)) is not None:
        rehearsed[SWITCH] = _model(load_model(second) if isinstance(second, str) else second, answer_tokens, cache)
    answering = FunctionModel(reply=lambda: WORD) if policy.kind == "rollout" else _model(model, answer_tokens, cache)
    graph = build(topology, answering, stand_in(score, response_tokens), **rehearsed)
    for name, further in graph.parts.policies.items():
        if name not in (MAIN, SWITCH):
            graph.parts.policies[name] = as_policy(_model(further.responder.part, answer_tokens, cache))
    inputs: Any = {"task": task, "task_data": dict(task_data or {})}
    usage: dict[str, Any] = graph.compile().invoke(inputs, {"recursion_limit": 1_000_000})["usage"]
    if policy.kind == "rollout":  # how long the prompts of its turns are is not known ahead
        settings = graph.settings().model_dump()
        attempts = settings.get("n") or settings.get("rounds", 1) * settings.get("width", 1)
        return Usage(calls=usage["calls"] + attempts * (policy.calls - 1))
    return cast(Usage, {name: amount for name, amount in usage.items() if name != "seconds"})


def stand_in(evaluator: Evaluator, response_tokens: int) -> BoundEvaluator:
    """An evaluator that makes as many calls as another one, as long as its, for a reward that means nothing."""
    bound = bind_evaluator(evaluator)
    models = [_model(model, response_tokens) for model in bound.models] or [FunctionModel(reply=lambda: "")]

    def judge(task: Any, response: str) -> Generator[Any, Any, Reward]:
        prompt = [{"role": "user", "content": f"{bound.frame}{text_of(task)}{response}"}]
        yield [single(Call(models[at % len(models)], prompt, lambda raw: "")) for at in range(bound.calls)]
        return Reward(value=0.5)

    return replace(bind_evaluator(judge), calls=bound.calls)


def _model(model: Any, response_tokens: int, cache: str | None = None) -> FunctionModel:
    """A model that answers with so many words, and reports tokens under the name of another one, if that is priced.

    Args:
        model: the other one.
        response_tokens: of each answer.
        cache: the option by which its prompts are marked for its provider's cache; None where they carry no marks.
    """
    policy = as_policy(model, cache or "auto")
    part = unbound(policy.part)
    free = isinstance(part, FunctionModel)
    writes = policy.cache.writes == "all" or (policy.cache.writes == "marked" and cache is not None)
    before, lock = "", Lock()

    def written(prompt: str) -> int:
        """The tokens of a prompt that the one before did not hold; providers cache no short ones."""
        nonlocal before
        with lock:
            known, before = len(commonprefix([before, prompt])), prompt  # noqa: RUF071 - these are no paths
        return (len(prompt) - known) // CHARACTERS if writes and len(prompt) >= MIN_CACHED_CHARACTERS else 0

    def reply(messages: list[Message]) -> AIMessage:
        answer = AIMessage(WORD * response_tokens)
        if not free:
            read = sum(len(text_of([message])) for message in messages) // CHARACTERS
            total = read + response_tokens
            answer.usage_metadata = UsageMetadata(input_tokens=read, output_tokens=response_tokens, total_tokens=total)
            if new := written("".join(text_of([message]) for message in messages)):
                answer.usage_metadata["input_token_details"] = {"cache_creation": new}
            answer.response_metadata = {"model_name": name_of_part(part)}
        return answer

    return FunctionModel(reply=reply, name=name_of_part(part))
