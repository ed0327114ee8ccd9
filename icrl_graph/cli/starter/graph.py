"""The graph that langgraph.json names: `icrl studio` shows it, and other programs may import it."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from icrl_graph import chat_model, create_icrl
from icrl_graph.benchmarks import from_file

# The line to change for a language model: "openai:gpt-4.1-mini", say, with OPENAI_API_KEY set.
model = chat_model("learner:hidden-color")

folder = Path(__file__).parent
tasks = from_file(folder / "tasks.jsonl")


def any_task(inputs: Mapping[str, Any], rng: Random) -> Mapping[str, Any]:
    """The input of a run; where it is empty, one of tasks.jsonl."""
    return inputs if inputs["task"] else tasks.inputs(rng.choice(tasks.items()))


graph = create_icrl(model, f"{folder}/score.py:score", rounds=8, inputs=any_task).compile(name="mine")
