"""How single values stand in a prompt: numbers, steps, blocks between tags, and messages as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from icrl_graph.state.episode import Message, Step

CHARACTERS = 4
"""Characters per token, about, in English."""


def step_line(step: Step) -> str:
    """A step on one line."""
    return f"{step['action']} -> {' '.join(step.get('observation', '').split())}"


def reward_line(label: str, value: float | None) -> str:
    """A reward under its label."""
    return f"{label}: {number(value)}"


def number(value: float | None) -> str:
    """A reward as it stands in a prompt: up to six significant digits."""
    return "unscored" if value is None else format(value, ".6g")


_TAGS = "attempt|feedback|reflection|instruction"
_MARKUP = re.compile(rf"<(\\*/?(?:{_TAGS})>)")
_ESCAPED = re.compile(rf"<\\(\\*/?(?:{_TAGS})>)")


def block(tag: str, text: str) -> str:
    """A text between tags, with whatever looks like our own markup in it escaped."""
    escaped = _MARKUP.sub(r"<\\\1", text)
    return f"<{tag}>\n{escaped}\n</{tag}>"


def unescape(text: str) -> str:
    """What stood between the tags of a block."""
    return _ESCAPED.sub(r"<\1", text)


def text_of(task: str | Sequence[Message]) -> str:
    """A task as text: of a chat, what its messages say."""
    return task if isinstance(task, str) else "\n\n".join(content_text(message.get("content")) for message in task)


def content_text(content: Any) -> str:
    """What a message says; of parts, those that are text."""
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content or [] if isinstance(part, Mapping) and "text" in part]
    ended = [text if text.endswith("\n\n") else f"{text}\n\n" for text in texts[:-1]]  # a transcript's pieces do
    return "".join([*ended, *texts[-1:]])


def as_json(value: Any) -> str:
    """A value as JSON with its keys in order; what JSON does not know, by its repr."""
    return json.dumps(value, sort_keys=True, default=repr)
