"""A language model on this machine, with short answers; served by test_studio.py."""

from icrl_graph.models import chat_model
from icrl_graph.topologies.methods import create_icrl


def score(response: str) -> float:
    """The longer, the better."""
    return min(1.0, len(response) / 100)


model = chat_model("local:smollm2", max_tokens=8, context=512, slots=1, extra_body={"ignore_eos": True})
graph = create_icrl(model, score, rounds=2).compile(name="local")
