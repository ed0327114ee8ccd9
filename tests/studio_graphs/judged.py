"""A graph whose rounds are judged by two paid calls, one after the other; served by test_studio.py."""

from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.tasks.hidden_color import drawn
from icrl_graph.topologies.methods import create_icrl

reward, metric = llm_judge("openai:judge", "Is it a color?"), llm_judge("openai:judge", "Is it a nice color?")
graph = create_icrl("learner:hidden-color", reward, metric=metric, inputs=drawn, rounds=2).compile(name="judged")
