"""ICRL on hidden color, with the learner that ships with the package: runs in Studio without a key."""

from icrl_graph.games.hidden_color import closeness
from icrl_graph.topologies import create_icrl

graph = create_icrl("learner:hidden-color", closeness).compile(name="icrl")
