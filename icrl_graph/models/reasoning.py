"""The reasoning of a model, split off from its answer.

A server that knows its model gives the reasoning in a field of its own; any other leaves it in the content, between the
model's tags. A block counts at the beginning of a reply only, for an answer may well speak of such tags. Where a chat
template has put the opening tag into the prompt, the reply has a closing one alone.

The known tags are those of vLLM's parsers (`vllm/reasoning`) and of the models' chat templates: `<think>` and its kin
(DeepSeek, Qwen; `<seed:think>`, `<longcat_think>`, `<mm:think>`), `[THINK]` (Mistral), channels (gpt-oss, Gemma) and
what is left of these once special tokens are dropped ("assistantfinal", llama-farm/llamafarm#753), those of Cohere,
Apertus, Kimi-VL, Pangu, MedGemma and Sky-T1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from heapq import merge
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

KNOWN, OFF, BETWEEN = "auto", "off", "..."
"""In a setting: the tags that are known, none at all, and what stands between the two tags of others."""


class Split(NamedTuple):
    """A reply as its model meant it."""

    reasoning: str
    """Empty if there is none."""
    answer: str
    """Verbatim, where there is no reasoning."""
    is_open: bool = False
    """Whether the reasoning has no end, so that there is no answer."""


class Tags(NamedTuple):
    """How a model marks its reasoning."""

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    lone: re.Pattern[str]
    """A closing tag that needs no opening one."""


def check_tags(tags: str | None) -> None:
    """Raise `ValueError` if a setting of tags is not of its form."""
    _read_tags(tags)


def split(text: str, tags: str | None = None) -> Split:
    """Split the reasoning off a reply.

    Args:
        text: the reply.
        tags: "OPENING...CLOSING", with commas between several; "auto", or None, for the known ones, "off" for none.
    """
    known, thoughts, at = _read_tags(tags), list[str](), 0
    while (block := _next_block(text, at, known)) is not None:
        thoughts.append(text[block.start : block.end].strip())
        if block.after is None:
            return Split(_joined(thoughts), "", is_open=True)
        at = block.after
    return Split(_joined(thoughts), _unwrapped(text[at:]) if at else text)


def split_message(message: BaseMessage, tags: str | None = None) -> Split:
    """Split the reasoning off a message, also what it has in a field of its own, or in blocks of its content."""
    told = split(str(message.text), tags)
    return told._replace(reasoning=_joined([_told_apart(message), told.reasoning]))


def _told_apart(message: BaseMessage) -> str:
    fields = [message.additional_kwargs.get(name) for name in ("reasoning_content", "reasoning")]
    blocks = message.content if isinstance(message.content, list) else []
    fields += [each for each in blocks if isinstance(each, dict) and each.get("type") in _BLOCKS]
    return _joined(map(_words, fields))


_BLOCKS = ("thinking", "reasoning", "reasoning_content")
"""Types of content blocks: Anthropic and Mistral, OpenAI and LangChain, Bedrock."""


def _words(told: Any) -> str:
    """What a field says, whatever its form."""
    if isinstance(told, list):
        return _joined(map(_words, told))
    if isinstance(told, Mapping):
        return next(filter(None, (_words(told.get(name)) for name in (*_BLOCKS, "summary", "text"))), "")
    return told if isinstance(told, str) else ""


def _joined(thoughts: Iterable[str]) -> str:
    return "\n\n".join(dict.fromkeys(thought for thought in thoughts if thought.strip()))


_NAME = r"(?i:(?:[\w-]+[:_|])?(?:think(?:ing)?|thoughts?|reasoning))"
_OPENING = rf"<{_NAME}>|\[THINK\]|◁think▷|<\|(?:START_THINKING|inner_prefix|begin_of_thought|think(?:ing)?)\|>"
_CLOSING = rf"</{_NAME}>|\[/THINK\]|◁/think▷|<\|(?:END_THINKING|inner_suffix|end_of_thought|/think(?:ing)?)\|>"
_CHANNEL = r"<\|(?:start\|>assistant<\|)?channel\|>{}[^<>]*<\|message\|>"
_FINAL = _CHANNEL.format("final")
_KNOWN = (
    (rf"{_OPENING}|<\|channel>|\[unused16\]|<unused94>", rf"{_CLOSING}|<channel\|>|\[unused17\]|<unused95>", None),
    (_CHANNEL.format("(?:analysis|commentary)"), rf"<\|end\|>|{_FINAL}", _FINAL),
    (r"(?!)", "assistantfinal", None),
)
"""Opening, closing and lone closing tags."""
_BEFORE = re.compile(r"\A\s*<\|(?:START_RESPONSE|START_TEXT|begin_of_solution)\|>\s*|\A(?:[ \t]*\r?\n)+|\A[ \t]+")
_BEHIND = re.compile(r"<\|(?:return|end|END_RESPONSE|END_TEXT|end_of_solution)\|>\s*\Z")


def _unwrapped(answer: str) -> str:
    """An answer that follows reasoning, without blank lines and special tokens around it."""
    return _BEHIND.sub("", _BEFORE.sub("", answer))


@cache
def _read_tags(tags: str | None) -> tuple[Tags, ...]:
    if tags == OFF:
        return ()
    known: list[Tags] = []
    for pair in (KNOWN if tags is None else tags).split(","):
        opening, between, closing = map(str.strip, pair.partition(BETWEEN))
        if pair.strip() == KNOWN:
            known += [_tags(*each) for each in _KNOWN]
        elif opening and between and closing:
            known.append(_tags(re.escape(opening), re.escape(closing)))
        else:
            raise ValueError(
                f"tags are 'auto', 'off' or written OPENING...CLOSING, such as <plan>...</plan>, got {tags!r}"
            )
    return tuple(known)


def _tags(opening: str, closing: str, lone: str | None = None) -> Tags:
    return Tags(*(re.compile(each) for each in (opening, closing, lone or closing)))


class _Block(NamedTuple):
    """Where reasoning stands in a reply."""

    start: int
    end: int | None
    after: int | None
    """Where what follows it begins; None where it has no end."""


def _next_block(text: str, at: int, known: tuple[Tags, ...]) -> _Block | None:
    """The reasoning that begins there, if there is any."""
    begin = len(text) - len(text[at:].lstrip())
    for tags in known:
        if opening := tags.opening.match(text, begin):
            end = _end(text, opening.end(), tags)
            return _Block(opening.end(), end and end.start(), end and end.end())
        closing = tags.lone.match(text, begin) if at else _lone(text, tags)
        if closing:
            return _Block(at, closing.start(), closing.end())
    return None


def _end(text: str, start: int, tags: Tags) -> re.Match[str] | None:
    """The closing tag of a block. It may hold other blocks, or speak of an opening tag that nothing closes."""
    closings = ((each, -1) for each in tags.closing.finditer(text, start))
    openings = ((each, 1) for each in tags.opening.finditer(text, start))
    depth, last, length = 1, None, len(text.rstrip())
    for each, change in merge(closings, openings, key=lambda pair: pair[0].start()):
        if _is_quoted(each):
            continue
        depth += change
        if depth == 0:
            return each
        if change < 0 and (last is None or each.end() < length):
            last = each
    return last or tags.closing.search(text, start)


def _lone(text: str, tags: Tags) -> re.Match[str] | None:
    """The first closing tag, where no opening one stands before it."""
    closing = _first(tags.lone.finditer(text))
    return closing if closing and not _first(tags.opening.finditer(text, 0, closing.start())) else None


def _first(found: Iterable[re.Match[str]]) -> re.Match[str] | None:
    return next((each for each in found if not _is_quoted(each)), None)


def _is_quoted(tag: re.Match[str]) -> bool:
    """Whether a text speaks of a tag, and does not use it."""
    before, after = tag.string[tag.start() - 1 : tag.start()], tag.string[tag.end() : tag.end() + 1]
    return before == after and before in ("`", "'", '"')
