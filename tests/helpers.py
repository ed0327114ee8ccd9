"""A small guessing game for whole-graph tests: find a number, the reward is how near a guess is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph.prompts.layouts import parse
from icrl_graph.state.episode import Episode

GAME: Any = {"task": "Find the number.", "task_data": {"secret": 42}}


def nearness(response: str, task_data: dict[str, Any]) -> float:
    """1 for the secret, less the farther away."""
    return 1 - abs(int(response) - int(task_data["secret"])) / 100


def climber(messages: list[dict[str, Any]]) -> str:
    """Tries what the shown rewards of its prompt suggest; says 10 without any."""
    seen = {int(a.response): a.value for a in parse(messages).attempts if a.response.isdigit() and a.value is not None}
    if not seen:
        return "10"
    top = max(seen, key=lambda guess: seen[guess] or 0.0)
    step = round((1 - (seen[top] or 0.0)) * 100)
    return str(next((guess for guess in (top + step, top - step) if guess not in seen), top))


def digest(messages: list[dict[str, Any]]) -> str:
    """A reply that any change of the prompt changes."""
    return str(int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:6], 16) % 100)


def thread(name: str = "1") -> Any:
    return {"configurable": {"thread_id": name}, "recursion_limit": 100_000}


def play(graph: Any, inputs: Any = GAME, **kwargs: Any) -> tuple[dict[str, Any], list[Episode]]:
    """Run an uncompiled graph; its output and its episodes."""
    compiled = graph.compile(checkpointer=InMemorySaver())
    output = compiled.invoke(inputs, thread(), **kwargs)
    return output, compiled.get_state(thread()).values["episodes"]


def without_cost(episodes: Any) -> Any:
    """Episodes apart from usage and times."""
    return [{key: value for key, value in episode.items() if key != "costs"} for episode in episodes]
