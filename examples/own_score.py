"""A score, a model and a stop of your own. The model here is a function; a chat model goes in the same place."""

from random import Random
from typing import Any

from icrl_graph import improve, parse


def score(response: str, task_data: dict[str, Any]) -> float:
    """The share of letters that stand at the right place."""
    word: str = task_data["word"]
    return sum(a == b for a, b in zip(response, word, strict=True)) / len(word)


def model(messages: list[dict[str, Any]], rng: Random) -> str:
    """Changes one letter of the best attempt that it finds in its prompt."""
    attempts = parse(messages).attempts
    if not attempts:
        return "aaaa"
    best = list(max(attempts, key=lambda attempt: attempt.value or 0.0).response)
    best[rng.randrange(len(best))] = rng.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(best)


result = improve(
    "Guess the word of four letters.",
    score,
    model=model,
    task_data={"word": "loop"},
    rounds=2000,
    memory="best:1",
    target=1.0,
    seed=0,
)
print(result.answer, "after", len(result.episodes), "attempts; stopped:", result.stopped)
