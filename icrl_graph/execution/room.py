"""What a server does without a word where a prompt nears the size of its model's context.

A prompt that nearly fills it leaves no room for an answer, which is then cut off after a token or two. And some servers
cut the front off a longer prompt, Ollama above all (`chatPrompt` in its server/prompt.go): the tokens that it reports
stay at the size of the context (ollama/ollama-python#271: 1026 for 57 thousand characters). Both show in what was
reported before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from icrl_graph.prompts.text import CHARACTERS, text_of
from icrl_graph.state.episode import Episode, Message, Usage

FEW = 4
"""So few tokens are no answer that somebody would have limited to that."""
LONGEST = 16
"""Characters of a token at most, on the average of a text: in English it has about four."""
GROWN = 256
"""By so many tokens a prompt must have grown, at least, to be compared with an earlier one."""
FRAME = 256
"""Tokens of a prompt, at most, that are neither task nor history: the model's template, an instruction."""


class Answered(NamedTuple):
    """How an answer ended."""

    written: int
    """Its tokens."""
    cut: bool
    """Whether it ended at the limit of its tokens."""

    @classmethod
    def of(cls, reply: Mapping[str, Any], tokens: int) -> Answered:
        """Of a reply or an episode, with the tokens that were reported of it; 0 where none were."""
        texts = (reply.get(name, "") for name in ("reasoning", "response"))
        return cls(tokens or sum(map(len, texts)) // CHARACTERS, reply.get("cut", False))


def lacks_room(tries: Sequence[Answered], earlier: Iterable[Answered]) -> bool:
    """Whether an answer was cut off because its prompt has left no room for it.

    Args:
        tries: with ever shorter prompts; the last one is it.
        earlier: the other answers of the run. One that was cut off as early shows a limit that holds for all.
    """
    *others, answer = tries
    if not answer.cut:
        return False
    others += earlier
    if any(each.cut and each.written <= answer.written for each in others):
        return False
    return answer.written <= max([FEW, *(each.written // 4 for each in others)])


def unread(
    past: Sequence[Episode], latest: Episode, node: str, shows: Sequence[str], messages: Sequence[Message]
) -> str | None:
    """What to tell of a server that seems to have read only a part of a prompt; None where nothing shows it.

    A prompt that holds all of an earlier one and a good deal more has more tokens than that, in every language. There
    are servers that report only what was not in their prompt cache: no more than what is new in a prompt.

    Args:
        past: the attempts before.
        latest: the one that was answered, with its plan and its costs.
        node: under which its costs stand.
        shows: what of each attempt a prompt shows.
        messages: its prompt.
    """
    if not (read := _read(latest, node, with_cached=True)):
        return None
    same = [(at, _read(each, node)) for at, each in enumerate(past) if each.get("model") == latest.get("model")]
    before, prompt = {at: tokens for at, tokens in same if tokens}, text_of(messages)
    is_dense = read * LONGEST < len(prompt)
    if not before or (read > max(before.values()) and not is_dense):
        return None
    shown = _shown(latest)
    if read <= FRAME + sum(_size(past[at], node, shows).most for at in shown - _shown(past[max(before)])):
        return None
    told = f"the server reports {read:,} tokens for a prompt of {len(prompt):,} characters"
    if is_dense and read * LONGEST < len(_REPEATED.sub("", prompt)):
        return told + _REMEDY
    for at, reported in reversed(before.items()):
        grown = sum(_size(past[each], node, shows).least for each in shown - _shown(past[at]))
        if grown >= GROWN and shown >= _shown(past[at]):
            longer = f", and {reported:,} for an earlier one that is a part of it"
            return told + longer + _REMEDY if read < reported + grown else None
    return None


_REPEATED = re.compile(r"(.)\1{3,}", re.S)
"""What stands for less than its length: blanks, a ruler."""
_REMEDY = (
    ": it seems to cut off the front of long prompts. Give its model a larger context (in Ollama num_ctx, or "
    "OLLAMA_CONTEXT_LENGTH), or show less of the history (memory='tokens:N')"
)


def _read(episode: Episode, node: str, *, with_cached: bool = False) -> int:
    """The tokens that were reported of its prompt; 0 where none were, or those of several calls."""
    usage = episode["costs"].get(node, {})
    return usage.get("input", 0) + with_cached * usage.get("cached", 0) if usage.get("calls") == 1 else 0


def _shown(episode: Episode) -> set[int]:
    return {at for start, end in episode["plan"]["shown"] for at in range(start, end)}


class _Size(NamedTuple):
    """The tokens of what prompts show of an attempt."""

    least: int
    most: int


def _size(episode: Episode, node: str, shows: Sequence[str]) -> _Size:
    response = episode.get("response", "") if "response" in shows else ""
    reflection = episode.get("reflection", "") if "reflection" in shows else ""
    feedback = episode.get("shown", {}).get("feedback", "") if "shown" in shows else ""
    texts = ((response, node), (reflection, "reflect"), (feedback, ""))
    told = [_tokens(text, episode["costs"].get(by, {})) for text, by in texts]
    return _Size(sum(each.least for each in told), sum(each.most for each in told))


def _tokens(text: str, usage: Usage) -> _Size:
    """The tokens that a text may have; of one that a model wrote no more than were reported, its reasoning included."""
    written = usage.get("output") or len(text.encode())
    return _Size(min(len(text) // LONGEST, written), min(len(text.encode()) // 2, written))
