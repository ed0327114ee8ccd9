"""Bring your own reward: an exact verifier that gives feedback, and reports another number than the reward."""

import re
from fractions import Fraction
from random import Random
from typing import Any

from icrl_graph import Reward, improve, parse


def verify(response: str) -> Reward:
    """How near the reciprocals of four different numbers come to 1, in exact fractions: 0.99999999 is not 1."""
    numbers = {int(digits) for digits in re.findall(r"\d+", response)} - {0}
    if len(numbers) != 4:
        return Reward(value=0.0, metric=0.0, feedback="Give four different whole numbers above 0.")
    total = sum(Fraction(1, number) for number in numbers)
    if total == 1:
        return Reward(value=1.0, metric=1.0)
    feedback = f"The sum is {total}, which is too {'high' if total > 1 else 'low'}."
    return Reward(value=max(0.0, 0.9 - abs(float(total) - 1)), metric=0.0, feedback=feedback)


def propose(messages: list[dict[str, Any]], rng: Random) -> str:
    """Changes one number of an attempt with a high reward, in the direction that its feedback says."""
    attempts = sorted(parse(messages).attempts, key=lambda attempt: attempt.value or 0.0)
    if not attempts:
        return "3, 4, 5, 6"
    chosen = rng.choice(attempts[-4:])
    numbers = [int(digits) for digits in chosen.response.split(", ")]
    numbers[rng.randrange(4)] += rng.randint(1, 9) * (1 if "too high" in chosen.feedback else -1)
    return ", ".join(str(max(2, number)) for number in numbers)


model = propose  # a language model instead: model = "openai:gpt-4.1-mini"
task = "Find four different whole numbers whose reciprocals add up to 1."
result = improve(task, verify, model=model, rounds=100, memory="best:4", target=1.0, seed=0)
for episode in (result.episodes[0], result.episodes[-1]):
    print(f"{episode['round']:3}  {episode['response']:12} {episode['reward']}")
