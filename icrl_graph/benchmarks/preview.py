"""What a comparison will cost, before anything is paid.

Each arm is rehearsed: its real graph is run on one of the tasks with stand-ins for the models, which say so many words
and report so many tokens. So every prompt has its real length, whatever the method, the memory and the layout make of
it, and every call goes through the same ledger, at the same prices, as it will be. Runs are taken to use all their
rounds; what a provider's prompt cache will save is not known ahead, and not deducted.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from icrl_graph.benchmarks.runner import Comparison
from icrl_graph.calls import Call
from icrl_graph.context import text_of
from icrl_graph.improvement import build
from icrl_graph.journal import one
from icrl_graph.models import FunctionModel, as_policy, name_of_part, unbound
from icrl_graph.prompts import JUDGE
from icrl_graph.rewards import Reward, as_scorer
from icrl_graph.state import Message, Usage

CHARACTERS = 4
"""Of a token, about, in English."""
WORD = "word "


def preview(comparison: Comparison, response_tokens: int = 300) -> dict[str, Usage]:
    """What all runs of each arm will cost at most, about.

    Args:
        comparison: what is to be run.
        response_tokens: of an answer, a reflection or a judgement.

    Returns:
        By arm: calls and, where the model is paid by them, tokens and dollars.
    """
    runs = len(comparison.items()) * comparison.plan.seeds
    return {arm: _times(_rehearse(comparison, arm, response_tokens), runs) for arm in comparison.arms}


def _times(usage: Any, runs: int) -> Usage:
    total: Any = {name: amount * runs for name, amount in usage.items() if name != "seconds"}
    return cast(Usage, total)


def _rehearse(comparison: Comparison, arm: str, response_tokens: int) -> Usage:
    """What one run costs."""
    scorer = as_scorer(comparison.evaluator)
    judges = [_stand_in(judge, response_tokens) for judge in getattr(scorer.part, "judges", ())] or [
        FunctionModel(reply=lambda: "")
    ]
    asked = [judges[number % len(judges)] for number in range(scorer.calls)]

    def judge(task: Any, response: str) -> Generator[Any, Any, Reward]:
        question = [{"role": "user", "content": f"{JUDGE}{text_of(task)}{response}"}]
        yield [one(Call(judge, question, lambda raw: "")) for judge in asked]
        return Reward(value=0.5)

    judge.calls = len(asked)  # type: ignore[attr-defined]
    given = {**comparison.arguments(arm), "metric": None}
    model = _stand_in(as_policy(given.pop("model")).part, response_tokens)
    for name in ("target", "patience", "select"):  # these might end it early, or ask others
        given.pop(name, None)
    graph = build(model=model, evaluator=judge if asked else lambda: 0.5, **given).compile()
    inputs: Any = comparison.benchmark.read(comparison.items()[0])
    usage: Usage = graph.invoke(inputs, {"recursion_limit": 1_000_000})["usage"]
    return usage


def _stand_in(model: Any, response_tokens: int) -> FunctionModel:
    """A model that says so many words, and reports tokens under the name of another one, where that is a paid one."""
    part = unbound(model)
    free = isinstance(part, FunctionModel)

    def reply(messages: list[Message]) -> AIMessage:
        said = AIMessage(WORD * response_tokens)
        if not free:
            read = sum(len(str(message["content"])) for message in messages) // CHARACTERS
            said.usage_metadata = UsageMetadata(
                input_tokens=read, output_tokens=response_tokens, total_tokens=read + response_tokens
            )
            said.response_metadata = {"model_name": name_of_part(part)}
        return said

    return FunctionModel(reply=reply, label=name_of_part(part))
