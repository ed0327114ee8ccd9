"""What can be told to a run when it starts: names and numbers, validated, shown by Studio, held by a checkpoint.

A graph is built with defaults; `context=` overrides them for one run. `prepare` freezes the result into the state,
because LangGraph does not checkpoint the context: a run that is resumed later is the run that was started. Parts that
are no names (a memory of your own, say) are given to `create_...` and can then be named like the built-in ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from icrl_graph.prompts import ablations
from icrl_graph.prompts.layouts import LAYOUTS
from icrl_graph.prompts.memory import memory
from icrl_graph.prompts.plan import SCHEDULES
from icrl_graph.state.choices import pick

Custom = Mapping[str, Mapping[str, Any]]
"""Parts of the user's own: kind ("memory", "schedule", "layout", "show") -> name -> function."""


class RunSettings(BaseModel):
    """What every method can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    namespace: ClassVar[str] = "icrl"
    """Where an embedded graph finds its settings in its parent's context."""
    fixed: ClassVar[Mapping[str, Any]] = {}
    """What other methods can be told, and this one can't."""
    custom: ClassVar[Custom] = {}
    parts: ClassVar[Mapping[str, str]] = {}
    """The names of the graph's model, evaluator and metric; kept with every run."""
    made: ClassVar[bool] = False
    """Whether `schema` made the class, for one graph."""

    model: str | None = Field(
        default=None, description="Who answers, if not the graph's own model: provider:name, as openai:gpt-4.1-mini."
    )
    max_calls: int | None = Field(default=None, ge=1, description="Stop before a paid call would pass this.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Start no call once so many tokens (in and out) are spent."
    )
    max_usd: float | None = Field(default=None, gt=0, description="Start no call once so many US dollars are spent.")
    max_seconds: float | None = Field(
        default=None, gt=0, description="Start no call once so many seconds are spent waiting."
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Makes ablations repeatable, and the samples of a model that takes a seed.",
    )
    retests: int = Field(
        default=0, ge=0, description="Judge the three leading attempts so many times more before one is chosen."
    )

    @model_validator(mode="before")
    @classmethod
    def _all_known(cls, given: Any) -> Any:
        """Told in our words, also where LangGraph makes settings of a context."""
        if isinstance(given, Mapping) and (unknown := [name for name in given if name not in cls.model_fields]):
            told = ", ".join(map(repr, unknown))
            raise ValueError(f"unknown setting {told}; choose among {', '.join(cls.model_fields)}")
        return given

    @field_validator("*")
    @classmethod
    def _known(cls, value: Any, info: Any) -> Any:
        if info.field_name in _KINDS:
            part(info.field_name, value, cls.custom)
        return value


class Settings(RunSettings):
    """The settings of a loop, with their defaults."""

    rounds: int = Field(default=8, ge=1, description="How many rounds at most.")
    warmup: int = Field(default=0, ge=0, description="The first rounds that see no history.")
    memory: str = Field(
        default="all", description="Earlier attempts shown: all, none, last:N, best:N, tokens:N or positive:P."
    )
    schedule: str = Field(
        default="preset",
        description="What each round asks for: preset, autonomous, explore, exploit, plain, cot or long_cot.",
    )
    layout: str = Field(default="turns", description="How the prompt is laid out: turns or transcript.")
    show: str = Field(
        default="true",
        description="What the model sees of its rewards: true, zero, hidden, outcome, no_feedback, random, constant:X "
        "or flip:P.",
    )
    label: str = Field(
        default="Reward",
        pattern=r"^[^\s:<>]([^\n:<>]{0,58}[^\s:<>])?$",
        description="The word ahead of a reward in the prompt.",
    )
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="Stop when a reward reaches this: success."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after so many rounds without a better reward: plateau."
    )
    max_failures: int = Field(default=3, ge=1, description="Stop after so many rounds in a row without any response.")


class ReflexionSettings(Settings):
    """The settings of Reflexion."""

    namespace: ClassVar[str] = "reflexion"


class SelfRefineSettings(Settings):
    """The settings of Self-Refine. Its prompts show no reward."""

    namespace: ClassVar[str] = "self_refine"

    retests: Literal[0] = Field(default=0, description="The reward chooses nothing.")
    show: Literal["hidden"] = Field(default="hidden", description="Not even a memory sees a reward.")

    @field_validator("memory")
    @classmethod
    def _needs_no_reward(cls, value: str) -> str:
        if value.partition(":")[0] in ("best", "positive"):
            raise ValueError("it goes by rewards, and Self-Refine shows none; choose all, last:N or tokens:N")
        return value


class BestOfNSettings(RunSettings):
    """The settings of attempts that stand side by side, each from the task alone."""

    namespace: ClassVar[str] = "best_of_n"
    fixed: ClassVar[Mapping[str, Any]] = {"rounds": 1, "memory": "none"}

    schedule: str = Field(default="plain", description="What is asked for: plain, cot or long_cot.")
    n: int = Field(default=8, ge=1, description="How many attempts.")


_KINDS = ("memory", "schedule", "layout", "show")
_PARSED: Mapping[str, Callable[[str], Any]] = {"memory": memory, "show": ablations.ablation}
_NAMED: Mapping[str, Mapping[str, Any]] = {
    "schedule": SCHEDULES,
    "layout": LAYOUTS,
}


def part(kind: str, name: str, custom: Custom) -> Any:
    """The memory, schedule, layout or ablation of that name, a user's own first.

    Raises:
        ValueError: there is none of that name; lists the choices.
    """
    own = custom.get(kind, {})
    if name in own:
        return own[name]
    if kind in _PARSED:
        return _PARSED[kind](name)
    return pick(kind, name, {**_NAMED[kind], **own})


def schema(
    base: type[RunSettings], defaults: Mapping[str, Any], parts: Mapping[str, str] | None = None
) -> type[RunSettings]:
    """The settings of one graph: its own defaults, and its user's own parts beside the built-in names.

    Args:
        base: the settings of this kind of graph.
        defaults: what differs from them; a function stands for a part of the user's own.
        parts: the names of model, evaluator and metric.

    Raises:
        ValueError: an unknown setting or name, or a number out of range; says which.
    """
    custom: dict[str, dict[str, Callable[..., Any]]] = {}
    named = dict(defaults)
    for kind in _KINDS:
        if callable(own := named.get(kind)):
            named[kind] = getattr(own, "__name__", type(own).__name__)
            custom[kind] = {named[kind]: own}
    members = {
        "custom": custom,
        "parts": dict(parts or {}),
        "made": True,
        "__doc__": base.__doc__,
        "__module__": __name__,
    }
    own_base = type("Settings", (base,), members)
    checked = _validated(own_base, named)
    fields = {}
    for name in named:
        field = copy(base.model_fields[name])
        field.default = getattr(checked, name)
        if name in _NAMED:  # Studio offers them to choose from
            field.json_schema_extra = {"enum": [*_NAMED[name], *custom.get(name, {})]}
        fields[name] = (field.annotation, field)
    made: type[RunSettings] = create_model("Settings", __base__=own_base, **fields)  # type: ignore[call-overload]
    return made


def resolve(graph: type[RunSettings], given: Any) -> dict[str, Any]:
    """The settings of a run from what LangGraph hands over as its context: complete, as plain values.

    Args:
        graph: the schema of the graph.
        given: None, settings, or, in an embedded graph, whatever the parent has as its context: of that, only what
            stands under the graph's namespace ("icrl", "best_of_n", ...; a key or an attribute) is meant for us.

    Raises:
        ValueError: an unknown setting or name, or a number out of range.
    """
    return {**Settings().model_dump(), **graph.fixed, **_validated(graph, _meant(graph, given)).model_dump()}


def told(graph: type[RunSettings], given: Any) -> dict[str, Any]:
    """As `resolve`, but only what is given.

    Raises:
        ValueError: an unknown setting or name, or a number out of range.
    """
    meant = _meant(graph, given)
    checked = _validated(graph, meant).model_dump()
    return {name: checked[name] for name in meant}


def _meant(graph: type[RunSettings], given: Any) -> Mapping[str, Any]:
    """What of a context is meant for a graph."""
    if isinstance(given, RunSettings):
        if given.made and not isinstance(given, graph):
            given = None  # of another graph, around this one
    else:
        own = given.get(graph.namespace) if isinstance(given, Mapping) else getattr(given, graph.namespace, None)
        if not (own is None or isinstance(own, Mapping | RunSettings)):
            raise ValueError(f"the context's {graph.namespace!r} must be settings or a mapping, got {own!r}")
        given = own
    if isinstance(given, RunSettings):
        return {name: getattr(given, name) for name in given.model_fields_set}
    return given or {}


def _validated(graph: type[RunSettings], given: Mapping[str, Any]) -> RunSettings:
    try:
        return graph(**{str(name): value for name, value in given.items()})
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """A validation error in one line, with the value and the choices of each mistake."""
    lines = []
    for mistake in error.errors():
        said = mistake["msg"].removeprefix("Value error, ")
        lines.append(f"{mistake['loc'][0]}={mistake['input']!r}: {said}" if mistake["loc"] else said)
    return "; ".join(lines)
