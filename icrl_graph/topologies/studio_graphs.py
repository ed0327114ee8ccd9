"""The graphs that `icrl studio` serves where no file lists others: every method, at once and without a key.

On the empty input a hidden color is drawn, which the shipped learner looks for; `rollout` has episodes of many
turns, and `chat` plays a new game for each message, whatever it says.
"""

from icrl_graph.environments import rollouts
from icrl_graph.environments.cellar import TASK, Cellar
from icrl_graph.environments.players import explore
from icrl_graph.tasks.hidden_color import closeness, drawn
from icrl_graph.topologies.chat import as_chat
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion, create_self_refine

LEARNER = "learner:hidden-color"

icrl = create_icrl(LEARNER, closeness, inputs=drawn).compile(name="icrl")
best_of_n = create_best_of_n(LEARNER, closeness, inputs=drawn).compile(name="best_of_n")
self_refine = create_self_refine(LEARNER, closeness, inputs=drawn).compile(name="self_refine")
# The learner sees its attempts, too, because it can't write a reflection.
reflexion = create_reflexion(LEARNER, closeness, inputs=drawn, show_attempts=True, memory="all", target=1.0).compile(
    name="reflexion"
)
rollout = create_icrl(
    rollouts.rollout(explore, Cellar, max_steps=8),
    rollouts.episode_return,
    inputs=lambda inputs, rng: {"task": inputs["task"] or TASK},
).compile(name="rollout")
chat = as_chat(
    create_icrl(LEARNER, closeness, inputs=lambda inputs, rng: drawn({**inputs, "task": None}, rng))
).compile(name="chat")
