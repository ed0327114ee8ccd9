"""The settings of a run: names and numbers, validated, shown by Studio, saved in a checkpoint.

A graph is built with defaults; `context=` overrides them for one run. `prepare` saves the result in the state, because
LangGraph does not checkpoint the context: a run that is resumed later is the run that was started. Custom parts, such
as a memory, are named by path, module or entry point (`icrl_graph.state.choices`) where the graph is built; a function
that is handed over there is named by its own name. A context names these and the shipped ones, and imports no code: it
may come over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from icrl_graph.models.reasoning import check_tags
from icrl_graph.prompts.ablations import ABLATIONS, ablation
from icrl_graph.prompts.feedback import SHORTEST, FeedbackLimits
from icrl_graph.prompts.layouts import LAYOUTS
from icrl_graph.prompts.memory import MEMORIES, draws, memory
from icrl_graph.prompts.plan import SCHEDULES, SPREADS
from icrl_graph.state.checks import check_function
from icrl_graph.state.choices import find, names_an_object, pick
from icrl_graph.state.loading import absolute
from icrl_graph.state.reward import OnError
from icrl_graph.state.stop_rules import STOP_RULES, stop_rule

Custom = Mapping[str, Mapping[str, Any]]
"""The custom parts that a graph was built with: kind (a value of `_KIND_OF`) -> name -> function."""
EARLY_STOPS = ("target", "patience", "stop", "confirmations")
"""The settings that end a run because of its rewards."""
GIVEN_UP = ("failures", "evaluator")
"""What stopped a run that is to go on once its model, or its evaluator, works again."""
LIMITS = ("rounds", "n", "width", "max_calls", "max_tokens", "max_usd", "max_seconds")
"""The settings that limit what a run costs."""
MAIN = "model"
"""The name of a graph's own model, among several."""
SWITCH = "switch_model"
"""The name of the one that a run switches to."""
SWITCHED = (SWITCH, "switch_memory", "switch_schedule")
"""The settings that say what a run switches to."""


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


class RunSettings(BaseModel):
    """The settings of every topology."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    namespace: ClassVar[str] = "icrl"
    """Where an embedded graph finds its settings in its parent's context."""
    fixed: ClassVar[Mapping[str, Any]] = {}
    """The values that this topology fixes of settings that others have."""
    custom: ClassVar[Custom] = {}
    parts: ClassVar[Mapping[str, str]] = {}
    """The names of the graph's models, evaluator and metric; saved with every run."""
    code: ClassVar[Mapping[str, str]] = {}
    """The fingerprints of these, and of the custom parts among its settings; saved beside the names."""
    options: ClassVar[Mapping[str, str]] = {}
    """The fingerprints of the options that prompts, answers and rewards follow from, such as `system`; saved, too."""
    models: ClassVar[Sequence[str]] = (MAIN,)
    """The names under which the graph has its models."""
    can_be_extended: ClassVar[bool] = True
    """Whether a run that has ended can be resumed for more rounds."""
    made: ClassVar[bool] = False
    """Whether `schema` made the class, for one graph."""

    model: str | None = Field(
        default=None, description="Another model than the graph's own: provider:name, as openai:gpt-4.1-mini."
    )
    max_calls: int | None = Field(
        default=None, ge=1, description="Budget of paid calls: stop before one would pass it."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Budget of tokens, in and out: start no call once it is spent."
    )
    max_usd: float | None = Field(
        default=None, gt=0, description="Budget of US dollars: start no call once it is spent."
    )
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Budget of seconds: start no call once it is spent waiting, and give up on one in flight.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Makes ablations repeatable, and the samples of a model that takes a seed.",
    )
    on_error: Annotated[float, Field(allow_inf_nan=False)] | Literal["unscored"] | None = Field(
        default=None,
        description="Reward of an attempt on which its evaluator raises, such as 0, or unscored; the model reads what "
        "was raised. Default: unscored, and the model reads nothing of it.",
    )
    retests: int = Field(
        default=0,
        ge=0,
        description="Times that the three best attempts are judged again; half chooses, the rest is reported.",
    )
    reasoning_tags: str | None = Field(
        default=None,
        description="How the model marks its reasoning, as <plan>...</plan>, or off. Default: auto, the known ways.",
    )

    def __init__(self, /, **values: Any) -> None:
        try:  # here, because LangGraph makes settings of a context by itself
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(explain(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _all_known(cls, values: Any) -> Any:
        """Name the choices, also where LangGraph makes settings of a context."""
        if isinstance(values, Mapping) and (unknown := [name for name in values if name not in cls.model_fields]):
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"unknown setting {names}; choose among {', '.join(cls.model_fields)}")
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: Any, info: Any) -> Any:
        """Refuse true and false where a number is meant, as which they would be taken."""
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and not {bool, str} & {annotation, *get_args(annotation)}:
            raise ValueError("a number is neither true nor false")
        return value

    @field_validator("*")
    @classmethod
    def _known(cls, value: Any, info: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number has at most 64 bits, as what saves it")
        if kind := _KIND_OF.get(info.field_name):
            part(kind, value, cls.custom)
        if info.field_name == "reasoning_tags":
            check_tags(value)
        if info.field_name == "model" and isinstance(value, Mapping):
            for name in value:
                pick("model", name, dict.fromkeys(cls.models))
        return value


class Settings(RunSettings):
    """The settings of a loop, with their defaults."""

    rounds: int = Field(default=8, ge=1, description="Rounds at most.")
    width: int = Field(
        default=1, ge=1, description="Attempts a round, side by side: all see the rounds before, none sees the others."
    )
    spread: str = Field(
        default="same",
        description=f"What the attempts of a round after its first are asked for: {_listed(list(SPREADS))}.",
    )
    warmup: int = Field(default=0, ge=0, description="Number of first rounds that see no history.")
    memory: str = Field(default="all", description=f"Earlier attempts that a prompt shows: {_listed(MEMORIES)}.")
    schedule: str = Field(
        default="preset",
        description=f"What each round asks for: {_listed(list(SCHEDULES))}.",
    )
    layout: str = Field(default="turns", description=f"How the prompt is laid out: {_listed(list(LAYOUTS))}.")
    show: str = Field(
        default="true",
        description=f"What the model sees of its rewards: {_listed(ABLATIONS)}.",
    )
    reward_label: str = Field(
        default="Reward",
        pattern=r"^[^\s:<>]([^\n:<>]{0,58}[^\s:<>])?$",
        description="The word before a reward in the prompt.",
    )
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="Stop when a reward reaches this: success."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after this many rounds without a better reward: plateau."
    )
    stop: str | None = Field(
        default=None,
        description=f"Stop once another attempt is not worth its price, a reward for each call: {STOP_RULES[0]}.",
    )
    confirmations: int | None = Field(
        default=None,
        ge=1,
        description="Passes of the evaluator that a success takes; the lowest is the reward. Default: 1.",
    )
    max_failures: int = Field(
        default=3, ge=1, description="Stop after this many rounds in a row whose calls have failed."
    )
    max_evaluator_failures: int | None = Field(
        default=3,
        ge=0,
        description="Stop after this many failures of the evaluator in a row, while nothing is scored; 0: never.",
    )
    feedback_limit: int | None = Field(
        default=None,
        ge=SHORTEST,
        description="Tokens of an attempt's feedback in a prompt, about: longer feedback is cut in the middle.",
    )
    latest_feedback_limit: int | None = Field(
        default=None,
        ge=SHORTEST,
        description="The same for the latest attempt, from feedback_limit on. Default: whole.",
    )

    switch_after: int | None = Field(
        default=None,
        ge=1,
        description="Switch to another model, memory or schedule after this many rounds without a better reward.",
    )
    switch_model: str | None = Field(
        default=None, description="The model to switch to: provider:name, as openai:gpt-4.1."
    )
    switch_memory: str | None = Field(default=None, description="The memory to switch to.")
    switch_schedule: str | None = Field(default=None, description="The schedule to switch to.")


class ReflexionSettings(Settings):
    """The settings of Reflexion."""

    namespace: ClassVar[str] = "reflexion"


class SelfRefineSettings(Settings):
    """The settings of Self-Refine. Its prompts show no reward."""

    namespace: ClassVar[str] = "self_refine"

    retests: Literal[0] = Field(default=0, description="The reward chooses nothing.")
    show: Literal["hidden"] = Field(default="hidden", description="Not even a memory sees a reward.")

    @field_validator("memory", "switch_memory")
    @classmethod
    def _needs_no_reward(cls, value: str | None) -> str | None:
        if getattr(part("memory", value, cls.custom), "ranks_by_reward", False):
            raise ValueError("this memory ranks by reward, which Self-Refine hides; choose all, last:N or tokens:N")
        return value


class BestOfNSettings(RunSettings):
    """The settings of attempts made side by side, each from the task alone."""

    namespace: ClassVar[str] = "best_of_n"
    fixed: ClassVar[Mapping[str, Any]] = {"rounds": 1, "memory": "none"}

    schedule: str = Field(default="plain", description="What the prompt asks for: plain, cot or long_cot.")
    n: int = Field(default=8, ge=1, description="Number of attempts, side by side.")


_KIND_OF: Mapping[str, str] = {
    **{kind: kind for kind in ("memory", "schedule", "spread", "layout", "show", "stop")},
    **{f"switch_{kind}": kind for kind in ("memory", "schedule")},
}
"""By the names of settings that name a part, of which kind that is."""
_CALLED_WITH: Mapping[str, Sequence[str]] = {
    "memory": ("past",),
    "schedule": ("round", "past"),
    "spread": ("instruction", "candidate", "width"),
    "layout": ("preamble", "task", "episodes", "instruction", "style"),
    "show": ("reward", "random"),
    "stop": ("rewards", "highest", "calls"),
}
_NAMED: Mapping[str, Mapping[str, Any]] = {"schedule": SCHEDULES, "spread": SPREADS, "layout": LAYOUTS}
_FINDERS: Mapping[str, Callable[..., Any]] = {"memory": memory, "show": ablation, "stop": stop_rule}


def part(kind: str, name: str | None, custom: Custom, *, imports: bool = False) -> Any:
    """The part of a kind and name, such as a memory; one that the graph was built with goes first.

    None is no part, where a setting may name none.

    Raises:
        ValueError: there is none of that name; names the choices.
    """
    if name is None:
        return None
    functions = custom.get(kind, {})
    if name in functions:
        return functions[name]
    if kind in _NAMED:
        return find(kind, name, {**_NAMED[kind], **functions}, imports=imports)
    return _FINDERS[kind](name, imports=imports)


def schema(
    base: type[RunSettings],
    defaults: Mapping[str, Any],
    parts: Mapping[str, str] | None = None,
    models: Sequence[str] = (MAIN,),
) -> type[RunSettings]:
    """The settings of one graph: its own defaults, and functions that were handed over beside the shipped names.

    Args:
        base: the settings of this kind of graph.
        defaults: what differs from them; a function stands for a custom part.
        parts: the names of models, evaluator and metric.
        models: the names under which the graph has its models; with several, `model` takes a mapping, too.

    Raises:
        ValueError: an unknown setting or name, or a number out of range; says which.
    """
    custom: dict[str, dict[str, Callable[..., Any]]] = {}
    named = dict(defaults)
    for setting, kind in _KIND_OF.items():
        functions = custom.setdefault(kind, {})
        if callable(value := named.get(setting)):
            _check_part(setting, kind, value)
            named[setting] = name = getattr(value, "__name__", type(value).__name__)
            if functions.get(name, value) is not value:
                raise ValueError(f"{setting} and {kind} are two functions of the name {name!r}; give them two names")
            functions[name] = value
        elif isinstance(value, str) and names_an_object(value):
            named[setting] = name = absolute(value)
            functions[name] = part(kind, name, {}, imports=True)
            if not callable(functions[name]):
                raise ValueError(f"{setting}={value!r} is a function, got {functions[name]!r:.80}")
            _check_part(setting, kind, functions[name])
    members = {
        "custom": {kind: functions for kind, functions in custom.items() if functions},
        "parts": dict(parts or {}),
        "models": tuple(models),
        "made": True,
        "__doc__": base.__doc__,
        "__module__": __name__,
    }
    own_base = type("Settings", (base,), members)
    checked = _validated(own_base, named)
    changed = {}
    for name in named:
        info = copy(base.model_fields[name])
        info.default = getattr(checked, name)
        if name in _NAMED:  # Studio offers them to choose from
            names = [*_NAMED[name], *custom.get(name, {}), info.default]
            info.json_schema_extra = {"enum": list(dict.fromkeys(names))}
        changed[name] = (info.annotation, info)
    if len(models) > 1:
        info = copy(changed["model"][1] if "model" in changed else base.model_fields["model"])
        info.description = f"Other models than the graph's own: one name, or names by {_listed(models)}."
        changed["model"] = (str | dict[str, str] | None, info)
    made: type[RunSettings] = create_model("Settings", __base__=own_base, **changed)  # type: ignore[call-overload]
    return made


def _check_part(setting: str, kind: str, value: Any) -> None:
    """Raise `ValueError` unless it is a function of what a part of its kind is called with."""
    random = ("random",) if kind == "memory" and draws(value) else ()
    check_function(setting, value, *_CALLED_WITH[kind], *random)


def check_drawn(settings: Mapping[str, Any], custom: Custom) -> None:
    """Check that a round has as many attempts as a memory draws of it.

    Args:
        settings: all of a run, by name.
        custom: the custom parts of its graph.

    Raises:
        ValueError: it has fewer.
    """
    width = settings.get("width", 1)
    for setting in ("memory", "switch_memory"):
        name = settings.get(setting)
        if (drawn := getattr(part("memory", name, custom), "drawn", 0)) > width:
            raise ValueError(
                f"{setting}={name!r} draws {drawn} attempts of a round, which has width={width}: give it "
                f"sample:{width}, or width={drawn} or more"
            )


def resolve(graph: type[RunSettings], context: Any) -> dict[str, Any]:
    """The settings of a run from what LangGraph hands over as its context: complete, as plain values.

    Args:
        graph: the schema of the graph.
        context: None, settings, or, in an embedded graph, whatever the parent has as its context: of that, only what
            stands under the graph's namespace ("icrl", "best_of_n", ...; a key or an attribute) is meant for it.

    Raises:
        ValueError: an unknown setting or name, or a number out of range.
    """
    return {**Settings().model_dump(), **graph.fixed, **_validated(graph, _meant(graph, context)).model_dump()}


def overrides(graph: type[RunSettings], context: Any) -> dict[str, Any]:
    """As `resolve`, but only what the context sets.

    Raises:
        ValueError: an unknown setting or name, or a number out of range.
    """
    meant = _meant(graph, context)
    checked = _validated(graph, meant).model_dump()
    return {name: checked[name] for name in meant}


def _meant(graph: type[RunSettings], context: Any) -> Mapping[str, Any]:
    """What of a context is meant for a graph."""
    if isinstance(context, RunSettings):
        if context.made and not isinstance(context, graph):
            return {}  # of another graph, around this one
    else:
        name = graph.namespace
        context = context.get(name) if isinstance(context, Mapping) else getattr(context, name, None)
        if not (context is None or isinstance(context, Mapping | RunSettings)):
            raise ValueError(f"the context's {name!r} must be settings or a mapping, got {context!r}")
    if isinstance(context, RunSettings):
        return {name: getattr(context, name) for name in context.model_fields_set}
    return context or {}


def _validated(graph: type[RunSettings], values: Mapping[str, Any]) -> RunSettings:
    return graph(**{str(name): value for name, value in values.items()})


def explain(error: ValidationError) -> str:
    """A validation error in one line, with the value and the choices of each mistake."""
    lines = []
    for mistake in error.errors():
        message = mistake["msg"].removeprefix("Value error, ")
        lines.append(f"{mistake['loc'][0]}={mistake['input']!r}: {message}" if mistake["loc"] else message)
    return "; ".join(lines)


RENAMED = {"label": "reward_label", "form": "schema_version", "said": "instruction"}
"""The names of settings in a state, of this or an earlier version, that have another name here."""


@dataclass(frozen=True, kw_only=True)
class SavedSettings:
    """The settings of one run as `prepare` saved them in its state, and what else is fixed for the run."""

    run: str = ""
    """The run's id: the same again when it is resumed, another for every other run."""
    schema_version: int | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    """The names of its models, evaluator and metric."""
    model: str | Mapping[str, str] | None = None
    rounds: int = 1
    warmup: int = 0
    n: int | None = None
    """Attempts of a topology that has no rounds."""
    width: int = 1
    """Attempts a round, side by side."""
    spread: str = "same"
    memory: str = "all"
    schedule: str = "plain"
    layout: str = "turns"
    show: str = "true"
    reward_label: str = "Reward"
    target: float | None = None
    patience: int | None = None
    stop: str | None = None
    confirmations: int | None = None
    max_failures: int = 3
    max_evaluator_failures: int | None = None
    feedback_limit: int | None = None
    latest_feedback_limit: int | None = None
    switch_after: int | None = None
    switch_model: str | None = None
    switch_memory: str | None = None
    switch_schedule: str | None = None
    on_error: OnError | None = None
    retests: int = 0
    reasoning_tags: str | None = None
    seed: int | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_seconds: float | None = None
    reopened: int = 0
    """The round from which failures and patience are counted, after a run was resumed that had ended."""
    lost_rounds: int = 0
    """Rounds that don't count, because nothing was answered in them."""
    instruction: Mapping[str, Any] | None = None
    """What a person asks for in one round: its number and a text (see `icrl_graph.topologies.revision`)."""
    revised: bool = False
    """Whether a person has changed a reward."""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> SavedSettings:
        """From the settings in a state."""
        known = {name: saved[stored] for stored, name in _STORED.items() if stored in saved}
        if (n := known.get("n")) is not None:
            known["width"] = n
        return cls(**known)

    @property
    def has_rounds(self) -> bool:
        """Whether there may be more than one round."""
        return self.n is None

    @property
    def caps(self) -> dict[str, float]:
        """The budgets that are set, by what they cap."""
        caps = {"calls": self.max_calls, "tokens": self.max_tokens, "usd": self.max_usd, "time": self.max_seconds}
        return {name: cap for name, cap in caps.items() if cap is not None}

    @property
    def feedback_limits(self) -> FeedbackLimits:
        """How much of the feedback a prompt shows."""
        return FeedbackLimits(self.feedback_limit, self.latest_feedback_limit)

    def replacement(self, name: str) -> str | None:
        """The model that takes the place of one of the graph's, if any."""
        names = {MAIN: self.model} if self.model is None or isinstance(self.model, str) else self.model
        return names.get(name, self.switch_model if name == SWITCH else None)


_NAMES = [each.name for each in fields(SavedSettings)]
_STORED = {**{old: name for old, name in RENAMED.items() if name in _NAMES}, **dict(zip(_NAMES, _NAMES, strict=True))}
"""The names of settings, by the names that a state may have them under."""
