"""Self-Refine on hidden color: no reward reaches a prompt. Name a model that can criticise its own answers."""

from icrl_graph.tasks.hidden_color import closeness, drawn
from icrl_graph.topologies.methods import create_self_refine

graph = create_self_refine("learner:hidden-color", closeness, inputs=drawn).compile(name="self_refine")
