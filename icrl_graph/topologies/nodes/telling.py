"""Who hears what happens in a run: LangGraph's stream, and the functions that watch its graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from langgraph.config import get_config, get_stream_writer

from icrl_graph.execution.calls import contained
from icrl_graph.execution.retry import describe
from icrl_graph.prompts.text import text_of
from icrl_graph.state.events import TASK_CHARACTERS, Emit, Source
from icrl_graph.topologies.nodes.parts import Parts

logger = logging.getLogger(__name__)


def source_of(state: Mapping[str, Any], topology: str, thread: str | None) -> Source:
    """Whose the events of a run are.

    Args:
        state: its state, with inputs and settings.
        topology: the name of its graph.
        thread: what it is saved under, if anything.
    """
    task = text_of(state["inputs"]["task"])[:TASK_CHARACTERS]
    return Source(run=state["settings"]["run"], thread=thread, topology=topology, task=task)


def teller(parts: Parts, state: Mapping[str, Any]) -> Emit:
    """What a node tells its events; to be called within one."""
    thread = get_config().get("configurable", {}).get("thread_id")
    source, write = source_of(state, parts.name, thread), get_stream_writer()

    def tell(event: Any) -> None:
        write({**event, **source})
        for watch in parts.watch:
            show(watch, {**event, **source})

    return tell


def show(watch: Emit, event: Any) -> None:
    """Show an event to a function that watches.

    What that raises is logged, and ends nothing: it may be a tracker that is out of reach.
    """
    try:
        with contained():
            watch(event)
    except Exception as error:
        logger.warning("a function that watches the run has raised %s; the run goes on", describe(error))
