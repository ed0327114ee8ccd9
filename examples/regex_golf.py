"""Regex golf (xkcd 1313): a short regular expression that matches each title of one list and none of the other.

Some, such as `((.)+)+x`, try millions of ways through a title. So the verifier runs in a separate process, which is
killed after half a second; that attempt is unscored, which is not the same as wrong, and the run continues.
"""

import logging
import re
from random import Random
from typing import Any

from icrl_graph import improve, parse
from icrl_graph.evaluators import isolated

WARS = ["The Phantom Menace", "Attack of the Clones", "Revenge of the Sith", "A New Hope", "Return of the Jedi"]
TREK = ["The Wrath of Khan", "The Voyage Home", "The Undiscovered Country", "Generations", "First Contact", "Nemesis"]


def score(response: str) -> float:
    """The share of titles that are classified correctly, minus a hundredth for each character."""
    right = [bool(re.search(response, title)) for title in WARS] + [not re.search(response, title) for title in TREK]
    return sum(right) / len(right) - len(response) / 100


def propose(messages: list[dict[str, Any]], rng: Random) -> str:
    """Adds a piece of a title to the best regex in its prompt, and drops some others, without testing any."""
    scored = [(attempt.value, attempt.response) for attempt in parse(messages).attempts if attempt.value is not None]
    pieces = [piece for piece in max(scored)[1].split("|") if rng.random() < 0.7] if scored else []
    title, (form,) = rng.choice(WARS), rng.choices(["{}", "({})+", "(({})+)+"], weights=[90, 6, 4])
    at = rng.randrange(len(title) - 2)
    return "|".join([*pieces, form.format(rng.choice([title[at], "."])) + title[at + 1 : at + rng.randint(2, 3)]])


logging.getLogger("icrl_graph").setLevel(logging.ERROR)  # it would log unscored attempts; the last line prints them
model = propose  # a language model instead: model = "openai:gpt-4.1-mini"
task = f"Give a short regular expression, and nothing else, that is found in all of {WARS} and in none of {TREK}."
result = improve(task, isolated(score, timeout=0.5, memory=256), model=model, rounds=150, memory="best:3", seed=3)
print(f"{result.answer!r} earns {result.reward:.2f}")
print(*(f"{e.get('response')!r}: {e['reward']['error']}" for e in result.episodes if "error" in e["reward"]), sep="\n")
