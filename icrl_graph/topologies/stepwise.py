"""A topology whose attempts are made by another library's loop, an agent's say: its nodes are played around them.

    steps = Stepwise("icrl", score, {"rounds": 4})
    run = steps.play(steps.begin({"task": "..."}))
    while not run["stopped"]:
        with steps.counting() as used:
            reply = ...  # the other loop answers steps.graph.prompt(run)
        run = steps.play(steps.end(spending(run, used), reply))

To be called within a node of a graph, whose checkpointer holds the replies of judges; the state of the run is the
caller's to keep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langgraph.config import get_config

from icrl_graph.errors import BudgetExceeded
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.execution.usage import collect_usage, usage_of
from icrl_graph.models.responses import read_response
from icrl_graph.state.episode import Usage, upsert
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import build
from icrl_graph.topologies.nodes.generate import extracted
from icrl_graph.topologies.nodes.parts import budget_of, costs, identity
from icrl_graph.topologies.nodes.telling import teller
from icrl_graph.topologies.settings import SavedSettings

Run = dict[str, Any]
"""The state of a run, as its nodes know it, and under `patches` what has been written to its episodes."""
Play = Generator[tuple[str, Run], Mapping[str, Any], Run]
"""Yields the name of a node with the state to play it on, is sent what the node writes, and returns the run."""
_ELSEWHERE = ("model", "system", "sampling", "max_response_tokens", "cache", "switch_model")
_FIXED: Mapping[str, tuple[Any, str]] = {
    "model": (None, "the model is the other loop's"),
    "switch_model": (None, "the model is the other loop's"),
    "width": (1, "whoever makes the attempts, such as an agent, makes one at a time"),
}
"""Settings that make no sense for attempts that another loop makes: the value that they have, and why."""


def elsewhere() -> str:
    """Stands where a topology has its model."""
    raise NotImplementedError("another loop makes the attempts")


class Stepwise:
    """A topology to be played step by step.

    Args:
        topology: "icrl", "reflexion", "self_refine", or another one that makes one attempt after another.
        evaluator: gives the reward.
        options: of the topology.
        fixed: further settings that make no sense: by name the value that they have, and why.

    Attributes:
        graph: the topology.

    Raises:
        ValueError: an argument is wrong, or makes no sense where another loop makes the attempts; says which.
    """

    def __init__(
        self,
        topology: str | Callable[..., Graph],
        evaluator: Evaluator,
        options: Mapping[str, Any],
        fixed: Mapping[str, tuple[Any, str]] | None = None,
    ) -> None:
        for name in _ELSEWHERE:
            if name in options:
                raise ValueError(f"{name} is of the model that answers: give it there")
        if isinstance(options.get("extract"), type):
            raise ValueError("structured output is of the model that answers: ask for it there, instead of by extract")
        self.graph = build(topology, elsewhere, evaluator, **options)
        self._judging, self._fixed = _judging(self.graph, topology), {**_FIXED, **(fixed or {})}
        self._check(self.graph.settings().model_dump())

    def _check(self, settings: Mapping[str, Any]) -> None:
        for name, (only, why) in self._fixed.items():
            if settings.get(name) not in (None, only):
                raise ValueError(f"{name}={settings[name]!r} makes no sense here: {why}")

    def play(self, play: Play) -> Run:
        """Play nodes."""
        told: Any = None
        try:
            while True:
                name, run = play.send(told)
                told = self.graph.node(name).invoke(run, get_config())
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def aplay(self, play: Play) -> Run:
        """`play` under `ainvoke`."""
        told: Any = None
        try:
            while True:
                name, run = play.send(told)
                told = await self.graph.node(name).ainvoke(run, get_config())
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def begin(self, given: Mapping[str, Any]) -> Play:
        """Begin a run of an input, and open its first attempt.

        Raises:
            ValueError: the input or a setting of the run is wrong.
        """
        told = yield "prepare", dict(given)
        self._check(told["settings"])
        run = {"stopped": None, **told}
        return _with(run, (yield "build_context", run))

    def cap(self, run: Run) -> str | None:
        """The cap within which the attempt that is under way can't ask a model once more, and be judged; or None."""
        settings, parts, latest = SavedSettings.of(run["settings"]), self.graph.parts, run["episodes"][-1]
        budget = budget_of("generate", parts, run, settings, answers=True, beside=())  # type: ignore[arg-type]
        if "calls" in budget.caps and latest.get("costs", {}).get("generate"):  # a round is begun with enough for it
            budget.caps = {**settings.caps, "calls": settings.caps["calls"] - parts.calls_of_attempt(settings) + 1}
        try:
            budget.admit(None)
        except BudgetExceeded as over:
            return over.cap
        return None

    @contextmanager
    def counting(self) -> Iterator[dict[str, Any]]:
        """What the models have used that answer within the block: filled when it ends."""
        used, start = dict[str, Any](), time.monotonic()
        with collect_usage() as callback:
            yield used
        used |= {"calls": len(callback.replies), **usage_of(None, callback, self.graph.parts.driver.prices)}
        used["seconds"] = round(time.monotonic() - start, 6)

    def end(self, run: Run, reply: Any, failed: str | None = None, stopped: str | None = None) -> Play:
        """End an attempt, then open the next one, or end the run.

        Args:
            run: as `begin` or this has returned it, with what the attempt has used (`spending`).
            reply: text, a message, or an object of JSON values.
            failed: why there is no reply, if there is none.
            stopped: why the run ends with this attempt, if it does in any case.
        """
        latest, tags = run["episodes"][-1], SavedSettings.of(run["settings"]).reasoning_tags
        fields = {"error": failed, "error_kind": "cap"} if failed else read_response(reply, tags)
        patch: Any = {**identity(latest), "costs": latest["costs"], **fields}
        patch |= extracted(patch, self.graph.parts.extract)
        said = {key: patch.get(key) for key in ("round", "candidate", "response", "error")}
        teller(self.graph.parts, run)({"type": "response", **said})
        run = _with({**run, "patches": []}, {"episodes": [patch], "stopped": stopped})
        for name in self._judging:
            run = _with(run, (yield name, run))
            if run["stopped"]:
                break
        return _with(run, (yield "select" if run["stopped"] else "build_context", run))


def spending(run: Run, used: Usage) -> Run:
    """The run with what the attempt that is under way has used so far."""
    *past, latest = run["episodes"]
    return {**run, "episodes": [*past, {**latest, "costs": costs({}, "generate", used)}]}


def _with(run: Run, told: Mapping[str, Any]) -> Run:
    """The run with what a node has written."""
    patches = told.get("episodes", [])
    known = upsert(run["episodes"], [patches])
    return {**run, **told, "episodes": known, "patches": [*run.get("patches", []), *patches]}


def _judging(graph: Graph, topology: Any) -> list[str]:
    """The nodes between an attempt and the next prompt.

    Raises:
        ValueError: the graph does not make one attempt after another, or has to write about them by the same model.
    """
    after: dict[str, set[str]] = {}
    for edge in graph.compile().get_graph().edges:
        after.setdefault(edge.source, set()).update({edge.target} - {"select"})
    played, node = list[str](), "generate"
    while len(after.get(node, ())) == 1 and len(played) < len(after):
        (node,) = after[node]
        if node == "build_context" and played[:1] == ["evaluate"] and after[node] == {"generate"}:
            break
        played.append(node)
    else:
        raise ValueError(f"topology={topology!r} does not make one attempt after another, as icrl and reflexion do")
    if any(each is graph.parts.plain.part for name in played for each in getattr(graph.node(name), "deps", ())):
        raise ValueError(f"topology={topology!r} writes about its attempts: give it a reflector, or critic, for that")
    return played
