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

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import Unpack

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.models.policy import as_policy
from icrl_graph.prompts.ablations import Show
from icrl_graph.prompts.layouts import Layout, Shows
from icrl_graph.prompts.memory import Memory, last
from icrl_graph.prompts.plan import Schedule
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import Input, LoopState, Output
from icrl_graph.state.selection import best, last_answered, most_common, most_valued
from icrl_graph.topologies import nodes
from icrl_graph.topologies.options import Assembled, Options, assemble
from icrl_graph.topologies.settings import BestOfNSettings, ReflexionSettings, RunSettings, SelfRefineSettings, Settings


class Graph(StateGraph[LoopState, Any, Any, Any]):
    """What a topology is, before it is compiled: a `StateGraph` that knows what it was built of.

    Attributes:
        parts: all that is no name or number.
        choose: which of the attempts so far would give the answer.
    """

    def __init__(self, parts: nodes.Parts, choose: nodes.Chooser) -> None:
        super().__init__(LoopState, context_schema=parts.schema, input_schema=Input, output_schema=Output)
        self.parts, self.choose = parts, choose

    def add(self, **named: Any) -> None:
        """Add nodes by their names."""
        for name, node in named.items():
            self.add_node(name, node, trace_policy=nodes.TRACED)

    def settings(self, given: Mapping[str, Any] | None = None) -> RunSettings:
        """The settings of a run: the graph's own, but for what is given."""
        return self.parts.schema(**(given or {}))


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
            with the arguments it names among task, response, answer, steps, task_data and history; sync or
            async.
        metric: gives the number that is reported, if it is another one than the reward. Steers nothing.
        memory: which earlier attempts a prompt shows: "all", "none", "last:N", "best:N", "tokens:N", "positive:P" (with
            schedule "plain" the explorative ICRL of arXiv 2410.05362; "all" its naive one), or a function.
        schedule: what each round asks for: "preset" (even rounds explore, odd exploit), "autonomous", "explore",
            "exploit", "plain", "cot", "long_cot", or a function.
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
    graph = _graph(assemble(Settings, model, evaluator, metric, defaults, options))
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_conditional_edges("evaluate", nodes.straight(_route), ["build_context", "select"])
    return graph


def create_reflexion(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    reflector: Any = None,
    show_attempts: bool = False,
    memory: str | Memory = "reflections:3",
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
    writer = None if reflector is None else as_policy(reflector)
    shows: Shows = ("response", "shown", "reflection") if show_attempts else ("reflection",)
    others = {"reflector": writer and writer.part, "attempts": "shown" if show_attempts else None}
    built = assemble(ReflexionSettings, model, evaluator, metric, defaults, options, shows, **others)
    reflect = nodes.reflect_node(
        writer or built.parts.plain, built.parts, "reflect", ("response", "shown"), memory=last(1), own=writer is None
    )
    return _reflecting(built, reflect)


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
    writer = None if critic is None else as_policy(critic)
    shows: Shows = ("response", "reflection")
    others = {"critic": writer and writer.part}
    built = assemble(SelfRefineSettings, model, evaluator, metric, defaults, options, shows, **others)
    reflect = nodes.reflect_node(writer or built.parts.plain, built.parts, "critique", shows, own=writer is None)
    return _reflecting(built, reflect, choose=last_answered)


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
        options: see `Options`; of the settings, those of budgets, retests and the seed.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong.
    """
    selector = None if isinstance(select, str) else bind_evaluator(select, "selector")
    choose = most_valued if selector is not None else pick("selection", select, _CHOOSERS)
    if options.get("retests") and choose is not best:
        raise ValueError("retests are of a selection by reward; give select='reward' or no retests")
    defaults = {"n": n, "schedule": schedule}
    built = assemble(BestOfNSettings, model, evaluator, metric, defaults, options, select=selector or select)
    graph = _graph(built, choose, selector)
    graph.add_edge("prepare", "build_context")
    graph.add_conditional_edges("build_context", nodes.straight(_fan_out), ["generate"])
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


def _reflecting(built: Assembled, reflect: Runnable[Any, Any], choose: nodes.Chooser = best) -> Graph:
    """A loop that reflects on each attempt before the next."""
    graph = _graph(built, choose, extra_calls=1)
    graph.add(reflect=reflect)
    graph.add_conditional_edges("prepare", nodes.straight(_route_from_prepare), ["build_context", "reflect"])
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_conditional_edges("evaluate", nodes.straight(_route_to_reflect), ["reflect", "select"])
    graph.add_conditional_edges("reflect", nodes.straight(_route), ["build_context", "select"])
    return graph


def _route_from_prepare(state: LoopState) -> str:
    """With more rounds, the attempt that was the last one is reflected on first."""
    last: Any = state["episodes"][-1] if state["episodes"] else {}
    is_open = "response" in last and not ("reflection" in last or "reflection_error" in last)
    return "reflect" if is_open else "build_context"


def _route_to_reflect(state: LoopState) -> str:
    return "select" if state.get("stopped") else "reflect"


def _graph(
    built: Assembled, choose: nodes.Chooser = best, selector: BoundEvaluator | None = None, extra_calls: int = 0
) -> Graph:
    """The nodes that all methods share, and the edges at both ends."""
    limits = (built.bounds, built.timeout)
    judges = [scorer for scorer in (built.parts.evaluator, built.metric, selector) if scorer is not None]
    parts = replace(built.parts, calls_each=1 + extra_calls + sum(judge.calls for judge in judges))
    graph = Graph(parts, choose)
    graph.add(
        prepare=nodes.prepare_node(parts),
        build_context=nodes.build_context_node(parts),
        generate=nodes.generate_node(parts),
        evaluate=nodes.evaluate_node(built.metric, parts, *limits),
        select=nodes.select_node(parts, choose, selector, *limits),
    )
    graph.add_edge(START, "prepare")
    graph.add_edge("select", END)
    return graph
