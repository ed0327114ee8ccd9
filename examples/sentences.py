"""A benchmark of one's own: sentences of so many words. `make smollm2` plays it with a real, very small language model.

icrl bench examples/sentences.py:benchmark --topologies icrl,best_of_n --model local:smollm2
"""

from random import Random
from typing import Any

from icrl_graph import improve, parse
from icrl_graph.benchmarks import Benchmark


def closeness(response: str, task_data: dict[str, int]) -> float:
    """1 for the right number of words, less the farther away."""
    return round(max(0.0, 1 - abs(len(response.split()) - task_data["words"]) / task_data["words"]), 2)


benchmark = Benchmark(
    about="sentences of a given number of words",
    items=lambda: ["6", "9", "12", "15"],
    read=lambda name: {
        "task": f"Write one sentence about the sea. It must have exactly {name} words.",
        "task_data": {"words": int(name)},
    },
    evaluator=closeness,
    rounds=3,
)


def rambler(messages: list[dict[str, Any]], rng: Random) -> str:
    """Adds a word to the best attempt of its prompt."""
    attempts = parse(messages).attempts
    best = max(attempts, key=lambda attempt: attempt.value or 0.0).response if attempts else "The sea is."
    return f"{best[:-1]} {rng.choice(('and', 'deep', 'old', 'wide'))}."


if __name__ == "__main__":
    model = rambler  # a language model instead: model = "openai:gpt-4.1-mini"
    item = benchmark.read("9")
    print(improve(item["task"], closeness, model=model, task_data=item["task_data"], rounds=8, seed=0))
