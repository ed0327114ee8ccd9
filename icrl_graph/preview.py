"""What a run will cost, before anything is paid.

It is rehearsed: the real graph is run with stand-ins for the models, which say so many words and report so many tokens.
So every prompt has its real length, whatever the method, the memory and the layout make of it, and every call goes
through the same ledger, at the same prices, as it will be. The run is taken to use all its rounds, and no judge
to be asked twice; what a provider's prompt cache will save is not known ahead, and not deducted.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import single
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.policy import as_policy, name_of_part, unbound
from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Message, Usage
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.methods import build

CHARACTERS = 4
"""Of a token, about, in English."""
WORD = "word "


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
    """What `improve` would spend with the same arguments, about.

    Args:
        task: as for `improve`, and so are the others.
        score: gives the reward.
        model: who answers.
        topology: a name.
        task_data: for the score only.
        response_tokens: of an answer, a reflection or a judgement.
        options: what the function of the topology takes.

    Returns:
        Calls and, where a model is paid by them, tokens and dollars; of episodes of many turns only the calls, as many
        as they may have, for how long their prompts will be is not known ahead.

    Raises:
        ValueError: an argument is wrong.
    """
    build(topology, model, score, **options)
    policy = as_policy(model)
    judging = (score, options.pop("metric", None), options.pop("select", None))
    scorers = [bind_evaluator(part) for part in judging if part is not None and not isinstance(part, str)]
    for name in (
        "target",
        "patience",
        "extract",
        "bounds",
        "journal",
        "rate_limit",
    ):  # these may end it early, or are slow
        options.pop(name, None)
    for name in ("reflector", "critic"):
        if options.get(name) is not None:
            options[name] = _stand_in(options[name], response_tokens)
    player = FunctionModel(reply=lambda: WORD) if policy.kind == "rollout" else _stand_in(model, response_tokens)
    graph = build(topology, player, _judge(scorers, response_tokens), **options)
    inputs: Any = {"task": task, "task_data": dict(task_data or {})}
    spent: dict[str, Any] = graph.compile().invoke(inputs, {"recursion_limit": 1_000_000})["usage"]
    if policy.kind == "rollout":  # how long the prompts of its turns are is not known ahead
        told = graph.settings().model_dump()
        return Usage(calls=spent["calls"] + told.get("n", told.get("rounds", 1)) * (policy.calls - 1))
    return cast(Usage, {name: amount for name, amount in spent.items() if name != "seconds"})


def _judge(scorers: Sequence[BoundEvaluator], response_tokens: int) -> Evaluator:
    """An evaluator that pays for as many calls as these do, and finds nothing out."""
    asked = [judge for scorer in scorers for judge in _judges(scorer, response_tokens)]

    def judge(task: Any, response: str) -> Generator[Any, Any, Reward]:
        said = f"{text_of(task)}{response}"
        yield [single(Call(part, [{"role": "user", "content": frame + said}], lambda raw: "")) for part, frame in asked]
        return Reward(value=0.5)

    judge.calls = len(asked)  # type: ignore[attr-defined]
    return judge if asked else lambda: 0.5


def _judges(scorer: BoundEvaluator, response_tokens: int) -> list[tuple[FunctionModel, str]]:
    """For each of its calls a stand-in, and what it is asked beside the task and the answer."""
    models = [_stand_in(model, response_tokens) for model in getattr(scorer.part, "judges", ())]
    models = models or [FunctionModel(reply=lambda: "")]
    frame = getattr(scorer.part, "frame", "")
    return [(models[at % len(models)], frame) for at in range(scorer.calls)]


def _stand_in(model: Any, response_tokens: int) -> FunctionModel:
    """A model that says so many words, and reports tokens under the name of another one, where that is a paid one."""
    part = unbound(as_policy(model).part)
    free = isinstance(part, FunctionModel)

    def reply(messages: list[Message]) -> AIMessage:
        said = AIMessage(WORD * response_tokens)
        if not free:
            read = sum(len(text_of([message])) for message in messages) // CHARACTERS
            total = read + response_tokens
            said.usage_metadata = UsageMetadata(input_tokens=read, output_tokens=response_tokens, total_tokens=total)
            said.response_metadata = {"model_name": name_of_part(part)}
        return said

    return FunctionModel(reply=reply, label=name_of_part(part))
