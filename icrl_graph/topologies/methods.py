"""The methods, each one wiring of the same nodes.

    START -> prepare -> build_context => generate -> evaluate -> (stopped? select : build_context)            ICRL
    START -> prepare -> build_context => generate -> evaluate -> (stopped? select : reflect -> build_context) Reflexion,
                                                                                                              Self-Refine
    START -> prepare -> build_context => generate -> evaluate -> select                                       Best-of-N
    select -> END

A round has one attempt, or several side by side (`=>`), each a task of its own: with `width=w` they are w from one
history, and all enter that of the next round. ICRL is w = 1; Best-of-N is a single round of w = n.

Each function returns an uncompiled `StateGraph`; compile it with the checkpointer of your choice, add it to a larger
graph, or give it to LangGraph Studio as it is. Its input is `{"task": ..., "task_data": {...}}`; settings of a single
run go in as `context=`. What tells the methods apart is the wiring, the memory, the schedule, and what of an attempt
is shown; nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import Unpack

from icrl_graph.evaluators.evaluator import Evaluator, bind_evaluator
from icrl_graph.models.policy import as_policy
from icrl_graph.prompts.ablations import Show
from icrl_graph.prompts.layouts import Layout, Shows
from icrl_graph.prompts.memory import Memory, last
from icrl_graph.prompts.plan import Schedule
from icrl_graph.state.choices import find, pick
from icrl_graph.state.episode import LoopState
from icrl_graph.state.fingerprint import fingerprint
from icrl_graph.state.selection import best, last_answered, most_common, most_common_of_last_round, most_valued
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.nodes.parts import Chooser
from icrl_graph.topologies.nodes.reflect import to_reflect_on
from icrl_graph.topologies.options import Options
from icrl_graph.topologies.settings import BestOfNSettings, ReflexionSettings, SelfRefineSettings


def create_icrl(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    memory: str | Memory = "all",
    schedule: str | Schedule = "preset",
    layout: str | Layout = "turns",
    show: str | Show = "true",
    select: str = "reward",
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
            schedule "plain" the explorative ICRL of arXiv 2410.05362; "all" its naive one), "sample:N" (of the latest
            round; with schedule "aggregate" recursive self-aggregation, arXiv 2509.26626), or a function.
        schedule: what each round asks for: "preset" (even rounds explore, odd exploit), "autonomous", "explore",
            "exploit", "plain", "cot", "long_cot", "aggregate", or a function.
        layout: "turns" (append-only chat), "transcript" (one message), or a function.
        show: what the model sees of its rewards: "true", "zero", "hidden", "outcome", "no_feedback", "random",
            "constant:X", "flip:P", or an ablation such as `shuffled(pool)`. (`reward_label` masks what they are.)
        select: by what the answer is selected: "reward"; "majority", the answer that occurs most often (see `extract`);
            "last_majority", that of the last round.
        rounds: how many attempts at most.
        options: see `Options`.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong; the message names it, its value and the choices.

    Examples:
        >>> graph = create_icrl("openai:gpt-4.1-mini", lambda response: len(set(response)) / 26).compile()
        >>> graph.invoke({"task": "Write a pangram."}, context={"rounds": 4})  # doctest: +SKIP
    """
    settings: Any = {"memory": memory, "schedule": schedule, "layout": layout, "show": show, "rounds": rounds}
    choose = _checked(pick("selection", select, CHOOSERS), options)
    common: Any = {"metric": metric, "choose": choose, "parts": {"select": None if choose is best else select}}
    graph = Graph(model, evaluator, **common, **settings, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph


def create_reflexion(
    model: Any,
    evaluator: Evaluator,
    *,
    metric: Evaluator | None = None,
    reflector: Any = None,
    show_attempts: bool = False,
    distill: bool = False,
    memory: str | Memory = "reflections:3",
    schedule: str | Schedule = "retry",
    layout: str | Layout = "turns",
    show: str | Show = "true",
    select: str = "reward",
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
        reflector: writes the reflections, if not the model.
        show_attempts: show the attempts and their rewards, too, not only the reflections.
        distill: write one text about all attempts of a round instead of one about each. With a `width` and
            `memory="reflections:1"` that is parallel-distill-refine (arXiv 2510.01123).
        memory: which attempts' reflections a prompt shows.
        schedule: what each round asks for; "retry" tells the model to heed the reflections.
        layout: as for `create_icrl`.
        show: what is shown of a reward.
        select: as for `create_icrl`.
        rounds: how many attempts at most.
        options: see `Options`.

    Returns:
        The graph, uncompiled.

    Raises:
        ValueError: an argument is wrong.
    """
    settings: Any = {"memory": memory, "schedule": schedule, "layout": layout, "show": show, "rounds": rounds}
    writer = None if reflector is None else as_policy(reflector, what="reflector")
    shows: Shows = ("response", "shown", "reflection") if show_attempts else ("reflection",)
    parts = {"reflector": writer and writer.part, "attempts": "shown" if show_attempts else None}
    choose = _checked(pick("selection", select, CHOOSERS), options)
    parts |= {"distill": "rounds" if distill else None, "select": None if choose is best else select}
    calls = "round_calls" if distill else "extra_calls"
    common: Any = {"base": ReflexionSettings, "shows": shows, "choose": choose, "parts": parts, calls: 1}
    graph = Graph(model, evaluator, metric=metric, **common, **settings, **options)
    graph.add_reflect(
        "distill" if distill else "reflect", ("response", "shown"), writer, memory=last(1), whole_round=distill
    )
    return _reflecting(graph, distill)


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
        critic: gives the feedback, if not the model.
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
    settings: Any = {"memory": memory, "schedule": schedule, "layout": layout, "rounds": rounds}
    writer = None if critic is None else as_policy(critic, what="critic")
    shows: Shows = ("response", "reflection")
    parts = {"critic": writer and writer.part}
    common: Any = {"metric": metric, "base": SelfRefineSettings, "shows": shows, "extra_calls": 1, "parts": parts}
    graph = Graph(model, evaluator, choose=last_answered, **common, **settings, **options)
    graph.add_reflect("critique", shows, writer)
    return _reflecting(graph)


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
    choose = _checked(most_valued if selector is not None else pick("selection", select, CHOOSERS), options)
    settings: Any = {"n": n, "schedule": schedule}
    common: Any = {"metric": metric, "base": BestOfNSettings, "parts": {"select": selector or select}}
    graph = Graph(model, evaluator, choose=choose, selector=selector, **common, **settings, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_edge("evaluate", "select")
    return graph


CHOOSERS: Mapping[str, Chooser] = {
    "reward": best,
    "majority": most_common,
    "last_majority": most_common_of_last_round,
}
"""By what a method selects the answer, by name."""


TOPOLOGIES: Mapping[str, Callable[..., Graph]] = {
    "icrl": create_icrl,
    "reflexion": create_reflexion,
    "self_refine": create_self_refine,
    "best_of_n": create_best_of_n,
}
"""The shipped ones by name."""


def find_topology(topology: str | Callable[..., Graph]) -> Callable[..., Graph]:
    """The function that makes the graph of a topology.

    Args:
        topology: a shipped name, "path.py:name", "module:name", an entry point of the group icrl_graph.topologies, or
            the function itself: of a model, an evaluator and options, it returns a `Graph`.

    Raises:
        ValueError: there is none of that name; names the choices.
    """
    create: Any = find("topology", topology, TOPOLOGIES)
    if not callable(create):
        raise ValueError(f"a topology is a function that returns a Graph, got {create!r:.80}")
    return create  # type: ignore[no-any-return]


def size_option(create: Callable[..., Graph]) -> str:
    """The option of a topology for its number of attempts: "rounds", or "n" where all are made side by side."""
    parameters = inspect.signature(create).parameters
    return "n" if "n" in parameters and "rounds" not in parameters else "rounds"


def build(topology: str | Callable[..., Graph], model: Any, evaluator: Evaluator, **options: Any) -> Graph:
    """The graph of a topology.

    Raises:
        ValueError: there is no such topology, it does not return a `Graph`, or an argument is wrong.
    """
    create = find_topology(topology)
    try:
        inspect.signature(create).bind(model, evaluator, **options)
    except TypeError as error:
        raise ValueError(
            f"the topology {topology!r}: {error}; give its further arguments defaults, or pass them as options"
        ) from None
    graph = create(model, evaluator, **options)
    if not isinstance(graph, Graph):
        raise ValueError(f"the topology {topology!r} must return an icrl_graph.topologies.Graph, got {graph!r:.80}")
    if (code := fingerprint(create)) is not None:
        graph.parts.schema.code = {**graph.parts.schema.code, "topology": code}
    return graph


def _checked(choose: Chooser, options: Mapping[str, Any]) -> Chooser:
    """The way to choose the answer; raises `ValueError` if leaders are to be judged again, and it is not by reward."""
    if options.get("retests") and choose is not best:
        raise ValueError("retests require select='reward'; give that or no retests")
    return choose


def _reflecting(graph: Graph, whole_round: bool = False) -> Graph:
    """A loop that reflects on each attempt before the next, or on each round."""

    def after_prepare(state: LoopState) -> str:
        """With more rounds, the attempts of the round that was the last one are reflected on first."""
        return "reflect" if to_reflect_on(state["episodes"], whole_round) else "build_context"

    graph.add_route("prepare", after_prepare, ["build_context", "reflect"])
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "reflect")
    graph.add_loop("reflect", "build_context")
    return graph
