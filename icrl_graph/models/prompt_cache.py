"""Prompt caching: where a provider takes marks for what it should cache, the prompt carries them.

Most providers find a prompt's cached beginning by themselves; for them a prompt is left as it is. Two do not:

OpenAI, from GPT-5.6 on, finds only what ends exactly where an earlier prompt had a mark, and takes 1.25 times the price
for what it caches. Without marks of ours it marks the end of the newest message. That is right for the layout
"turns", which only grows, and wrong for "transcript", whose one message ends in words that are never seen again: the
whole prompt would be paid for at 1.25, in every round. Anthropic caches nothing but what is marked, up to four marks a
prompt, and from each mark looks back over twenty blocks.

So of a transcript the ends of its two latest attempts are marked: what the round before has marked is found again, and
what is new is cached for the round after. Of turns, and of a prompt without attempts, Anthropic has the end marked. To
both, a mark is not part of what is compared.

OpenAI also wants to be told which requests belong together (`prompt_cache_key`), so that they reach the same machine.
This goes to its own address alone, for a server that speaks its protocol may refuse fields it does not know.

Not covered: structured output, bound models, graphs, and the prompts of judges and reflectors, which carry no marks;
and memories that move ("last:5"), whose prompts have no lasting beginning: with them `cache="off"` saves the price of
marks on Anthropic.

Sources: https://developers.openai.com/api/docs/guides/prompt-caching and
https://platform.claude.com/docs/en/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from icrl_graph.prompts.layouts import Pieces
from icrl_graph.state.episode import Message

Marked = tuple[list[Message], dict[str, Any]]
"""A prompt as it is sent, and the arguments that go with the call."""


@dataclass(frozen=True)
class Dialect:
    """How a provider is told what to cache.

    Attributes:
        mark: sets the marks of a prompt.
        keyed: whether requests say which run they belong to.
        waits: whether of calls with the same long prompt one goes ahead, for the others to find it in the cache.
    """

    mark: Callable[[Sequence[Message]], Marked]
    keyed: bool = False
    waits: bool = True

    def key(self, run: str) -> dict[str, Any]:
        """The arguments of a call by which the requests of a run are known to belong together."""
        return {"prompt_cache_key": run} if self.keyed else {}


def _unmarked(messages: Sequence[Message]) -> Marked:
    return list(messages), {}


def _openai(messages: Sequence[Message]) -> Marked:
    """What is ahead of the newest attempt, and that attempt, each to its end; the rest is not to be cached."""
    at = _in_pieces(messages)
    if at is None:
        return _unmarked(messages)
    *attempts, tail = messages[at]["content"].pieces
    stable = filter(None, ["".join(attempts[:-1]), *attempts[-1:]])
    parts = [{**_part(text), "prompt_cache_breakpoint": {"mode": "explicit"}} for text in stable]
    return _with(messages, at, [*parts, _part(tail)]), {"prompt_cache_options": {"mode": "explicit"}}


def _anthropic(messages: Sequence[Message]) -> Marked:
    """Of a transcript the two newest attempts; else the end. Blocks stay as they are, for they are compared as such."""
    at = _in_pieces(messages)
    if at is not None:
        *attempts, tail = map(_part, messages[at]["content"].pieces)
        return _with(messages, at, [*attempts[:-2], *map(_ephemeral, attempts[-2:]), tail]), {}
    content = messages[-1]["content"]
    parts = [_part(content)] if isinstance(content, str) else content
    return _with(messages, -1, [*parts[:-1], *map(_ephemeral, parts[-1:])]), {}


def _in_pieces(messages: Sequence[Message]) -> int | None:
    """The place of the message that is made of pieces."""
    return next((i for i, message in enumerate(messages) if isinstance(message["content"], Pieces)), None)


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _ephemeral(part: Mapping[str, Any]) -> dict[str, Any]:
    return {**part, "cache_control": {"type": "ephemeral"}}


def _with(messages: Sequence[Message], at: int, content: list[dict[str, Any]]) -> list[Message]:
    """The messages, with another content of one."""
    changed = list(messages)
    changed[at] = {**messages[at], "content": content}
    return changed


OFF = Dialect(_unmarked, waits=False)
UNTOLD = Dialect(_unmarked)
"""Of a server that is told nothing; it may cache all the same."""
DIALECTS: Mapping[str, Dialect] = {
    "off": OFF,
    "openai": Dialect(_unmarked, keyed=True),
    "openai-marks": Dialect(_openai, keyed=True),
    "anthropic": Dialect(_anthropic),
}
CHOICES = ("auto", *DIALECTS)


def dialect(choice: str, model: Any) -> Dialect:
    """The dialect of that name; "auto" is the model's own, as far as its class, its address and its name tell it."""
    if choice != "auto":
        return DIALECTS[choice]
    if _is_a(model, "langchain_anthropic", "ChatAnthropic"):
        return DIALECTS["anthropic"]
    if _is_a(model, "langchain_openai", "ChatOpenAI") and _at_openai(model):
        return DIALECTS["openai-marks" if takes_marks(model.model_name) else "openai"]
    return UNTOLD


def _is_a(model: Any, package: str, name: str) -> bool:
    """Whether it is of a class, which need not be installed."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(model).__mro__)


def _at_openai(model: Any) -> bool:
    """Whether its requests go to OpenAI itself, as the client that it holds would send them."""
    client = getattr(model, "root_client", None) or getattr(model, "root_async_client", None)
    host = urlsplit(str(getattr(client, "base_url", ""))).hostname or ""
    return f".{host}".endswith(".api.openai.com")  # also eu.api.openai.com


def takes_marks(name: str) -> bool:
    """Whether a model of OpenAI's is GPT-5.6 or later; a fine-tuned one is what it was made from."""
    version = re.match(r"(?:ft:)?gpt-(\d+)(?:\.(\d+))?(?=[-:]|$)", name)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6)
