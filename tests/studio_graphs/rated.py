"""A chat whose attempts a person rates; served by test_chat.py."""

from icrl_graph.evaluators.human import human_reward
from icrl_graph.topologies.chat import as_chat
from icrl_graph.topologies.methods import create_icrl

graph = as_chat(create_icrl(lambda: "Hello.", human_reward(bounds=(0, 1)), rounds=1)).compile(name="rated")
