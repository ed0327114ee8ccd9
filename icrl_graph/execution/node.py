"""Functions and flows as nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import TracePolicy


class Straight(RunnableLambda[Any, Any]):
    """Functions as a node, called straight: LangGraph has set up around a node all that a RunnableLambda would.

    Args:
        func: called under `invoke`.
        afunc: called under `ainvoke`.
        name: the node's.
        part: what they call; LangGraph looks there for a graph within the node.
    """

    def __init__(
        self, func: Callable[[Any], Any], afunc: Callable[[Any], Awaitable[Any]], name: str, part: Any = None
    ) -> None:
        super().__init__(func, afunc=afunc, name=name)
        called = getattr(part, "__self__", part)
        # set, not searched for: LangChain would hold what it finds in a function, such as the journal, after the graph
        self.deps = [called] if isinstance(called, Runnable) else []

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the one."""
        return self.func(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the other."""
        afunc: Callable[[Any], Awaitable[Any]] = self.afunc  # type: ignore[assignment]
        return await afunc(input)


def _brief(state: Any) -> dict[str, Any]:
    """What a trace records of a node's input: not the whole history again with each span."""
    latest: Any = (state.get("episodes") or [{}])[-1]
    where = {name: latest[name] for name in ("round", "candidate") if name in latest}
    return {**where, **{name: len(state[name]) for name in ("episodes", "steps") if name in state}}


TRACED = TracePolicy(process_inputs=_brief)
"""How every node is traced, with LangSmith or anything else that listens to LangChain's callbacks."""


def straight(function: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """A function that never waits, as a node or a router: LangGraph would give it a thread under `ainvoke`."""

    async def afunction(state: Any) -> Any:
        return function(state)

    return Straight(function, afunction, function.__name__)
