"""The methods, each one wiring of the same nodes.

    START -> prepare -> build_context -> generate -> evaluate -> (stopped? select : build_context)            ICRL
    START -> prepare -> build_context -> generate -> evaluate -> (stopped? select : reflect -> build_context) Reflexion,
                                                                                                              Self-Refine
    START -> prepare -> build_context =Send=> generate -> evaluate -> select                                  Best-of-N
    select -> END

Each function returns an uncompiled `StateGraph`; compile it with the checkpointer of your choice, add it to a larger
graph, or give it to LangGraph Studio as it is. Its input is `{"task": ..., "task_data": {...}}`; settings of a single
run go in as `context=`. What tells the methods apart is the wiring, the memory, the schedule, and what of an attempt
is shown; nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from typing_extensions import TypedDict, Unpack

from icrl_graph import nodes, settings
from icrl_graph.ablations import Show
from icrl_graph.context import Layout, Memory, Schedule, last, pick
from icrl_graph.journal import Driver, Journal, MemoryJournal
from icrl_graph.models import FunctionModel, Policy, as_policy, name_of_part, same_model
from icrl_graph.prices import Prices, are_prices
from icrl_graph.prices import check as check_price
from icrl_graph.prompts import INSTRUCTIONS
from icrl_graph.rewards import Evaluator, Scorer, as_scorer
from icrl_graph.settings import BestOfNSettings, ReflexionSettings, RunSettings, SelfRefineSettings, Settings
from icrl_graph.state import Input, LoopState, Message, Output, best, last_answered, most_common, most_valued

Graph = StateGraph[LoopState, Any, Any, Any]
"""What a topology is, before it is compiled."""


class Options(TypedDict, total=False):
    """What every topology takes beside its own arguments."""

    # parts
    bounds: tuple[float, float] | None
    """Lowest and highest reward that make sense; one outside leaves the attempt unscored."""
    timeout: float | None
    """Seconds for one evaluation, or for each call of one that makes several; after that the attempt is unscored."""
    system: str
    """A system prompt."""
    examples: Sequence[Message]
    """Few-shot turns ahead of the task, as chat messages."""
    instructions: Mapping[str, str]
    """Texts of your own for "explore", "exploit", "autonomous" or names that your schedule gives."""
    sampling: Mapping[str, Mapping[str, Any]]
    """Sampling parameters per instruction: `{"explore": {"temperature": 1.2}, "default": {...}}`. Chat models only."""
    extract: Callable[[str], Any] | type[BaseModel] | None
    """Makes the answer of a response, in JSON-able values; a pydantic model instead asks for structured output."""
    prices: Prices | None
    """US dollars for a million tokens by model, such as `{"my-model": {"input": 0.4, "cached": 0.1, "output": 1.6}}`;
    default those that the extra `prices` knows."""
    journal: Journal | None
    """Where paid replies are kept; default in memory. Give an `SqliteJournal` beside a checkpointer that lasts."""
    # settings; each can be overridden for one run by `context=`
    warmup: int
    """The first rounds that see no history."""
    label: str
    """The word ahead of a reward in the prompt."""
    target: float | None
    """Stop when a reward reaches this."""
    patience: int | None
    """Stop after so many rounds without a better reward."""
    retests: int
    """Judge the three leading attempts so many times more before one is chosen: for rewards that are noisy."""
    max_failures: int
    """Stop after so many rounds in a row without any response."""
    max_calls: int | None
    """Stop before a paid call would pass this."""
    max_tokens: int | None
    """Start no call once so many tokens, in and out, are spent."""
    max_usd: float | None
    """Start no call once so many US dollars are spent. Needs the prices of the models."""
    max_seconds: float | None
    """Start no call once so many seconds are spent waiting."""
    seed: int | None
    """Makes ablations repeatable, and samples, if the model takes a seed."""


def create_icrl(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    memory: str | Memory = "all",
    schedule: str | Schedule = "preset",
    layout: str | Layout = "turns",
    show: str | Show = "true",
    rounds: int = 8,
    **options: Unpack[Options],
) -> Graph:
    """In-context reinforcement learning: each prompt shows earlier attempts with their rewards (arXiv 2506.06303).

    Departures from the paper: the history is shown as chat turns by default (`layout="transcript"` is its form), and
    a run may stop early.

    Args:
        model: a chat model, "provider:name", a Runnable, a compiled graph that takes `messages`, or a function.
        evaluator: gives the reward that the method sees and optimises: a callable, LangChain tool or Runnable, called
            with the arguments it names among task, response, answer, steps and task_data; sync or async.
        metric: gives the number that is reported, if it is another one than the reward. Steers nothing.
        memory: which earlier attempts a prompt shows: "all", "none", "last:N", "best:N", "tokens:N", or a function.
        schedule: what each round asks for: "preset" (even rounds explore, odd exploit), "autonomous", "explore",
            "exploit", "plain", or a function.
        layout: "turns" (append-only chat), "transcript" (one message), or a function.
        show: what the model sees of its rewards: "true", "zero", "hidden", "outcome", "no_feedback", "random",
            "constant:X", "flip:P", or an ablation such as `shuffled(pool)`. (`label` masks what they are.)
        rounds: how many attempts at most.
        options: see `Options`.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong; the message names it, its value and the choices.

    Example:
        >>> graph = create_icrl("openai:gpt-4.1-mini", lambda response: len(set(response)) / 26).compile()
        >>> graph.invoke({"task": "Write a pangram."}, context={"rounds": 4})  # doctest: +SKIP
    """
    defaults = {"memory": memory, "schedule": schedule, "layout": layout, "show": show, "rounds": rounds}
    policy, scorers, parts = _assemble(Settings, model, evaluator, metric, defaults, options)
    graph = _graph(policy, scorers, parts, options)
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_conditional_edges("evaluate", _route, ["build_context", "select"])
    return graph


def create_reflexion(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    reflector: Any = None,
    show_attempts: bool = False,
    memory: str | Memory = "last:3",
    schedule: str | Schedule = "retry",
    layout: str | Layout = "turns",
    show: str | Show = "true",
    rounds: int = 8,
    **options: Unpack[Options],
) -> Graph:
    """Reflexion: after a failed attempt the model says why, and later prompts show what it said (arXiv 2303.11366).

    Give a `target`: an attempt that reaches it ends the run, and every other one is reflected on. The reflection is
    written from the last attempt and its reward; prompts show the last three reflections and no attempts.

    Departures from the paper: the reflection is not written with the earlier reflections in view, and the memory is
    part of one run on one task.

    Args:
        model: as for `create_icrl`.
        evaluator: gives the reward. The reflection is written with it in view, as far as `show` lets it through.
        metric: gives the number that is reported, if it is another one.
        reflector: who writes the reflections, if not the model.
        show_attempts: show the attempts and their rewards, too, not only the reflections.
        memory: which attempts' reflections a prompt shows.
        schedule: what each round asks for; "retry" tells the model to heed the reflections.
        layout: as for `create_icrl`.
        show: what is shown of a reward.
        rounds: how many attempts at most.
        options: see `Options`.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong.
    """
    defaults = {"memory": memory, "schedule": schedule, "layout": layout, "show": show, "rounds": rounds}
    policy, scorers, parts = _assemble(
        ReflexionSettings, model, evaluator, metric, defaults, options, reflector=reflector
    )
    parts = replace(parts, shows=("response", "shown", "reflection") if show_attempts else ("reflection",))
    writer = policy if reflector is None else as_policy(reflector)
    reflect = nodes.reflect(writer, parts, "reflect", ("response", "shown"), memory=last(1))
    return _reflecting(policy, scorers, parts, options, reflect)


def create_self_refine(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    critic: Any = None,
    memory: str | Memory = "all",
    schedule: str | Schedule = "refine",
    layout: str | Layout = "turns",
    rounds: int = 8,
    **options: Unpack[Options],
) -> Graph:
    """Self-Refine: the model gives feedback on its own last answer, and improves it by that (arXiv 2303.17651).

    Every prompt shows all earlier answers with their feedback, and no reward: the reward is only recorded. The answer
    of the run is the last one, which need not be the best; `regret` says what that cost.

    Departures from the paper: feedback and refinement have one general prompt each instead of few-shot prompts for each
    task, and the run does not end when the feedback says that nothing is left to improve. With `target` or `patience`
    the reward ends the run, which the paper does not do.

    Args:
        model: as for `create_icrl`.
        evaluator: gives the reward that is recorded.
        metric: gives the number that is reported, if it is another one.
        critic: who gives the feedback, if not the model.
        memory: which earlier answers a prompt shows. It sees no rewards.
        schedule: what each round asks for; "refine" tells the model to follow the feedback.
        layout: as for `create_icrl`.
        rounds: how many answers at most.
        options: see `Options`.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong.
    """
    defaults = {"memory": memory, "schedule": schedule, "layout": layout, "rounds": rounds}
    policy, scorers, parts = _assemble(SelfRefineSettings, model, evaluator, metric, defaults, options, critic=critic)
    parts = replace(parts, shows=("response", "reflection"))
    writer = policy if critic is None else as_policy(critic)
    reflect = nodes.reflect(writer, parts, "critique", parts.shows)
    return _reflecting(policy, scorers, parts, options, reflect, choose=last_answered)


def create_best_of_n(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    n: int = 8,
    select: str | Evaluator = "reward",
    schedule: str | Schedule = "plain",
    **options: Unpack[Options],
) -> Graph:
    """Best-of-N: n attempts from the task alone, side by side, and the best one of them. The control.

    With n = 1 and `schedule="cot"` or "long_cot" it is (long) chain-of-thought prompting.

    Args:
        model: as for `create_icrl`.
        evaluator: gives the reward.
        metric: gives the number that is reported, if it is another one.
        n: how many attempts; a budget of calls below it makes them fewer.
        select: by what the answer is selected: "reward"; "majority", the answer that occurs most often (see `extract`);
            or another evaluator, such as a judge, so that the reward selects nothing. `regret` says how much higher the
            best reward was than that of the answer.
        schedule: what is asked for.
        options: see `Options`; of the settings, those of budgets and the seed.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong.
    """
    selector = None if isinstance(select, str) else as_scorer(select, "selector")
    choose = most_valued if selector is not None else pick("selection", select, _CHOOSERS)
    defaults = {"n": n, "schedule": schedule}
    policy, scorers, parts = _assemble(BestOfNSettings, model, evaluator, metric, defaults, options, select=select)
    graph = _graph(policy, scorers, parts, options, choose, selector)
    graph.add_conditional_edges("build_context", _fan_out, ["generate"])
    graph.add_edge("generate", "evaluate")
    graph.add_edge("evaluate", "select")
    return graph


_CHOOSERS: Mapping[str, nodes.Chooser] = {"reward": best, "majority": most_common}


TOPOLOGIES: Mapping[str, Callable[..., Graph]] = {
    "icrl": create_icrl,
    "reflexion": create_reflexion,
    "self_refine": create_self_refine,
    "best_of_n": create_best_of_n,
}
"""By name."""


def _route(state: LoopState) -> str:
    return "select" if state.get("stopped") else "build_context"


def _fan_out(state: LoopState) -> list[Send]:
    shared = {key: state[key] for key in ("inputs", "settings")}
    return [Send("generate", {**shared, "episodes": [episode]}) for episode in state["episodes"]]


def _reflecting(
    policy: Policy,
    scorers: tuple[Scorer, Scorer | None],
    parts: nodes.Parts,
    options: Options,
    reflect: Runnable[Any, Any],
    choose: nodes.Chooser = best,
) -> Graph:
    """A loop that reflects on each attempt before the next."""
    graph = _graph(policy, scorers, parts, options, choose, extra_calls=1)
    graph.add_node("reflect", reflect)
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_conditional_edges("evaluate", _route_to_reflect, ["reflect", "select"])
    graph.add_conditional_edges("reflect", _route, ["build_context", "select"])
    return graph


def _route_to_reflect(state: LoopState) -> str:
    return "select" if state.get("stopped") else "reflect"


def _graph(
    policy: Policy,
    scorers: tuple[Scorer, Scorer | None],
    parts: nodes.Parts,
    options: Options,
    choose: nodes.Chooser = best,
    selector: Scorer | None = None,
    extra_calls: int = 0,
) -> Graph:
    """The nodes that all methods share, and the edges at both ends."""
    evaluator, metric = scorers
    judges = [scorer for scorer in (evaluator, metric, selector) if scorer is not None]
    calls_each = 1 + extra_calls + sum(judge.calls for judge in judges)
    bounds, timeout = options.get("bounds"), options.get("timeout")
    graph: Graph = StateGraph(LoopState, context_schema=parts.schema, input_schema=Input, output_schema=Output)
    graph.add_node("prepare", nodes.prepare(parts))
    graph.add_node("build_context", nodes.build_context(parts, calls_each))
    graph.add_node("generate", nodes.generate(policy, parts))
    graph.add_node("evaluate", nodes.evaluate(evaluator, metric, parts, bounds, timeout, calls_each))
    graph.add_node("select", nodes.select(parts, evaluator, choose, selector, bounds, timeout))
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "build_context")
    graph.add_edge("select", END)
    return graph


def _assemble(
    base: type[RunSettings],
    model: Any,
    evaluator: Evaluator,
    metric: Evaluator | None,
    defaults: dict[str, Any],
    options: Options,
    **others: Any,
) -> tuple[Policy, tuple[Scorer, Scorer | None], nodes.Parts]:
    """Check all arguments and sort them into parts and settings."""
    policy = as_policy(model)
    asked = policy.part
    others = {name: part for name, part in others.items() if part is not None}
    scorers = as_scorer(evaluator), None if metric is None else as_scorer(metric, "metric")
    given = {"model": policy.part, "evaluator": evaluator, "metric": metric, **others}
    names = {
        name: part if isinstance(part, str) else name_of_part(part) for name, part in given.items() if part is not None
    }
    settable: dict[str, Any] = dict(options)
    parts = {name: settable.pop(name) for name in _CHECKS if name in settable}
    choices = [*defaults, *_CHECKS, *(name for name in base.model_fields if name not in defaults)]
    if unknown := settable.keys() - set(choices):
        raise ValueError(f"unknown argument {', '.join(map(repr, sorted(unknown)))}; choose among {', '.join(choices)}")
    for name, value in parts.items():
        valid, form = _CHECKS[name]
        if value is not None and not valid(value):
            raise ValueError(f"{name} is {form}, got {value!r:.80}")
    extract, sampling = parts.get("extract"), parts.get("sampling") or {}
    if sampling and policy.kind != "chat":
        raise ValueError("sampling parameters are passed to chat models only; the model given is none")
    if isinstance(extract, type) and issubclass(extract, BaseModel):
        if not isinstance(policy.part, BaseChatModel) or sampling:
            raise ValueError("structured output is asked of a chat model, without sampling parameters per instruction")
        structured = policy.part.with_structured_output(extract, include_raw=True)
        policy, extract = replace(policy, part=structured, kind="runnable"), None
    system = [{"role": "system", "content": parts["system"]}] if parts.get("system") else []
    journal = parts.get("journal")
    schema = settings.schema(base, {**defaults, **settable}, names)
    models = _chat_models(asked, evaluator, metric, *others.values())
    if schema.model_fields["max_usd"].default is not None:
        for name in models:
            check_price(name, parts.get("prices") or {})
    return (
        policy,
        scorers,
        nodes.Parts(
            schema=schema,
            driver=Driver(MemoryJournal() if journal is None else journal, parts.get("prices")),
            instructions={**INSTRUCTIONS, **(parts.get("instructions") or {})},
            preamble=[*system, *convert_to_openai_messages(list(parts.get("examples") or []))],
            sampling=sampling,
            extract=extract,
            rewarded_by=rewarded_by(scorers[0], asked),
            models=models,
        ),
    )


def rewarded_by(evaluator: Scorer, model: Any) -> str:
    """Who gives the rewards of a run: "oracle", "judged" or "self-judged"."""
    judges = getattr(evaluator.part, "judges", ())
    if any(same_model(judge, model) for judge in judges):
        return "self-judged"
    return "judged" if evaluator.calls else "oracle"


def _chat_models(*parts: Any) -> tuple[str, ...]:
    """The names of the chat models among some parts and their judges; whether they have prices can be told ahead."""
    models = [model for part in parts for model in (part, *getattr(part, "judges", ()))]
    chat = (m for m in models if isinstance(m, BaseChatModel) and not isinstance(m, FunctionModel))
    return tuple(dict.fromkeys(map(name_of_part, chat)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_bounds(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _are_messages(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(
        isinstance(m, BaseMessage) or (isinstance(m, Mapping) and {"role", "content"} <= m.keys()) for m in value
    )


def _maps_names_to(kind: type) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        return all(isinstance(name, str) and isinstance(held, kind) for name, held in value.items())

    return check


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bounds": (_are_bounds, "(lowest, highest) reward, two numbers"),
    "timeout": (lambda value: _is_number(value) and value > 0, "a time in seconds, above 0"),
    "system": (lambda value: isinstance(value, str), "a text"),
    "examples": (_are_messages, "chat messages, each with role and content"),
    "instructions": (_maps_names_to(str), "texts by name, such as {'explore': 'Try something else.'}"),
    "sampling": (
        _maps_names_to(Mapping),
        "parameters by instruction or 'default', such as {'explore': {'temperature': 1.2}}",
    ),
    "extract": (callable, "a function or a pydantic model"),
    "prices": (are_prices, "US dollars for a million tokens by model, such as {'my-model': {'input': 1, 'output': 4}}"),
    "journal": (lambda value: isinstance(value, Journal), "a Journal, such as SqliteJournal(path)"),
}
"""The parts among the options: whether one is well formed, and what it should be."""
