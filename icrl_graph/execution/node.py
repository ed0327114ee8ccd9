"""Functions as nodes, and what traces record of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import TracePolicy

from icrl_graph.execution.calls import contained
from icrl_graph.execution.langgraph_internals import next_ids_after_config


class PlainNode(RunnableLambda[Any, Any]):
    """Functions as a node, called directly: LangGraph has set up around a node all that a RunnableLambda would.

    Args:
        func: called under `invoke`.
        afunc: called under `ainvoke`.
        name: name of the node.
        part: what they call; LangGraph looks there for a graph within the node.
    """

    def __init__(
        self, func: Callable[[Any], Any], afunc: Callable[[Any], Awaitable[Any]], name: str, part: Any = None
    ) -> None:
        super().__init__(func, afunc=afunc, name=name)
        owner = getattr(part, "__self__", part)
        # set, not searched for: LangChain would keep what it finds in a function alive, the journal too
        self.deps = [owner] if isinstance(owner, Runnable) else []

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call `func`."""
        next_ids_after_config(config or {})
        with contained():
            return self.func(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call `afunc`."""
        next_ids_after_config(config or {})
        afunc: Callable[[Any], Awaitable[Any]] = self.afunc  # type: ignore[assignment]
        with contained(awaits=True):
            return await afunc(input)


def _trace_input(state: Any) -> dict[str, Any]:
    """What a trace records of a node's input: not the whole history again with each span."""
    episode: Any = (state.get("episodes") or [{}])[-1]
    place = {name: episode[name] for name in ("round", "candidate") if name in episode}
    return {**place, **{name: len(state[name]) for name in ("episodes", "steps") if name in state}}


TRACED = TracePolicy(process_inputs=_trace_input)
"""How every node is traced, with LangSmith or any other LangChain callback."""


def plain_node(function: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """A function that never blocks, as a node or a router; LangGraph would run it in a thread under `ainvoke`."""

    async def afunction(state: Any) -> Any:
        return function(state)

    return PlainNode(function, afunction, function.__name__)
