"""Best-of-N on hidden color, with the learner that ships with the package: the control of graphs/icrl.py."""

from icrl_graph.games.hidden_color import closeness
from icrl_graph.topologies import create_best_of_n

graph = create_best_of_n("learner:hidden-color", closeness).compile(name="best_of_n")
