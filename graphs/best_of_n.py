"""Best-of-N on hidden color: parallel attempts that see nothing of each other, the control of graphs/icrl.py."""

from icrl_graph.tasks.hidden_color import closeness, drawn
from icrl_graph.topologies.methods import create_best_of_n

graph = create_best_of_n("learner:hidden-color", closeness, inputs=drawn).compile(name="best_of_n")
