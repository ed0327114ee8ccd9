"""ICRL on hidden color: guess a color from how close each guess was. The shipped learner plays it without a key."""

from icrl_graph.tasks.hidden_color import closeness, drawn
from icrl_graph.topologies.methods import create_icrl

graph = create_icrl("learner:hidden-color", closeness, inputs=drawn).compile(name="icrl")
