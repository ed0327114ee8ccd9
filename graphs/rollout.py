"""Episodes of many turns: a player that reads its rewards looks for the chest of a small house, action by action."""

from icrl_graph.environments.cellar import TASK, Cellar
from icrl_graph.environments.players import explore
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.topologies.methods import create_icrl

graph = create_icrl(
    rollout(explore, Cellar, max_steps=8), episode_return, inputs=lambda inputs, rng: {"task": inputs["task"] or TASK}
).compile(name="rollout")
