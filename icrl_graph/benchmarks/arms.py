"""Arms: the methods that a benchmark compares, written as a topology and what is other about it.

icrl                              the topology as it is
icrl+show=zero                    with an ablation
best_of_n+n=1+schedule=cot        one answer, thought through
reflexion+memory=reflections:1    any option that takes a name or a number
icrl+model=my_policies.py:greedy  with a model of its own
react                             one episode of many turns, thought through (arXiv 2210.03629)
icrl+thoughts=true                thoughts ahead of each action, in such episodes
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icrl_graph.api import build
from icrl_graph.benchmarks.results import Plan
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.choices import pick
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.methods import TOPOLOGIES, Graph

SHORTHANDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {"react": ("best_of_n", {"n": "1", "thoughts": True})}
"""Arms by a name of their own: the topology, and what is other about it."""
SHUFFLED = "shuffled"
"""Of `show`: rewards drawn from those that the same arm without it got on other tasks."""


@dataclass(frozen=True)
class Arm:
    """One method of a comparison.

    Attributes:
        name: as it was written.
        topology: a name.
        options: what is other than the topology's and the benchmark's own.
        model: "provider:name" or "path.py:name", where it is another than that of the comparison.
    """

    name: str
    topology: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None

    @property
    def draws_from(self) -> str | None:
        """The name of the arm whose rewards this one is shown shuffled; None if it is shown its own."""
        if self.options.get("show") != SHUFFLED:
            return None
        return "+".join(part for part in self.name.split("+") if part != f"show={SHUFFLED}")

    @property
    def thoughts(self) -> bool:
        """Whether it thinks aloud ahead of each action, in episodes of many turns."""
        return bool(self.options.get("thoughts"))

    def arguments(self, rounds: int, common: Mapping[str, Any], pool: Sequence[Reward] = ()) -> dict[str, Any]:
        """What `improve` takes, beside the task, the model and the evaluator.

        Args:
            rounds: attempts, one after another or side by side.
            common: what all arms share; what this topology does not take is left out.
            pool: the rewards of other tasks, where they are shown shuffled.
        """
        own = {name: value for name, value in self.options.items() if name != "thoughts"}
        if self.draws_from is not None:
            own["show"] = shuffled(pool or [0.0])
        if "temperature" in own:
            own["sampling"] = {"default": {"temperature": own.pop("temperature")}}
        size = "n" if self.topology == "best_of_n" else "rounds"
        shared = {name: value for name, value in common.items() if name not in _FOREIGN.get(self.topology, ("warmup",))}
        return {size: rounds, **shared, **own, "topology": self.topology}


_FOREIGN: Mapping[str, Sequence[str]] = {"icrl": (), "best_of_n": ("target", "patience", "warmup")}
"""What is said to all arms, and not meant for these; rounds that see no history are a part of ICRL's protocol alone."""


def read_arm(text: str) -> Arm:
    """An arm as it is written: "icrl", "icrl+show=zero+memory=last:5", "react".

    Raises:
        ValueError: there is no such topology, or an option is not written NAME=VALUE.
    """
    name, *options = text.strip().split("+")
    pick("topology", name, {**TOPOLOGIES, **SHORTHANDS})
    topology, usual = SHORTHANDS.get(name, (name, {}))
    create = TOPOLOGIES[topology]
    given: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals and value):
            raise ValueError(f"the arm {text!r}: an option is written NAME=VALUE, got {option!r}")
        if name in given:
            raise ValueError(f"the arm {text!r} has {name} twice")
        if name in _FIXED:
            raise ValueError(f"the arm {text!r}: {name} can't differ between arms")
        try:
            given[name] = _value(name, value, inspect.signature(create).parameters)
        except ValueError as wrong:
            raise ValueError(f"the arm {text!r}: {wrong}") from None
    model = given.pop("model", None)
    return Arm(text.strip(), topology, {**usual, **given}, model)


_FIXED = ("evaluator", "metric", "topology", "reflector", "critic", "options", "seed")


def _value(name: str, text: str, parameters: Mapping[str, Any]) -> Any:
    """A number or a truth value where a part of the graph is one; the settings read theirs from texts."""
    kind = str(parameters[name].annotation) if name in parameters else ""
    if kind == "bool" or name == "thoughts":
        if text not in ("true", "false"):
            raise ValueError(f"{name} is true or false, got {text!r}")
        return text == "true"
    if name in ("temperature", "timeout"):
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} is a number, got {text!r}") from None
    return text


def read_arms(text: str) -> list[Arm]:
    """Arms, separated by commas.

    Raises:
        ValueError: there is none, one is wrong or stands there twice, or one is to be shown the shuffled rewards of an
            arm that is not there.
    """
    arms = [read_arm(part) for part in text.split(",") if part.strip()]
    names = [arm.name for arm in arms]
    if not arms:
        raise ValueError(f"name at least one topology, such as icrl,best_of_n; got {text!r}")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"each arm once; {', '.join(sorted(twice))} stands there more often")
    for arm in arms:
        if arm.draws_from is not None and arm.draws_from not in names:
            raise ValueError(f"the arm {arm.name!r} draws from the rewards of {arm.draws_from!r}: add that one, too")
    return arms


def graph_of(plan: Plan, arm: str) -> Graph:
    """The graph of an arm, with nobody in it: enough to make its prompts and its choices again."""
    given = read_arm(arm).arguments(plan.rounds, plan.shared(), pool=[Reward(value=0.0)])
    return build(model=lambda: "", evaluator=lambda: 0.0, **given)
