"""What can be told to a run when it starts: names and numbers, validated, shown by Studio, held by a checkpoint.

A graph is built with defaults; `context=` overrides them for one run. `prepare` freezes the result into the state,
because LangGraph does not checkpoint the context: a run that is resumed later is the run that was started. Parts that
are no names (a memory of your own, say) are given to `create_...` and can then be named like the built-in ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from icrl_graph import ablations, context

Custom = Mapping[str, Mapping[str, Any]]
"""Parts of the user's own: kind ("memory", "schedule", "layout", "show") -> name -> function."""


class Settings(BaseModel):
    """The settings of a run, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    custom: ClassVar[Custom] = {}

    rounds: int = Field(default=8, ge=1, description="How many rounds at most.")
    warmup: int = Field(default=0, ge=0, description="The first rounds that see no history.")
    memory: str = Field(default="all", description="Earlier attempts shown: all, none, last:N, best:N or tokens:N.")
    schedule: str = Field(
        default="preset", description="What each round asks for: preset, autonomous, explore, exploit, plain."
    )
    layout: str = Field(default="turns", description="How the prompt is laid out: turns or transcript.")
    show: str = Field(default="true", description="What the model sees of its rewards: true, zero or hidden.")
    label: str = Field(
        default="Reward",
        pattern=r"^[^\s:<>]([^\n:<>]{0,58}[^\s:<>])?$",
        description="The word ahead of a reward in the prompt.",
    )
    target: float | None = Field(default=None, description="Stop when a reward reaches this: success.")
    patience: int | None = Field(
        default=None, ge=1, description="Stop after so many rounds without a better reward: plateau."
    )
    max_failures: int = Field(default=3, ge=1, description="Stop after so many rounds in a row without any response.")
    max_calls: int | None = Field(default=None, ge=1, description="Stop before a paid call would pass this.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Start no call once so many tokens (in and out) are spent."
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Start no call once so many seconds are spent waiting."
    )
    seed: int | None = Field(
        default=None, description="Makes ablations repeatable, and the samples of a model that takes a seed."
    )

    @field_validator("memory", "schedule", "layout", "show")
    @classmethod
    def _known(cls, name: str, info: Any) -> str:
        part(info.field_name, name, cls.custom)
        return name


class FanOutSettings(Settings):
    """The settings of a run whose attempts stand side by side in one round."""

    rounds: int = Field(default=1, ge=1, le=1, description="One round.")
    memory: str = Field(default="none", description="Nothing is shown: each attempt starts from the task alone.")
    schedule: str = Field(default="plain", description="What the attempts are asked for.")
    n: int = Field(default=8, ge=1, description="How many attempts.")


_NAMED: Mapping[str, Mapping[str, Any]] = {
    "schedule": context.SCHEDULES,
    "layout": context.LAYOUTS,
    "show": ablations.ABLATIONS,
}


def part(kind: str, name: str, custom: Custom) -> Any:
    """The memory, schedule, layout or ablation of that name, a user's own first.

    Raises:
        ValueError: there is none of that name; lists the choices.
    """
    own = custom.get(kind, {})
    if name in own:
        return own[name]
    if kind == "memory":
        return context.memory(name)
    return context.pick(kind, name, {**_NAMED[kind], **own})


def schema(base: type[Settings], defaults: Mapping[str, Any]) -> type[Settings]:
    """The settings of one graph: its own defaults, and its user's own parts beside the built-in names.

    Args:
        base: the settings of this kind of graph.
        defaults: what differs from them; a function stands for a part of the user's own.

    Raises:
        ValueError: an unknown setting or name, or a number out of range; says which.
    """
    custom: dict[str, dict[str, Callable[..., Any]]] = {}
    named = dict(defaults)
    for kind in ("memory", "schedule", "layout", "show"):
        if callable(own := named.get(kind)):
            named[kind] = getattr(own, "__name__", type(own).__name__)
            custom[kind] = {named[kind]: own}
    own_base = type("Settings", (base,), {"custom": custom, "__doc__": base.__doc__, "__module__": __name__})
    try:
        checked = own_base(**named)
    except ValidationError as error:
        raise ValueError(explain(error, base)) from None
    fields = {}
    for name in named:
        field = copy(base.model_fields[name])
        field.default = getattr(checked, name)
        fields[name] = (field.annotation, field)
    made: type[Settings] = create_model("Settings", __base__=own_base, **fields)  # type: ignore[call-overload]
    return made


def resolve(graph: type[Settings], given: Any) -> Settings:
    """The settings of a run from what LangGraph hands over as its context.

    Args:
        graph: the schema of the graph.
        given: None, settings, or, in an embedded graph, whatever the parent has as its context: of that, only what
            stands under the name `icrl` (a key or an attribute) is meant for us.

    Raises:
        ValueError: an unknown setting or name, or a number out of range.
    """
    if not isinstance(given, Settings):
        given = given.get("icrl") if isinstance(given, Mapping) else getattr(given, "icrl", None)
    if isinstance(given, Settings):
        given = {name: getattr(given, name) for name in given.model_fields_set}
    try:
        return graph(**(given or {}))
    except ValidationError as error:
        raise ValueError(explain(error, graph)) from None


def explain(error: ValidationError, schema: type[Settings]) -> str:
    """A validation error in one line, with the value and the choices of each mistake."""
    lines = []
    for mistake in error.errors():
        name = ".".join(map(str, mistake["loc"]))
        if mistake["type"] == "extra_forbidden":
            lines.append(f"unknown setting {name!r}; choose among {', '.join(schema.model_fields)}")
        else:
            lines.append(f"{name}={mistake['input']!r}: {mistake['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
