"""Reflexion on hidden color. The learner sees its attempts, too, because it can't write a reflection."""

from icrl_graph.tasks.hidden_color import closeness, drawn
from icrl_graph.topologies.methods import create_reflexion

graph = create_reflexion(
    "learner:hidden-color", closeness, inputs=drawn, show_attempts=True, memory="all", target=1.0
).compile(name="reflexion")
