"""Prompt caching: for providers that want marks on what to cache, prompts carry them.

Most providers find a prompt's cached prefix by themselves; for them a prompt is left as it is. Two do not:

OpenAI, from GPT-5.6 on, finds only what ends exactly where an earlier prompt had a mark, and charges 1.25 times the
price for what it caches. Without explicit marks it marks the end of the newest message. That is right for the layout
"turns", which is only appended to, and wrong for "transcript", whose one message ends in words that never come again:
the whole prompt would be paid for at 1.25, in every round. Anthropic caches nothing but what is marked, up to four
marks a prompt, and from each mark looks back over twenty blocks.

So in a transcript the ends of its two latest attempts are marked: what the round before has marked is found again, and
what is new is cached for the round after. In turns, and in a prompt without attempts, the end is marked for Anthropic.
Neither provider compares the marks themselves.

OpenAI also takes a key for requests that belong together (`prompt_cache_key`), so that they reach the same machine.
It is sent to OpenAI's own address only, because other servers of its protocol may refuse fields they do not know.

Not covered: structured output, bound models, graphs, and the prompts of judges and reflectors, which carry no marks;
and memories that move ("last:5"), whose prompts have no lasting prefix: with them `cache="off"` saves the price of
marks on Anthropic. In turns of GPT-5.6 and later, feedback that is shown whole once and cut later (`feedback_limit`):
the mark that OpenAI sets ends in it; there, give `latest_feedback_limit` the same number.

Sources: https://developers.openai.com/api/docs/guides/prompt-caching and
https://platform.claude.com/docs/en/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from icrl_graph.models.servers import address_of, is_openai
from icrl_graph.prompts.layouts import Pieces
from icrl_graph.state.episode import Message

Marked = tuple[list[Message], dict[str, Any]]
"""A prompt as it is sent, and the arguments that go with the call."""


@dataclass(frozen=True)
class Dialect:
    """How a provider is made to cache prompts.

    Attributes:
        mark: sets the marks of a prompt.
        keyed: whether requests carry a key of their run.
        writes: whose writes into the cache the provider charges: those of "marked" prompts, of "all", or of "none".
        waits: whether, of calls with the same long prompt, one is made first, for the others to find it in the cache.
    """

    mark: Callable[[Sequence[Message]], Marked]
    keyed: bool = False
    writes: Literal["none", "marked", "all"] = "none"
    waits: bool = True

    def key(self, run: str) -> dict[str, Any]:
        """The arguments of a call that mark the requests of a run as belonging together."""
        return {"prompt_cache_key": run} if self.keyed else {}


def _unmarked(messages: Sequence[Message]) -> Marked:
    return list(messages), {}


def _openai(messages: Sequence[Message]) -> Marked:
    """Marks what stands before the newest attempt, and that attempt, each at its end; the rest is not cached."""
    at = _in_pieces(messages)
    if at is None or messages[at]["role"] == "assistant":
        return _unmarked(messages)
    *attempts, tail = messages[at]["content"].pieces
    stable = filter(None, ["".join(attempts[:-1]), *attempts[-1:]])
    parts = [{**_part(text), "prompt_cache_breakpoint": {"mode": "explicit"}} for text in stable]
    return _with(messages, at, [*parts, _part(tail)]), {"prompt_cache_options": {"mode": "explicit"}}


def _anthropic(messages: Sequence[Message]) -> Marked:
    """Marks the two newest attempts of a transcript; else the end, or what of it stays: see `layouts.add_turn`.

    Blocks stay as they are: they are compared whole.
    """
    at = _in_pieces(messages)
    if at is not None:
        *attempts, tail = map(_part, messages[at]["content"].pieces)
        following = [tail] if tail["text"] else []
        return _with(messages, at, [*attempts[:-2], *map(_ephemeral, attempts[-2:]), *following]), {}
    content = messages[-1]["content"]
    parts = [_part(content)] if isinstance(content, str) else content
    return _with(messages, -1, [*parts[:-1], *map(_ephemeral, parts[-1:])]), {}


def _in_pieces(messages: Sequence[Message]) -> int | None:
    """The position of the message that is made of pieces."""
    return next((i for i, message in enumerate(messages) if isinstance(message["content"], Pieces)), None)


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _ephemeral(part: Mapping[str, Any]) -> dict[str, Any]:
    return {**part, "cache_control": {"type": "ephemeral"}}


def _with(messages: Sequence[Message], at: int, content: list[dict[str, Any]]) -> list[Message]:
    """The messages, with the content of one replaced."""
    changed = list(messages)
    changed[at] = {**messages[at], "content": content}
    return changed


OFF = Dialect(_unmarked, waits=False)
AUTOMATIC = Dialect(_unmarked)
"""For a server that gets no marks and no key; it may cache all the same."""
DIALECTS: Mapping[str, Dialect] = {
    "off": OFF,
    "openai": Dialect(_unmarked, keyed=True),
    "openai-marks": Dialect(_openai, keyed=True, writes="all"),
    "anthropic": Dialect(_anthropic, writes="marked"),
}
CHOICES = ("auto", *DIALECTS)


def dialect(choice: str, model: Any) -> Dialect:
    """The dialect of that name; "auto" follows from the model's class, address and name."""
    if choice != "auto":
        return DIALECTS[choice]
    if _is_a(model, "langchain_anthropic", "ChatAnthropic"):
        return DIALECTS["anthropic"]
    if _is_a(model, "langchain_openai", "ChatOpenAI") and is_openai(address_of(model)):
        return DIALECTS["openai-marks" if takes_marks(model.model_name) else "openai"]
    return AUTOMATIC


def _is_a(model: Any, package: str, name: str) -> bool:
    """Whether it is an instance of a class, which need not be installed."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(model).__mro__)


def takes_marks(name: str) -> bool:
    """Whether a model of OpenAI's is GPT-5.6 or later; a fine-tuned one counts as its base model."""
    version = re.match(r"(?:ft:)?gpt-(\d+)(?:\.(\d+))?(?=[-:]|$)", name)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6)
