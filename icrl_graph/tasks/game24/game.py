"""Game of 24 as a game of steps: which steps there are, how an attempt is written, and players of known strength.

Four numbers; a step replaces two of those that are left by their sum, difference, product or quotient; after three
steps one number is left, and it should be 24. Steps here stay within the natural numbers and zero, which is enough for
1346 of the 1362 solvable puzzles (the other 16 need fractions) and makes a graph of 17 005 states. Steps that leave the
same numbers are one move.

A player reads the prompt that any chat model would get and answers in the text form of the benchmark. Its `Rule` uses
the attempts and step rewards in the prompt; its `Base` is the policy without them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from itertools import combinations, combinations_with_replacement, pairwise
from random import Random
from typing import Any, Literal, NamedTuple

from icrl_graph.errors import UnknownTask
from icrl_graph.prompts.layouts import Attempt, parse
from icrl_graph.prompts.templates import GAME24_TASK, told_apart
from icrl_graph.tasks.game24.verifier import TARGET, read_steps

Numbers = tuple[int, ...]
"""The numbers that are left, ascending."""
Split = Literal["train", "validation", "test"]

HELD_OUT: Mapping[Split, int] = {"test": 400, "validation": 100}
"""Puzzles that no training sees; the rest is for training."""

# ------------------------------------------------------------------------------------------------------------- the game


class Move(NamedTuple):
    """A step: a sign b = result."""

    a: int
    sign: str
    b: int
    result: int


@cache
def moves(left: Numbers) -> Mapping[Numbers, Move]:
    """All that the next step may leave, each with a step that leaves it."""
    by_result: dict[Numbers, Move] = {}
    for i, j in combinations(range(len(left)), 2):
        small, large = left[i], left[j]
        others = (*left[:i], *left[i + 1 : j], *left[j + 1 :])
        steps = [
            Move(large, "+", small, large + small),
            Move(large, "-", small, large - small),
            Move(large, "*", small, large * small),
        ]
        if small and large % small == 0:
            steps.append(Move(large, "/", small, large // small))
        for step in steps:
            by_result.setdefault(tuple(sorted((*others, step.result))), step)
    return by_result


@cache
def solvable(left: Numbers) -> bool:
    """Whether steps within the natural numbers can make 24 of what is left."""
    return left == (TARGET,) if len(left) == 1 else any(map(solvable, moves(left)))


@cache
def split(name: Split) -> tuple[Numbers, ...]:
    """The puzzles of a split; the three are disjoint and make up all 1346 that are solvable in natural numbers."""
    every = [four for four in combinations_with_replacement(range(1, 14), 4) if solvable(four)]
    Random(0).shuffle(every)
    test, validation = HELD_OUT["test"], HELD_OUT["validation"]
    parts = {"test": every[:test], "validation": every[test : test + validation], "train": every[test + validation :]}
    return tuple(parts[name])


def write(path: Sequence[Numbers]) -> str:
    """An attempt in the text form of the benchmark: its steps, then the expression that they make.

    Args:
        path: the numbers left at the start and after each step.
    """
    lines, made = [], [(number, str(number)) for number in path[0]]
    for before, after in pairwise(path):
        a, sign, b, result = moves(before)[after]
        left, right = (_take(made, number) for number in (a, b))
        made.append((result, f"({left} {sign} {right})"))
        lines.append(f"{a} {sign} {b} = {result} (left: {' '.join(map(str, after))})")
    return "\n".join([*lines, f"Answer: {made[-1][1][1:-1]}"])


def _take(made: list[tuple[int, str]], number: int) -> str:
    return made.pop(next(i for i, (value, _) in enumerate(made) if value == number))[1]


# -------------------------------------------------------------------------------------------------- what a prompt shows


class Tried(NamedTuple):
    """A step of an earlier attempt. Its numbers may be fractions, if another player took it."""

    number: int
    """0 for the first step of its attempt."""
    before: tuple[Fraction | int, ...]
    after: tuple[Fraction | int, ...]
    reward: float | None
    """As shown in the prompt; None if it shows none."""


_TASK = re.compile(
    re.escape(GAME24_TASK).replace(re.escape("{numbers}"), r"((?:1[0-3]|[1-9])(?: (?:1[0-3]|[1-9])){3})")
)


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> tuple[Numbers, list[Tried]]:
    """The puzzle of a prompt and every step that was tried, in order.

    Where a prompt shows no step rewards, the reward of the whole attempt is read as that of
    `icrl_graph.tasks.game24.verifier.grade`, and only whether it solved the puzzle: 1 or more means that all steps were
    right, less that the last one was not.

    Raises:
        UnknownTask: the prompt is not about Game of 24.
    """
    prompt = parse(messages)
    match = _TASK.fullmatch(prompt.task)
    if match is None:
        raise UnknownTask(
            "this player knows Game of 24 only, the tasks of icrl_graph.tasks.game24, and reads no other text; "
            f"the task is {prompt.task[:80]!r}. For other tasks use a language model, such as 'openai:gpt-4.1-mini'"
        )
    numbers = tuple(sorted(map(int, match[1].split())))
    return numbers, [step for attempt in prompt.attempts for step in _tried(attempt, numbers)]


def _tried(attempt: Attempt, numbers: Numbers) -> list[Tried]:
    rewards: Sequence[float | None] = attempt.steps
    if not rewards and attempt.value is not None:
        rewards = (1.0, 1.0, 1.0) if attempt.value >= 1 else (None, None, 0.0)
    shown = (*rewards, None, None, None)
    return [Tried(i, *pair, shown[i]) for i, pair in enumerate(pairwise(_path(attempt.response, numbers)))]


@lru_cache(maxsize=4096)  # the next prompt of a run shows the same attempts again
def _path(response: str, numbers: Numbers) -> list[tuple[Fraction | int, ...]]:
    """The numbers left at the start and after each step of an attempt, up to the first wrong step."""
    lefts = (step.left for step in read_steps(response, numbers) if step.left is not None)
    return [numbers, *(tuple(n.numerator if n.denominator == 1 else n for n in left) for left in lefts)]


# ------------------------------------------------------------------------------------------------------------- players

Reply = Callable[[Sequence[Mapping[str, Any]], Random, float | None], str]
"""(prompt, generator, temperature) -> response; what `FunctionModel` takes."""
Base = Callable[[Sequence[Numbers]], Sequence[float]]
"""Log-probabilities of the moves, each written as the numbers that it leaves, by a policy without a history."""
Scoring = Callable[[int, Sequence[Numbers], Sequence[float]], Sequence[float]]
"""(number of the step, moves, their log-probabilities by the base) -> scores that take the history into account."""
Rule = Callable[[Sequence[Tried], Random], Scoring]
"""Reads the history, once for each attempt, and returns how to score moves."""


def player(rule: Rule, base: Base) -> Reply:
    """A player that samples each of its three steps by the rule's scores.

    Where attempts that are made side by side are told apart (`prompts.templates.DIFFER`), they sample without
    replacement: all draw the same noise, from the history that they share, and of the first step that is open each
    takes the move that comes in its place (Gumbel-top-k, arXiv 1903.06059). Before there is a history, each samples by
    itself.
    """

    def reply(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None = None) -> str:
        numbers, history = read_prompt(messages)
        place, width = told_apart(parse(messages).instruction)
        if is_told_apart := width > 1 and bool(history):
            rng = Random(repr(history))
        scoring = rule(history, rng)
        path, heat = [numbers], 1.0 if temperature is None else temperature
        while len(path[-1]) > 1:
            options = list(moves(path[-1]))
            scores = scoring(len(path) - 1, options, base(options))
            if is_told_apart:
                choice, place = _without_replacement(scores, rng, heat, place)
            else:
                choice = _sample(scores, rng, heat)
            path.append(options[choice])
        return write(path)

    return reply


SETTLED = 0.9
"""Probability from which a move is taken by all attempts that are made side by side."""
RULED_OUT = 1e-3
"""Probability over that of the likeliest move up to which one is no alternative."""


def _without_replacement(scores: Sequence[float], rng: Random, temperature: float, place: int) -> tuple[int, int]:
    """The move of the attempt in a place, and its place from there on: 0 once it has left the others."""
    highest = max(scores)
    weights = [math.exp((score - highest) / (temperature or 1e-9)) for score in scores]
    noise = [-math.log(rng.expovariate(1.0)) for _ in scores]  # of Gumbel's distribution
    ranked = sorted(range(len(scores)), key=lambda at: math.log(weights[at] or 1e-300) + noise[at], reverse=True)
    if place == 0 or 1 / sum(weights) >= SETTLED:
        return ranked[0], place
    alternatives = [at for at in ranked if weights[at] > RULED_OUT]
    return alternatives[min(place, len(alternatives) - 1)], 0


def _sample(scores: Sequence[float], rng: Random, temperature: float) -> int:
    highest = max(scores)
    if temperature <= 0:
        return list(scores).index(highest)
    return rng.choices(range(len(scores)), [math.exp((score - highest) / temperature) for score in scores])[0]


def no_base(options: Sequence[Numbers]) -> list[float]:
    """Knows nothing: every move is as likely."""
    return [-math.log(len(options))] * len(options)


def blind(history: Sequence[Tried], rng: Random) -> Scoring:
    """Ignores the history."""
    return lambda number, options, scores: scores


def avoid_tried(history: Sequence[Tried], rng: Random) -> Scoring:
    """Avoids steps that were tried, whatever their rewards, as long as there is another: diversity without rewards."""
    tried = {step.after for step in history}

    def scoring(number: int, options: Sequence[Numbers], scores: Sequence[float]) -> list[float]:
        return [score - SURE * (option in tried) for option, score in zip(options, scores, strict=True)]

    return scoring


def prune(history: Sequence[Tried], rng: Random) -> Scoring:
    """The teacher of the learner: takes moves known to be right, and never moves known to be wrong.

    A move that leaves two numbers is known to be wrong, too, if every last step from them was tried and failed.
    """
    dead = {step.after for step in history if step.reward is not None and step.reward <= 0}
    alive = {step.after for step in history if step.reward is not None and step.reward > 0}

    def known(option: Numbers) -> int:
        fails = option in dead or (len(option) == 2 and all(last in dead for last in moves(option)))
        return (option in alive) - (fails and option not in alive)

    def scoring(number: int, options: Sequence[Numbers], scores: Sequence[float]) -> list[float]:
        return [score + SURE * known(option) for option, score in zip(options, scores, strict=True)]

    return scoring


SURE = 40.0
"""Added to or taken from a score; outweighs every base."""


def without_repeats(reply: Reply) -> Reply:
    """A player that repeats no attempt, unless a hundred samples bring nothing new."""

    def fresh(messages: Sequence[Mapping[str, Any]], rng: Random, temperature: float | None = None) -> str:
        earlier = {attempt.response for attempt in parse(messages).attempts}
        for _ in range(100):
            answer = reply(messages, rng, temperature)
            if answer not in earlier:
                break
        return answer

    return fresh
