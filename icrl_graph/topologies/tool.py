"""A topology as a tool: an agent calls it to have something solved well, within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool
from langgraph.runtime import get_runtime
from pydantic import BaseModel, Field

from icrl_graph.environments.rollouts import RolloutContext
from icrl_graph.state.episode import answer_text
from icrl_graph.topologies.base import Graph


class ToolInput(BaseModel):
    """What an agent gives when it calls the tool."""

    task: str = Field(description="The whole task, with all that is needed to solve it: nothing else is seen.")
    max_calls: int | None = Field(
        default=None, ge=1, description="How many calls of a model it may take at most; more find better answers."
    )


def as_tool(graph: Graph, name: str, description: str, *, task_data: Mapping[str, Any] | None = None) -> StructuredTool:
    """A tool that solves a task by a topology.

    Called within a graph that has a checkpointer, its run is saved there, nested, and is resumed after a crash where it
    was; nothing is paid twice. It reads its settings in the context of that graph (`context={"icrl": {...}}`), and of
    two caps of calls the lower one. Its answer is the content of the tool's message, the whole output its artifact.

    Args:
        graph: a topology, uncompiled.
        name: by which agents call it, such as "solve_well".
        description: what it is good for; agents choose by that.
        task_data: for the evaluator alone.

    Raises:
        ValueError: it is not a topology of this package.
    """
    if not isinstance(graph, Graph):
        raise ValueError(f"the tool is made of a topology, uncompiled, such as create_icrl(...); got {graph!r:.80}")
    compiled, data = graph.compile(name=name), dict(task_data or {})

    def arguments(task: str, max_calls: int | None) -> dict[str, Any]:
        settings = graph.settings_within({"max_calls": max_calls}, _context())
        return {"input": {"task": task, "task_data": data}, "context": settings}

    def run(task: str, config: RunnableConfig, max_calls: int | None = None) -> tuple[str, dict[str, Any]]:
        return _content_and_artifact(compiled.invoke(config=_unlimited(config), **arguments(task, max_calls)))

    async def arun(task: str, config: RunnableConfig, max_calls: int | None = None) -> tuple[str, dict[str, Any]]:
        return _content_and_artifact(await compiled.ainvoke(config=_unlimited(config), **arguments(task, max_calls)))

    return StructuredTool(
        name=name,
        description=description,
        args_schema=ToolInput,
        func=run,
        coroutine=arun,
        response_format="content_and_artifact",
    )


def _unlimited(config: RunnableConfig) -> RunnableConfig:
    """A tool is called with LangChain's limit of 25 steps; here the rounds are the limit."""
    return {**config, "recursion_limit": 1_000_000_000}


def _context() -> Any:
    """The context of the graph that the tool is called in; None outside of one."""
    try:
        context = getattr(get_runtime(), "context", None)
    except (RuntimeError, KeyError):
        return None
    return (
        context.parent_context if isinstance(context, RolloutContext) else context
    )  # called by the model that acts in an episode


def _content_and_artifact(output: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return answer_text(output), output
