"""The reference players of the games as models, by name as `module:name`; each plays the game that its prompt is of."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from icrl_graph.environments.games import GAMES, Entry
from icrl_graph.environments.games.players import read_seen
from icrl_graph.prompts.text import content_text
from icrl_graph.state.episode import Message


def random(messages: Sequence[Message], rng: Random) -> str:
    """Reference policy: anything that is allowed."""
    return _act("random", messages, rng)


def within(messages: Sequence[Message], rng: Random) -> str:
    """Reference policy: learns within an episode, and forgets it."""
    return _act("within", messages, rng)


def across(messages: Sequence[Message], rng: Random) -> str:
    """Reference policy: remembers the episodes that the prompt shows."""
    return _act("across", messages, rng)


def _act(name: str, messages: Sequence[Message], rng: Random) -> str:
    return _game_of(messages).references[name](read_seen(messages), rng)


def _game_of(messages: Sequence[Message]) -> Entry:
    text = "\n".join(content_text(message["content"]) for message in messages if message["role"] != "assistant")
    found = [entry for entry in GAMES.values() if entry.make.rules in text]
    if not found:
        raise ValueError(f"the prompt is of none of the games {', '.join(GAMES)}: {text!r:.200}")
    return max(found, key=lambda entry: len(entry.make.rules))
