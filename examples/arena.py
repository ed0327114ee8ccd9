"""A guessing game, and a player that reads what a prompt tells of earlier guesses, in any form (docs/arena.md)."""

import re
from random import Random
from typing import Any

from icrl_graph import improve
from icrl_graph.benchmarks import Benchmark

FAILED = '{"name": "The number is found.", "passed": false, "gap": "Guess again."}'
GRADE = f'{{"result": "needs_revision", "explanation": "Guess again.", "criteria": [{FAILED}]}}'
ADVICE = '[[ ## discussion ## ]]\nWrong.\n\n[[ ## advice ## ]]\n{"self": "Guess again."}\n\n[[ ## completed ## ]]'


def closeness(response: str, task_data: dict[str, int]) -> dict[str, Any]:
    """1 for the hidden number, less the farther away; the feedback says on which side it is."""
    guess = int(re.findall(r"\d+", response)[-1])
    side = {0: "right", 1: "too high", -1: "too low"}[(guess > task_data["number"]) - (guess < task_data["number"])]
    return {"value": 1 - abs(guess - task_data["number"]) / 1000, "feedback": f"{guess} is {side}."}


benchmark = Benchmark(
    about="hidden numbers",
    items=lambda: [str(37 * n % 1000) for n in range(1, 25)],
    read=lambda name: {"task": "Guess a whole number below 1000.", "task_data": {"number": int(name)}},
    evaluator=closeness,
    solved_at=1,
)


def player(messages: list[dict[str, Any]], rng: Random) -> str:
    """Guesses between the bounds that its prompt tells, halfway on average."""
    prompt = str(messages)
    if "You are a grader" in prompt or "`advice`" in prompt:
        return ADVICE if "`advice`" in prompt else GRADE
    low = max([0, *(int(n) + 1 for n in re.findall(r"(\d+) is too low", prompt))])
    high = min([999, *(int(n) - 1 for n in re.findall(r"(\d+) is too high", prompt))])
    guess = f"{rng.randint(low, high)}"
    forms = {"[[ ## ": f"[[ ## answer ## ]]\n{guess}\n\n[[ ## completed ## ]]", "```": f"```\n{guess}\n```"}
    return next((form for mark, form in forms.items() if mark in prompt), guess)


if __name__ == "__main__":
    print(improve("Guess a number.", closeness, model=player, task_data={"number": 629}, rounds=8, seed=0))
