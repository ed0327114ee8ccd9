"""What topologies are made of: a graph with the nodes that all of them share, to be wired.

    def create_mine(model, evaluator, *, rounds=8, **options):
        graph = Graph(model, evaluator, rounds=rounds, **options)
        graph.add_edge("prepare", "build_context")
        graph.add_fan_out("build_context", "generate")
        graph.add_edge("generate", "evaluate")
        graph.add_loop("evaluate", "build_context")
        return graph

The page "Write your own method" has worked examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self, cast

from langchain_core.runnables import Runnable
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator
from icrl_graph.execution.node import TRACED, plain_node
from icrl_graph.models.policy import Policy
from icrl_graph.prompts.layouts import Shows
from icrl_graph.prompts.memory import Memory
from icrl_graph.prompts.plan import SCHEDULES, SPREADS
from icrl_graph.prompts.templates import INSTRUCTIONS
from icrl_graph.state.episode import Input, LoopState, Message, Output
from icrl_graph.state.selection import best, on_copies
from icrl_graph.topologies import nodes
from icrl_graph.topologies.options import assemble
from icrl_graph.topologies.settings import LIMITS, MAIN, SWITCH, RunSettings, Settings, overrides


class Graph(StateGraph[LoopState, Any, Any, Any]):
    """A topology before it is compiled: a `StateGraph` with the shared nodes.

    It has the nodes prepare, build_context, generate, evaluate and select, and the edges START -> prepare and
    select -> END. The edges between them, and further nodes, are what tells one topology from another.

    Args:
        model: a chat model, "provider:name", a Runnable, a compiled graph that takes `messages`, or a function.
        evaluator: gives the reward.
        metric: gives the number that is reported, if it is another one.
        base: the class of its settings: `Settings`, or a subclass with a `namespace` of its own and further fields.
        models: further models by name, for nodes added by `add_generate`. An episode says which of them wrote it
            (`model`), and `context={"model": {name: "provider:name"}}` replaces one for a run.
        shows: what of each attempt a prompt shows.
        choose: which episode gives the answer; by default the one with the highest reward.
        selector: instead, an evaluator: the answer is what it values most.
        extra_calls: paid calls of a round beyond an attempt and its judgements, such as a reflection: a round is not
            begun that could not be paid.
        round_calls: the same, once between two rounds, however many attempts they have.
        parts: further parts, such as a reflector, by the names under which a run saves their names.
        name: of the topology, as its events say it; default the namespace of its settings.
        options: see `Options`; and the defaults of its settings, such as rounds.

    Attributes:
        parts: all that is not a name or a number.
        any_names: whether `instructions` and `sampling` may have names that nothing in the graph asks by; else they are
            refused where the schedule and all nodes are shipped ones.

    Raises:
        ValueError: an argument is wrong; the message names it, its value and the choices.
    """

    def __init__(
        self,
        model: Any,
        evaluator: Evaluator,
        *,
        metric: Evaluator | None = None,
        base: type[RunSettings] = Settings,
        models: Mapping[str, Any] | None = None,
        shows: Shows = ("response", "shown"),
        choose: nodes.Chooser = best,
        selector: BoundEvaluator | None = None,
        extra_calls: int = 0,
        round_calls: Literal[0, 1] = 0,
        parts: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        for taken in (MAIN, SWITCH):
            if taken in (models or {}):
                raise ValueError(
                    f"the name {taken!r} is that of the graph's own model; give further models other names"
                )
        self.parts = assemble(
            base,
            {MAIN: model, **(models or {})},
            evaluator,
            metric,
            options,
            parts or {},
            name=name or base.namespace,
            shows=shows,
            choose=on_copies(choose),
            selector=selector,
            extra_calls=extra_calls,
            round_calls=round_calls,
        )
        self.any_names, self._asked_by, self._shipped = False, {"default", *INSTRUCTIONS}, set[str]()
        schema = self.parts.schema
        super().__init__(LoopState, context_schema=schema, input_schema=Input, output_schema=Output)
        self._add("prepare", nodes.prepare_node(self.parts))
        self._add("build_context", nodes.build_context_node(self.parts))
        self._add("generate", nodes.generate_node(self.parts))
        self._add("evaluate", nodes.evaluate_node(self.parts))
        self._add("select", nodes.select_node(self.parts))
        self.add_edge(START, "prepare")
        self.add_edge("select", END)

    @property
    def choose(self) -> nodes.Chooser:
        """Which of the attempts so far would give the answer."""
        return self.parts.choose

    def settings(self, changed: Mapping[str, Any] | None = None) -> RunSettings:
        """The settings of a run: the graph's own, but for what is changed."""
        return self.parts.schema(**(changed or {}))

    def settings_within(self, wished: Mapping[str, Any], context: Any = None) -> RunSettings:
        """The settings of a run for somebody else, such as the client of a server: of two limits the lower one holds.

        Args:
            wished: what they set: of `LIMITS` only what lowers them, of the others anything; None sets nothing.
            context: settings of the owner's, where they differ from those of the graph: a context of LangGraph.

        Raises:
            ValueError: an unknown setting or name, or a number out of range.
        """
        own, given = overrides(self.parts.schema, context), {k: v for k, v in wished.items() if v is not None}
        limits, checked = {**self.settings().model_dump(), **own}, self.settings(given).model_dump()
        lower = {k: min(checked[k], limits[k]) for k in given if k in LIMITS and limits[k] is not None}
        return self.settings({**own, **given, **lower})

    def saved_by(self, saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
        """It, compiled with a checkpointer. It is compiled once: for each of a thousand runs, that would be 24 KB."""
        return self._compiled.copy({"checkpointer": saver})

    @cached_property
    def _compiled(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        return self.compile()

    def node(self, name: str) -> Runnable[Any, Any]:
        """One of its nodes, to be called on its own, within a node of another graph or LangChain's middleware.

        It takes a state (`icrl_graph.state.episode.LoopState`) and gives what is to be written into it.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.nodes:
            raise ValueError(f"unknown node {name!r}; the graph has {', '.join(map(repr, self.nodes))}")
        node: Any = self.nodes[name].runnable
        return cast(Runnable[Any, Any], node)

    def prompt(self, state: LoopState, at: int = -1) -> list[Message]:
        """The prompt of an attempt, made again from what is saved.

        Args:
            state: of a run of this graph, whose settings say what of the past is shown, and how.
            at: which of its attempts; default the latest.

        Returns:
            Chat messages in OpenAI's format.

        Raises:
            ValueError: the state has no attempt yet: `prepare` and `build_context` open the first.
        """
        if not (state and state.get("episodes")):
            raise ValueError("the state has no attempt, of which there could be a prompt: build_context opens one")
        return nodes.prompt(state, self.parts, at)

    def add_generate(self, name: str, model: str) -> None:
        """Add a node that asks another of the graph's models for an attempt.

        Args:
            name: the node's; its costs stand under it.
            model: one of `models`.

        Raises:
            ValueError: there is no model of that name.
        """
        if model not in self.parts.policies:
            raise ValueError(f"unknown model {model!r}; the graph has {', '.join(map(repr, self.parts.policies))}")
        self._add(name, nodes.generate_node(self.parts, name, model))

    def add_reflect(
        self,
        instruction: str,
        shows: Shows,
        writer: Policy | None = None,
        memory: Memory | None = None,
        whole_round: bool = False,
    ) -> None:
        """Add the node `reflect`, which has the last attempt reflected on.

        Args:
            instruction: the name of what is asked for.
            shows: what of each attempt the question shows.
            writer: writes the reflection, if not the graph's own model.
            memory: which attempts it shows beside the last; default the run's own.
            whole_round: write one text about all attempts of a round instead of one about each.
        """
        policy = writer or self.parts.plain
        self._asked_by.add(instruction)
        node = nodes.reflect_node(policy, self.parts, instruction, shows, memory, writer is None, whole_round)
        self._add("reflect", node)

    def add_route(self, source: str, route: Callable[[LoopState], Any], targets: list[str]) -> None:
        """Add conditional edges by a function that never waits; under `ainvoke` it takes no thread."""
        self.add_conditional_edges(source, plain_node(route), targets)

    def add_loop(self, source: str, target: str) -> None:
        """Add the edges after a node that may end the run: to `target`, or to `select` once it has stopped."""

        def next_round(state: LoopState) -> str:
            return "select" if state.get("stopped") else target

        self.add_route(source, next_round, [target, "select"])

    def add_fan_out(self, source: str, target: str) -> None:
        """Add the edge after `build_context`: of several attempts of a round each is a task of its own."""

        def attempts(state: LoopState) -> str | list[Send]:
            *_, before, latest = [None, *state["episodes"][-2:]]
            is_alone = before is None or before["round"] < latest["round"]
            return target if is_alone else send_attempts(state, target)

        self.add_route(source, attempts, [target])

    def check_names(self) -> None:
        """Check that something asks by each name that `instructions` and `sampling` have; a custom part may.

        Raises:
            ValueError: nothing does.
        """
        values = self.parts.schema().model_dump()
        shipped = {"schedule": SCHEDULES, "switch_schedule": (None, *SCHEDULES), "spread": SPREADS}
        own = [setting for setting, names in shipped.items() if setting in values and values[setting] not in names]
        is_custom = own or self.nodes.keys() - self._shipped
        if self.any_names or is_custom:
            return
        for option, choices in (("instructions", self._asked_by - {"default"}), ("sampling", self._asked_by)):
            if unknown := [name for name in getattr(self.parts, option) if name not in choices]:
                raise ValueError(
                    f"{option} has {', '.join(map(repr, unknown))}, by which nothing is asked; choose among "
                    f"{', '.join(sorted(choices))}, or give a schedule of your own"
                )

    def validate(self, interrupt: Sequence[str] | None = None) -> Self:
        """Check the wiring and the names, as `compile` does.

        Raises:
            ValueError: an edge names an unknown node, or no way leads from prepare to select, which gives the answer;
                or see `check_names`.
        """
        self.check_names()
        super().validate(interrupt)
        reached, new = set[str](), {"prepare"}
        while new:
            reached |= new
            new = {target for source in new for target in self._targets(source)} - reached
        if "select" not in reached:
            raise ValueError(
                "no way leads from prepare to select, which gives the answer: add one by add_loop or an edge"
            )
        return self

    def _targets(self, source: str) -> set[str]:
        """The nodes that may follow one; all, where a branch or a node does not say."""
        ends = [branch.ends for branch in self.branches[source].values()] if source in self.branches else []
        if None in ends:
            return set(self.nodes)
        named = {target for each in ends if each is not None for target in each.values()}
        own = self.nodes[source].ends if source in self.nodes else ()
        return named | set(own or ()) | {end for start, end in self._all_edges if start == source}

    def _add(self, name: str, node: Runnable[Any, Any] | Callable[..., Any]) -> None:
        self._shipped.add(name)
        self.add_node(name, node, trace_policy=TRACED)


def uncompiled(graph: Any) -> Graph | None:
    """A topology as it is before it is compiled; None of what is none."""
    made = getattr(graph, "builder", graph)
    return made if isinstance(made, Graph) else None


def send_attempts(state: LoopState, target: str) -> list[Send]:
    """Each attempt of the latest round on its way to a node, with the rounds before it and all that nodes need."""
    shared = {key: state[key] for key in ("inputs", "settings")}
    latest = state["episodes"][-1]["round"]
    past = [episode for episode in state["episodes"] if episode["round"] < latest]
    opened = [episode for episode in state["episodes"] if episode["round"] == latest]
    return [Send(target, {**shared, "episodes": [*past, episode]}) for episode in opened]
