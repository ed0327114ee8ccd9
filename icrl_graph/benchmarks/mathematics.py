"""Competition mathematics as benchmarks: the problems of arXiv 2506.06303, of other competitions, or of any data set.

The problems of MathArena (https://matharena.ai) are read from Hugging Face's hub, and not shipped: they are licensed
CC BY-NC-SA 4.0. Protocol of the paper: 40 rounds, of which the first 2 see no others.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from icrl_graph.benchmarks.benchmark import Benchmark, Inputs, from_data
from icrl_graph.benchmarks.datasets import HUB, Fields, split_name
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.likelihood import likelihood_judge
from icrl_graph.evaluators.mathematics import check_targets, exact, verify
from icrl_graph.execution.calls import Call
from icrl_graph.prompts.templates import MATHEMATICS_RUBRIC
from icrl_graph.state.reward import Reward, as_reward
from icrl_graph.tasks.mathematics import problems
from icrl_graph.tasks.mathematics.answers import canonical, read_answer, read_targets

PAPER_ROUNDS, PAPER_WARMUP = 40, 2
FIELDS: Fields = MappingProxyType({"task": "problem", "target": "answer", "id": "problem_idx"})
"""The columns of MathArena's data sets."""
EXTRACT = "mathematics"
"""The option by which equal answers count together, as for `select=majority`."""


def judge_mathematics(model: Any) -> BoundEvaluator:
    """The reward of arXiv 2506.06303: 1 for the very answer, else p(YES) of a judge that sees the right one.

    The metric is exact, from the verifier. In the paper it is the reward itself, above .9.

    Args:
        model: the model that judges, or several; chat models that give log-probabilities.
    """
    inner = likelihood_judge(model, MATHEMATICS_RUBRIC, reference="target")

    def judge(task: Any, response: str, task_data: Mapping[str, Any]) -> Generator[Any, Any, Reward]:
        arguments = {"response": response, "task_data": task_data}
        exact = (yield Call(verify, arguments, as_reward, paid=False)).value
        answer = read_answer(response)
        is_same = answer is not None and canonical(answer) in map(canonical, read_targets(task_data))
        if is_same:
            return Reward(value=1.0, metric=exact["value"])
        reward: Reward = yield from inner(task=task, response=response, task_data=task_data)
        return {**reward, "metric": exact["value"]}

    name = f"judged_mathematics({inner.name})"
    return replace(inner, part=judge, names=("task", "response", "task_data"), name=name, check=check_targets)


def math_benchmark(
    source: str, fields: Fields = FIELDS, *, about: str | None = None, items: Sequence[str] | None = None
) -> Benchmark:
    """Problems of a data set with their right answers as a benchmark; these are checked before anything is paid.

    Its tasks say how to give the answer (`<answer>...</answer>`), which is read as `icrl_graph.tasks.mathematics` does.

    Args:
        source: a file or a data set of the hub, such as "hf:MathArena/cmimc_2025" or "mine.csv"; its fields may stand
            behind it, as in "mine.csv?task=question,target=solution".
        fields: from which columns the problem (task), the right answer or a list of several (target) and the name of
            the task (id) are read, where the source has none behind it.
        about: one line for a list of benchmarks.
        items: the names of its tasks, where they are known without reading it.
    """
    place, own = split_name(source)
    columns = own or fields

    def data() -> Benchmark:
        return from_data(place, columns)

    def read(name: str) -> Inputs:
        inputs = data().read(name)
        return problems.task(inputs["task"], inputs["task_data"]["target"])

    return Benchmark(
        about=about or f"the problems of {place}",
        items=lambda: list(data().items() if items is None else items),
        read=read,
        evaluator=exact,
        judged=judge_mathematics,
        rounds=PAPER_ROUNDS,
        options={"extract": EXTRACT, "warmup": PAPER_WARMUP},
    )


def _of_matharena(name: str, count: int, about: str) -> Benchmark:
    items = [str(n) for n in range(1, count + 1)]
    return replace(math_benchmark(f"{HUB}MathArena/{name}", about=about, items=items), own=_copied)


def _copied(path: str) -> Mapping[str, Inputs]:
    """The problems of a user's copy, in MathArena's columns."""
    copy = math_benchmark(path)
    return {item: copy.inputs(item) for item in copy.items()}


MATHEMATICS: Mapping[str, Benchmark] = {
    "aime": _of_matharena("aime_2025", 30, "30 problems of AIME 2025, as in arXiv 2506.06303; read from the hub"),
    "aime-2026": _of_matharena("aime_2026", 30, "30 problems of AIME 2026; read from the hub"),
    "hmmt": _of_matharena("hmmt_feb_2025", 30, "30 problems of HMMT February 2025, as in the paper; read from the hub"),
    "hmmt-2026": _of_matharena("hmmt_feb_2026", 33, "33 problems of HMMT February 2026; read from the hub"),
    "math-demo": Benchmark(
        about="12 problems of mathematics of this package's own, to try out",
        items=lambda: list(problems.PROBLEMS),
        read=problems.read_item,
        evaluator=exact,
        judged=judge_mathematics,
        options={"extract": EXTRACT},
    ),
}
"""By name."""
