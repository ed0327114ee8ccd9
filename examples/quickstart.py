"""The shortest use: improve an answer by its rewards. Runs offline, with the learner that ships with the package."""

from icrl_graph import improve
from icrl_graph.games import hidden_color

game = hidden_color.tasks(1, seed=7)[0]
result = improve(game["task"], hidden_color.closeness, model="learner:hidden-color", task_data=game["task_data"])
print(result)
print("hidden was", game["task_data"]["secret"])
