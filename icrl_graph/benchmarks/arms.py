"""Arms: the configured methods that a comparison holds against each other, each written as a topology and its options.

icrl                              the topology with its defaults
icrl+show=zero                    with an ablation
best_of_n+n=1+schedule=cot        one answer, with a chain of thought
reflexion+memory=reflections:1    any option that takes a name or a number
icrl+model=my_policies.py:greedy  with its own model
react                             one episode of many turns, thoughts ahead of each action (arXiv 2210.03629)
icrl+width=2                      half as many rounds, of two attempts each
icrl+allocate=400                 400 calls for all its tasks together, handed out to where they help most
icrl+switch_after=3+switch_model=openai:gpt-4.1  another model once three rounds have brought no better reward
icrl+thoughts=true                thoughts ahead of each action, in such episodes
my_method.py:create_mine          a custom topology, by its create function
dspy_refine                       an optimiser of another library (`icrl_graph.benchmarks.arena`)

Sets of arms have names, too: `feedback` (icrl with and without the words that come with its rewards) and `controls`
(icrl beside all that should not learn).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icrl_graph.benchmarks.plan import Plan
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.loading import absolute
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import build, find_topology, size_option
from icrl_graph.topologies.options import at_temperature
from icrl_graph.topologies.settings import EARLY_STOPS, SWITCH, SWITCHED, Settings

SHORTHANDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {"react": ("best_of_n", {"n": "1", "thoughts": True})}
"""Arms with a name: their topology and options."""
PRESETS: Mapping[str, str] = {
    "feedback": "icrl,icrl+show=no_feedback",
    "controls": "icrl,icrl+show=zero,icrl+show=shuffled,icrl+memory=none,best_of_n",
}
"""Sets of arms with a name. None of them is a default: each arm costs as much as the first."""
SHUFFLED = "shuffled"
"""Of `show`: rewards drawn from those that the same arm without it got on other tasks."""


@dataclass(frozen=True)
class Arm:
    """One configured method of a comparison.

    Attributes:
        name: as it was written, with absolute paths.
        topology: a name, or "path.py:name" of a create function.
        create: the create function.
        options: those that differ from the topology's and the benchmark's.
        model: "provider:name" or "path.py:name", where it is another than that of the comparison.
        allocate: paid calls for all its runs together, handed out to where they help most (see
            `icrl_graph.benchmarks.allocation`); None where each run makes its own.
    """

    name: str
    topology: str
    create: Callable[..., Graph]
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    allocate: int | None = None

    @property
    def draws_from(self) -> str | None:
        """The name of the arm whose rewards this one is shown shuffled; None if it is shown its own."""
        if self.options.get("show") != SHUFFLED:
            return None
        return "+".join(part for part in self.name.split("+") if part != f"show={SHUFFLED}")

    @property
    def thoughts(self) -> bool:
        """Whether thoughts precede each action, in episodes of many turns."""
        return bool(self.options.get("thoughts"))

    def arguments(self, rounds: int, shared: Mapping[str, Any], pool: Sequence[Reward] = ()) -> dict[str, Any]:
        """What `improve` takes, beside the task, the model and the evaluator.

        Args:
            rounds: attempts, one after another or side by side; of a width that does not divide them, up to a round.
            shared: options of all arms; those that this topology does not take are left out.
            pool: the rewards of other tasks, where they are shown shuffled.
        """
        options = {name: value for name, value in self.options.items() if name != "thoughts"}
        if self.draws_from is not None:
            options["show"] = shuffled(pool or [0.0])
        if "temperature" in options:
            options |= at_temperature(options.pop("temperature"))
        size = size_option(self.create)
        unused = {*(() if size == "rounds" else _OF_ROUNDS), *(() if self.topology == "icrl" else ("warmup",))}
        unused |= Settings.model_fields.keys() - getattr(self.create, "settings", Settings).model_fields.keys()
        taken = {name: value for name, value in shared.items() if name not in unused}
        width = {**taken, **options}.get("width", 1)  # of a wrong one the graph says what it should be
        each = width if size == "rounds" and isinstance(width, int) and width > 0 else 1
        return {size: -(-rounds // each), **taken, **options, "topology": self.create}


def read_arm(text: str) -> Arm:
    """An arm as it is written: "icrl", "icrl+show=zero+memory=last:5", "react".

    Raises:
        ValueError: there is no such topology, or an option is not written NAME=VALUE.
    """
    name, *parts = ("=".join(map(absolute, part.split("=", 1))) for part in text.strip().split("+"))
    topology, defaults = SHORTHANDS.get(name, (name, {}))
    if "+" in "".join([name, *parts]):
        raise ValueError(f"the arm {text!r}: its file is in a folder with a '+' in its path, which separates options")
    try:
        create = find_topology(topology)
    except ValueError as error:
        also = "" if ":" in topology else f"; as an arm also {', '.join(SHORTHANDS)}"
        raise ValueError(f"{error}{also}") from None
    parameters = inspect.signature(create).parameters
    options: dict[str, Any] = {}
    for part in parts:
        option, _, value = part.partition("=")
        if not (option and value):
            raise ValueError(f"the arm {text!r}: an option is written NAME=VALUE, got {part!r}")
        if option in options:
            raise ValueError(f"the arm {text!r} has {option} twice")
        if option in _FIXED:
            raise ValueError(f"the arm {text!r}: {option} can't differ between arms")
        try:
            options[option] = _value(option, value, parameters)
        except ValueError as error:
            raise ValueError(f"the arm {text!r}: {error}") from None
    model, allocate = options.pop("model", None), options.pop("allocate", None)
    return Arm("+".join([name, *parts]), topology, create, {**defaults, **options}, model, allocate)


_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "temperature": float,
    "timeout": float,
    "max_response_tokens": int,
    "width": int,
    "allocate": int,
}
_OF_ROUNDS = (
    *EARLY_STOPS,
    *SWITCHED,
    "switch_after",
    "max_failures",
    "max_evaluator_failures",
    "width",
    "spread",
    "layout",
    "show",
    "feedback_limit",
    "latest_feedback_limit",
)
"""Settings of which a topology without rounds has none."""
_FIXED = ("evaluator", "metric", "topology", "reflector", "critic", "options", "seed")


def _value(option: str, text: str, parameters: Mapping[str, Any]) -> Any:
    """A number or a truth value where a part of the graph is one; the settings read theirs from texts."""
    if option == "thoughts" or (option in parameters and parameters[option].annotation in (bool, "bool")):
        if text not in ("true", "false"):
            raise ValueError(f"{option} is true or false, got {text!r}")
        return text == "true"
    if read := _NUMBERS.get(option):
        try:
            return read(text)
        except ValueError:
            raise ValueError(f"{option} is a number, got {text!r}") from None
    return text


def read_arms(arms: str | Sequence[str]) -> list[Arm]:
    """Arms as they are written.

    Args:
        arms: each on its own, or one text with commas between them.

    Raises:
        ValueError: there is none, one is wrong or a duplicate, or one is to be shown the shuffled rewards of an arm
            that is not there.
    """
    given = arms.split(",") if isinstance(arms, str) else arms
    sets = (PRESETS[text.strip()].split(",") if text.strip() in PRESETS else [text] for text in given)
    texts = [text for each in sets for text in each]
    try:
        read = [read_arm(text) for text in texts if text.strip()]
    except ValueError as error:
        hint = ".py:" in "".join(texts) and "; in arms, a path can't hold '+' or ',', which separate options and arms"
        raise ValueError(f"{error}{hint or ''}") from None
    names = [arm.name for arm in read]
    if not read:
        raise ValueError(f"name at least one topology, such as icrl,best_of_n; got {arms!r}")
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"duplicate arm: {', '.join(sorted(duplicates))}")
    for arm in read:
        if arm.draws_from is not None and arm.draws_from not in names:
            raise ValueError(f"the arm {arm.name!r} draws from the rewards of {arm.draws_from!r}: add that one, too")
    return read


def allocated_to(arm: str) -> int | None:
    """The calls that are allocated to an arm; read from its name alone, so nothing is imported."""
    options = (option.partition("=") for option in arm.split("+"))
    return next((int(value) for name, _, value in options if name == "allocate"), None)


def split_and_allocated(arms: Sequence[Arm], calls: int, runs: int) -> list[str]:
    """Arms at equal totals: each with its calls split evenly over its runs and, if it has rounds, with them allocated.

    Args:
        arms: as they were read.
        calls: of each run, where they are split evenly.
        runs: of each arm.
    """
    ways = [
        [f"{arm.name}+max_calls={calls}"]
        + [f"{arm.name}+allocate={calls * runs}"] * (size_option(arm.create) == "rounds")
        for arm in arms
    ]
    return [name for names in ways for name in names]


def makes_independent_attempts(arm: str) -> bool:
    """Whether no attempt of an arm shows an earlier one; read from its name alone, so nothing is imported."""
    return is_best_of_n(arm) or "memory=none" in arm.split("+")


def is_best_of_n(arm: str) -> bool:
    """Whether all attempts of an arm are made side by side; read from its name alone."""
    name = arm.split("+")[0]
    return SHORTHANDS.get(name, (name,))[0] == "best_of_n"


BLIND = ("zero", "hidden", "random", "constant", SHUFFLED)
"""Ablations under which no prompt shows a true reward, up to their numbers."""


def sees_rewards(arm: str) -> bool:
    """Whether later attempts of an arm see the rewards of earlier ones; read from its name alone."""
    shown = [option.removeprefix("show=").partition(":")[0] for option in arm.split("+") if option.startswith("show=")]
    return not (makes_independent_attempts(arm) or arm.startswith("self_refine") or set(shown) & set(BLIND))


def controls_of(arm: str, arms: Sequence[str]) -> list[str]:
    """The arms that are an arm without its history, or without its true rewards; read from their names alone.

    That is the same arm with `memory=none` or a `show` that hides the rewards, and Best-of-N with the same model.
    """
    if not sees_rewards(arm):
        return []
    own = set(arm.split("+"))
    plain = {"best_of_n", *(option for option in own if option.startswith("model="))}
    return [
        other
        for other in arms
        if (parts := set(other.split("+"))) == plain
        or (own < parts and len(parts - own) == 1 and not sees_rewards(other))
    ]


def graph_of(plan: Plan, arm: str) -> Graph:
    """The graph of an arm without a model or an evaluator: enough to make its prompts and its choices again.

    Raises:
        NotImported: it has custom parts, and nothing is to be imported.
    """
    arguments = read_arm(arm).arguments(plan.rounds, plan.shared(), pool=[Reward(value=0.0)])
    if SWITCH in arguments:
        arguments[SWITCH] = lambda: ""
    return build(model=lambda: "", evaluator=lambda: 0.0, **arguments)
