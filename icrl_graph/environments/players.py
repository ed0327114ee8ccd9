"""Players without a language model, to test whole episodes in real environments.

`follow` does a list of actions, such as a known solution. `explore` learns in its context, and nowhere else: it reads
the earlier episodes of its prompt with their rewards, repeats the actions of the best one, and after them tries valid
actions that have not failed. Without rewards it can only try at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Message

VALID = "Valid actions: "
"""The start of a hint's line of valid actions, which have commas between them."""

_ATTEMPT = re.compile(r"<attempt>\n(.*?)\n</attempt>", re.S)
_LINE = re.compile(r"(?P<action>.*?) -> (?P<observation>.*?)(?: \([^():]+: (?P<reward>[-+.\de]+)\))?", re.S)


class PastStep(NamedTuple):
    """A step of an earlier episode, as a prompt shows it."""

    action: str
    reward: float | None
    """None where the prompt does not show it."""
    observation: str = ""


def read_episodes(messages: Sequence[Message]) -> list[list[PastStep]]:
    """The earlier episodes of a prompt (`icrl_graph.prompts.layouts.played`)."""
    attempts = _ATTEMPT.findall(text_of(messages))
    return [[_read_step(line) for line in attempt.split("\n") if " -> " in line] for attempt in attempts]


def _read_step(line: str) -> PastStep:
    match = _LINE.fullmatch(line)
    assert match is not None
    reward = None if match["reward"] is None else float(match["reward"])
    return PastStep(match["action"], reward, match["observation"])


def follow(path: Sequence[str], then: str = "wait") -> Callable[[Sequence[Message]], str]:
    """A player that does these actions in order in each episode.

    Args:
        path: the actions.
        then: what it does after them.
    """

    def act(messages: Sequence[Message]) -> str:
        count = len(_actions(messages))
        return path[count] if count < len(path) else then

    return act


def explore(messages: Sequence[Message], rng: Random) -> str:
    """The next action of a player that learns from the rewards in its prompt.

    It repeats the episode with the highest return up to its last reward above 0; in every second episode it leaves out
    one of the actions without a reward, to save steps. Then it draws among the valid actions: not those with a reward
    below 0, and preferably those that no episode has tried at this point.
    """
    episodes, so_far = read_episodes(messages), _actions(messages)
    plan = _plan(max(map(_up_to_last_reward, episodes), key=_value, default=[]), len(episodes))
    if len(so_far) < len(plan):
        return plan[len(so_far)]
    punished = {step.action for episode in episodes for step in episode if (step.reward or 0.0) < 0}
    here = (episode for episode in episodes if [step.action for step in episode[: len(so_far)]] == so_far)
    tried = {episode[len(so_far)].action for episode in here if len(episode) > len(so_far)}
    valid = [action for action in _valid(messages) if action not in punished] or ["look around"]
    return rng.choice([action for action in valid if action not in tried] or valid)


explore.reads_valid = True  # type: ignore[attr-defined]


def _up_to_last_reward(episode: Sequence[PastStep]) -> Sequence[PastStep]:
    """An episode up to its last reward above 0."""
    return episode[: max((at + 1 for at, step in enumerate(episode) if (step.reward or 0.0) > 0), default=0)]


def _value(episode: Sequence[PastStep]) -> tuple[float, int]:
    """The sum of an episode's positive rewards; of two with the same sum, the shorter one is better."""
    return sum(max(step.reward or 0.0, 0.0) for step in episode), -len(episode)


def _plan(best: Sequence[PastStep], number: int) -> list[str]:
    """The actions to repeat in the episode of that number."""
    idle = [at for at, step in enumerate(best) if not step.reward]
    left_out = idle[number // 2 % len(idle)] if idle and number % 2 else None
    return [step.action for at, step in enumerate(best) if at != left_out]


def _actions(messages: Sequence[Message]) -> list[str]:
    """The actions of the current episode."""
    return [str(message["content"]) for message in messages if message["role"] == "assistant"]


def _valid(messages: Sequence[Message]) -> list[str]:
    """The valid actions that the latest observation lists."""
    listed = text_of(messages[-1:]).rpartition(VALID)[2]
    return [action for action in listed.partition("\n")[0].split(", ") if action]
