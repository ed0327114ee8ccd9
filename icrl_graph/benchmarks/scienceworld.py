"""ScienceWorld as a benchmark: which episodes, how many actions, and how they are judged.

Three protocols. That of ICRL prompting (arXiv 2506.06303, as its code runs it): 29 tasks, all but boil, variation 0,
the simplifications "easy", 15 actions an episode, 40 episodes of which the first 2 see no others. That of ORBIT's
evaluation (arXiv 2602.04089, as its code describes it): all test variations of 6 tasks, nothing simplified, 3 episodes
of 15 actions. And that of SwiftSage (arXiv 2305.17390): all 30 tasks, at most 10 of the test variations of each, 100
actions.

The reward is the episode's return in points; the metric is its final score as a share of 100, at least 0, as papers
report it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from icrl_graph.environments.pool import EnvironmentPool
from icrl_graph.environments.rollouts import rollout
from icrl_graph.environments.scienceworld import TASKS, ScienceWorld, Spec, capacity, instructions
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.policy import Policy, as_policy
from icrl_graph.state.choices import unbound

PAPER_STEPS, TEST_STEPS = 15, 100
PAPER_ROUNDS, PAPER_WARMUP = 40, 2
ORBIT_EPISODES = 3
ORBIT_TASKS = (
    "lifespan-shortest-lived",
    "lifespan-longest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "find-non-living-thing",
    "find-plant",
    "power-component",
)
"""Those that scripts/eval/sciworld_benchmark.sh of github.com/XiaofengLin7/ORBIT (commit eb92044) says it plays."""
TEST_VARIATIONS = 10


def paper_items() -> list[str]:
    """The episodes of arXiv 2506.06303."""
    return [f"{task}:0" for task in sorted(TASKS)[1:]]


def orbit_items() -> list[str]:
    """The test variations of ORBIT's six tasks."""
    return [f"{task}:{variation}" for task in ORBIT_TASKS for variation in TASKS[task].variations("test")]


def test_items() -> list[str]:
    """At most 10 test variations of each task."""
    return [f"{task}:{variation}" for task in TASKS for variation in TASKS[task].variations("test")[:TEST_VARIATIONS]]


def read_item(text: str, simplification: str = "easy") -> Spec:
    """The episode that is written like "melt:3".

    Args:
        text: its task and its variation.
        simplification: see `Spec`.

    Raises:
        ValueError: it is not written like that, or there is no such episode.
    """
    task, colon, variation = text.partition(":")
    if not (colon and variation.isascii() and variation.isdigit()):
        raise ValueError(f"an episode of ScienceWorld is written like 'melt:3', task and variation; got {text!r}")
    return Spec(task, int(variation), simplification)


def task(spec: Spec) -> dict[str, Any]:
    """The input of a graph for an episode; the task itself stands in its first observation."""
    return {"task": instructions(spec.task, spec.simplification), "task_data": dict(vars(spec))}


def player(model: Any, max_steps: int) -> Callable[..., Policy]:
    """What makes policies that play an episode; together, as many at once as this machine has room for."""
    part = unbound(as_policy(model).part)
    reads_valid = isinstance(part, FunctionModel) and getattr(part.reply, "reads_valid", False)
    world = partial(ScienceWorld, max_actions=max_steps, show_valid=reads_valid)
    return partial(rollout, model, EnvironmentPool(world, capacity()), max_steps=max_steps)


def final_score(steps: Sequence[Mapping[str, Any]]) -> float:
    """What papers report of an episode in ScienceWorld: its last score, at least 0, as a share of 100."""
    return float(steps[-1]["info"]["final"]) / 100 if steps else 0.0
