"""A graph whose evaluator asks a person; served by test_studio.py."""

from langgraph.types import interrupt

from icrl_graph.tasks.hidden_color import drawn
from icrl_graph.topologies.methods import create_icrl


def asked(response: str) -> float:
    return float(interrupt({"response": response, "question": "How good is it, from 0 to 1?"}))


graph = create_icrl("learner:hidden-color", asked, inputs=drawn, rounds=2).compile(name="asking")
