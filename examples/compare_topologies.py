"""The four methods on the same games, within the same number of calls; `icrl bench` adds intervals and tests."""

import re
from random import Random
from statistics import mean
from typing import Any

from icrl_graph import parse
from icrl_graph.prompts.templates import CRITIQUE, REFLECT
from icrl_graph.prompts.text import text_of
from icrl_graph.topologies.methods import TOPOLOGIES

CALLS, SECRETS = 10, range(0, 100, 3)
TASK = "Find the number, 0 to 99. It earns 1; others up to 0.9, and 0.1 less for each ten that they are away from it."


def nearness(response: str, task_data: dict[str, int]) -> float:
    """The reward that the task describes."""
    away = abs(int(response) - task_data["secret"])
    return round(0.9 - away // 10 / 10, 1) if away else 1.0


def player(messages: list[dict[str, Any]], rng: Random) -> str:
    """Guesses what fits all rewards in its prompt. Asked to reflect on a guess, it says what the guess earned."""
    _, attempts, instruction = parse(messages)
    if instruction in (REFLECT, CRITIQUE):
        guess = attempts[-1]
        return "I see no reward." if guess.value is None else f"{guess.response} earned {guess.value}."
    known = [(attempt.response, attempt.value) for attempt in attempts if attempt.value is not None]
    known += [(guess, float(earned)) for guess, earned in re.findall(r"(\d+) earned (\d\.\d)", text_of(messages))]
    return str(rng.choice([n for n in range(100) if all(nearness(g, {"secret": n}) == earned for g, earned in known)]))


model = player  # a language model instead: model = "openai:gpt-4.1-mini"
for name, create in TOPOLOGIES.items():
    graph = create(model, nearness, max_calls=CALLS, **{"n" if name == "best_of_n" else "rounds": CALLS}).compile()
    runs = [graph.invoke({"task": TASK, "task_data": {"secret": s}}, context={"seed": s}) for s in SECRETS]
    success, calls = mean(run["reward"] == 1 for run in runs), mean(run["usage"]["calls"] for run in runs)
    print(f"{name:12} success {success:.2f}  reward {mean(run['reward'] or 0 for run in runs):.2f}  calls {calls:g}")
