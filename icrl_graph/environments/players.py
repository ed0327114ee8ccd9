"""Players without a language model, so that the whole path of an episode can be gone for real.

`follow` does what it is told to, such as a known solution. `explore` learns in its context, and nowhere else: it reads
the earlier episodes of its prompt with their rewards, does again what earned most, and from there on tries actions that
are valid and that it has not seen fail. Without rewards it can only try.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Message

VALID = "Valid actions: "
"""Opens the line of an observation's hint that lists them, with commas between them."""

_ATTEMPT = re.compile(r"<attempt>\n(.*?)\n</attempt>", re.S)
_LINE = re.compile(r"(?P<action>.*?) -> .*?(?: \([^():]+: (?P<reward>[-+.\de]+)\))?", re.S)


class Deed(NamedTuple):
    """A step of an earlier episode, as a prompt tells it."""

    action: str
    reward: float | None
    """None where the prompt does not show it."""


def read_episodes(messages: Sequence[Message]) -> list[list[Deed]]:
    """The earlier episodes of a prompt (`icrl_graph.prompts.layouts.played`)."""
    told = _ATTEMPT.findall(text_of(messages))
    return [[_deed(line) for line in attempt.split("\n") if " -> " in line] for attempt in told]


def _deed(line: str) -> Deed:
    read = _LINE.fullmatch(line)
    assert read is not None
    return Deed(read["action"], None if read["reward"] is None else float(read["reward"]))


def follow(path: Sequence[str], then: str = "wait") -> Callable[[Sequence[Message]], str]:
    """A player that does these actions in order in each episode.

    Args:
        path: the actions.
        then: what it does behind their end.
    """

    def act(messages: Sequence[Message]) -> str:
        done = _done(messages)
        return path[done] if done < len(path) else then

    return act


def explore(messages: Sequence[Message], rng: Random) -> str:
    """The next action of a player that learns from the rewards in its prompt.

    It repeats the episode with the highest return as far as its last reward above 0, in every other episode without one
    of the actions that earned nothing, for steps are few. Then it draws among the valid actions: not those that were
    punished, and rather those that no episode has tried at this point.
    """
    episodes, so_far = read_episodes(messages), _actions(messages)
    plan = _plan(max(map(_earning, episodes), key=_worth, default=[]), len(episodes))
    if len(so_far) < len(plan):
        return plan[len(so_far)]
    punished = {deed.action for episode in episodes for deed in episode if (deed.reward or 0.0) < 0}
    here = (episode for episode in episodes if [deed.action for deed in episode[: len(so_far)]] == so_far)
    tried = {episode[len(so_far)].action for episode in here if len(episode) > len(so_far)}
    valid = [action for action in _valid(messages) if action not in punished] or ["look around"]
    return rng.choice([action for action in valid if action not in tried] or valid)


explore.reads_valid = True  # type: ignore[attr-defined]


def _earning(episode: Sequence[Deed]) -> Sequence[Deed]:
    """An episode up to its last reward above 0."""
    return episode[: max((at + 1 for at, deed in enumerate(episode) if (deed.reward or 0.0) > 0), default=0)]


def _worth(episode: Sequence[Deed]) -> tuple[float, int]:
    """What an episode has earned; of the same, the shorter is worth more."""
    return sum(max(deed.reward or 0.0, 0.0) for deed in episode), -len(episode)


def _plan(best: Sequence[Deed], number: int) -> list[str]:
    """What to do again in the episode of that number."""
    idle = [at for at, deed in enumerate(best) if not deed.reward]
    left_out = idle[number // 2 % len(idle)] if idle and number % 2 else None
    return [deed.action for at, deed in enumerate(best) if at != left_out]


def _actions(messages: Sequence[Message]) -> list[str]:
    """What was done in the current episode."""
    return [str(message["content"]) for message in messages if message["role"] == "assistant"]


def _done(messages: Sequence[Message]) -> int:
    return len(_actions(messages))


def _valid(messages: Sequence[Message]) -> list[str]:
    """The actions that the latest observation names as valid."""
    listed = text_of(messages[-1:]).rpartition(VALID)[2]
    return [action for action in listed.partition("\n")[0].split(", ") if action]
