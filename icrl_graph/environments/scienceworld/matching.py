"""What a text most likely means that the simulator can't read: the action that is spelt like it, or says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

from icrl_graph.environments.scienceworld.templates import words_of

_ALONE = ("look around", "inventory", "task", "wait", "wait1")
_WITH_ONE = (
    *("open", "close", "activate", "turn on", "deactivate", "turn off", "disconnect", "look at", "examine", "look in"),
    *("read", "pick up", "take", "get", "put down", "drop", "mix", "go to", "go", "teleport to", "teleport", "eat"),
    *("flush", "focus on"),
)
_WITH_TWO = ("connect", "use", "move", "put", "pour", "dunk")
_BETWEEN = ("to", "in", "into", "on", "with")
ROOMS = (
    *("art studio", "bathroom", "bedroom", "foundry", "greenhouse"),
    *("hallway", "kitchen", "living room", "outside", "workshop"),
)
_AROUND = " \t\r\n.,;:!?\"'`*"
_LONGEST = 200
"""Characters of a text that are looked at; no action is as long."""
KEPT = 5000
"""Embeddings that a world keeps: of about as many actions as are valid in an episode; 30 MB at 1536 numbers each."""
_DIGITS = 6
"""Digits of a cosine that count; those behind them vary with the order in which numbers are added."""

Embed = Callable[[list[str]], Sequence[Any]]
"""Makes a vector of each text, such as `embed_documents` of LangChain's `Embeddings`."""


def nearest(text: str, objects: Sequence[str], similarity: float) -> str | None:
    """The action that a text with a slip most likely means, or None.

    The verb and each object may be misspelled a little. What is focused on is never guessed: it can end the episode.

    Args:
        text: what the agent said; what stands around it, such as a full stop, is no part of it.
        objects: what can be named.
        similarity: how alike, from 0 to 1, a word and what it is taken for must be (`difflib.SequenceMatcher.ratio`).
    """
    words = words_of(_bare(text))
    found = []
    for verb in (*_ALONE, *_WITH_ONE, *_WITH_TWO):
        length = len(verb.split())
        sure = _alike(" ".join(words[:length]), verb)
        if sure >= similarity:
            named = ROOMS if verb.startswith("teleport") else objects
            completed = _completed(verb, words[length:], named, similarity)
            found += [(sure * alike, len(action), action) for alike, action in completed]
    return max(found)[2] if found else None


def _completed(verb: str, rest: list[str], objects: Sequence[str], similarity: float) -> list[tuple[float, str]]:
    """The actions that a verb makes with what follows it, each with how alike its objects are."""
    if verb in _ALONE:
        return [] if rest else [(1.0, verb)]
    if verb in _WITH_ONE:
        found = _object(" ".join(rest), objects, 1.0 if verb == "focus on" else similarity)
        return [(found[0], f"{verb} {found[1]}")] if found else []
    made: list[tuple[float, str]] = []
    for at, word in enumerate(rest):
        if word in _BETWEEN:
            one, other = (_object(" ".join(part), objects, similarity) for part in (rest[:at], rest[at + 1 :]))
            if one and other:
                made.append((one[0] * other[0], f"{verb} {one[1]} {word} {other[1]}"))
    return made


def _object(name: str, objects: Sequence[str], similarity: float) -> tuple[float, str] | None:
    best = max(((_alike(name, known.lower()), known) for known in objects), default=(0.0, ""))
    return best if best[0] >= similarity else None


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def closest(text: str, actions: Sequence[str], embed: Embed, threshold: float) -> str | None:
    """The action that says most nearly what a text says, or None.

    It is None where that is to focus on something, too: what to focus on is never guessed, and nothing else was meant.

    Args:
        text: what the agent said; what stands around it, such as a full stop, is no part of it.
        actions: the valid ones.
        embed: makes the vectors that are compared.
        threshold: the cosine that the two must be above.
    """
    said = _bare(text)
    if not said or not actions:
        return None
    cosines = _cosines(embed([said, *actions]))
    best = max(range(len(actions)), key=cosines.__getitem__)
    is_focus = words_of(actions[best])[:1] == ["focus"]
    return actions[best] if cosines[best] > threshold and not is_focus else None


def memoized(embed: Embed, most: int = KEPT) -> Embed:
    """The same function, which is asked once for each text; the `most` that were used last are kept."""
    import numpy as np

    kept: dict[str, Any] = {}

    def known(texts: list[str]) -> list[Any]:
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        vectors = [np.asarray(vector, np.float32) for vector in embed(new)] if new else []
        kept.update(dict(zip(new, vectors, strict=True)))
        found = {text: kept.pop(text) for text in dict.fromkeys(texts)}
        kept.update(found)  # at the end: what was used last is forgotten last
        for text in list(kept)[: max(0, len(kept) - most)]:
            del kept[text]
        return [found[text] for text in texts]

    return known


def _cosines(vectors: Sequence[Any]) -> list[float]:
    """How close the first vector is to each other one; a vector of zeros is to none."""
    import numpy as np

    together = np.array(vectors, float)
    lengths = np.linalg.norm(together, axis=1)
    each = together / np.where(lengths > 0, lengths, 1)[:, None]
    cosines: list[float] = (each[1:] @ each[0]).round(_DIGITS).tolist()
    return cosines


def _bare(text: str) -> str:
    """The start of a text, without what stands around it."""
    return text[:_LONGEST].strip(_AROUND)
