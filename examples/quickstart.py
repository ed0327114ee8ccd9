"""The shortest use: improve an answer by its rewards. Runs offline, with the learner that ships with the package."""

from icrl_graph import improve
from icrl_graph.tasks import hidden_color

game = hidden_color.tasks(1, seed=7)[0]
model = "learner:hidden-color"  # a language model instead: model = "openai:gpt-4.1-mini"
result = improve(game["task"], hidden_color.closeness, model=model, task_data=game["task_data"], seed=0)
print(result)
print("hidden was", game["task_data"]["secret"])
