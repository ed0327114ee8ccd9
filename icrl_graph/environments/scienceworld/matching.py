"""Matches a text that the simulator can't read to an action: by its spelling, or by its meaning."""

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
_PUNCTUATION = " \t\r\n.,;:!?\"'`*"
_LONGEST = 200
"""Characters of a text that are looked at; no action is as long."""
CACHED = 5000
"""Embeddings in an environment's cache: about as many as valid actions in an episode; 30 MB at 1536 numbers each."""
_DIGITS = 6
"""Digits of a cosine that count; those after them vary with the order in which numbers are added."""

Embed = Callable[[list[str]], Sequence[Any]]
"""Makes a vector of each text, such as `embed_documents` of LangChain's `Embeddings`."""


def nearest(text: str, objects: Sequence[str], similarity: float) -> str | None:
    """The action that a text with a slip most likely means, or None.

    The verb and each object may be misspelled a little. What is focused on is never guessed: it can end the episode.

    Args:
        text: the agent's text; punctuation around it is ignored.
        objects: what can be named.
        similarity: the least similarity, from 0 to 1, of a word and its match (`difflib.SequenceMatcher.ratio`).
    """
    words = words_of(_bare(text))
    matches = []
    for verb in (*_ALONE, *_WITH_ONE, *_WITH_TWO):
        length = len(verb.split())
        alike = _similarity(" ".join(words[:length]), verb)
        if alike >= similarity:
            named = ROOMS if verb.startswith("teleport") else objects
            completed = _complete(verb, words[length:], named, similarity)
            matches += [(alike * of_objects, len(action), action) for of_objects, action in completed]
    return max(matches)[2] if matches else None


def _complete(verb: str, rest: list[str], objects: Sequence[str], similarity: float) -> list[tuple[float, str]]:
    """The actions of a verb with the objects after it, each with the similarity of its objects."""
    if verb in _ALONE:
        return [] if rest else [(1.0, verb)]
    if verb in _WITH_ONE:
        match = _object(" ".join(rest), objects, 1.0 if verb == "focus on" else similarity)
        return [(match[0], f"{verb} {match[1]}")] if match else []
    matches: list[tuple[float, str]] = []
    for at, word in enumerate(rest):
        if word in _BETWEEN:
            one, other = (_object(" ".join(part), objects, similarity) for part in (rest[:at], rest[at + 1 :]))
            if one and other:
                matches.append((one[0] * other[0], f"{verb} {one[1]} {word} {other[1]}"))
    return matches


def _object(name: str, objects: Sequence[str], similarity: float) -> tuple[float, str] | None:
    best = max(((_similarity(name, each.lower()), each) for each in objects), default=(0.0, ""))
    return best if best[0] >= similarity else None


def _similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def closest(text: str, actions: Sequence[str], embed: Embed, threshold: float) -> str | None:
    """The action closest in meaning to a text, or None.

    It is None also where that action is to focus on something: what to focus on is never guessed.

    Args:
        text: the agent's text; punctuation around it is ignored.
        actions: the valid ones.
        embed: makes the vectors that are compared.
        threshold: the cosine must be above this, from 0 to 1.
    """
    bare = _bare(text)
    if not bare or not actions:
        return None
    cosines = _cosines(embed([bare, *actions]))
    best = max(range(len(actions)), key=cosines.__getitem__)
    is_focus = words_of(actions[best])[:1] == ["focus"]
    return actions[best] if cosines[best] > threshold and not is_focus else None


def memoized(embed: Embed, limit: int = CACHED) -> Embed:
    """The same function with a cache of the last `limit` texts that were used."""
    import numpy as np

    cache: dict[str, Any] = {}

    def embed_new(texts: list[str]) -> list[Any]:
        new = [text for text in dict.fromkeys(texts) if text not in cache]
        vectors = [np.asarray(vector, np.float32) for vector in embed(new)] if new else []
        cache.update(dict(zip(new, vectors, strict=True)))
        wanted = {text: cache.pop(text) for text in dict.fromkeys(texts)}
        cache.update(wanted)  # at the end: what was used last is evicted last
        for text in list(cache)[: max(0, len(cache) - limit)]:
            del cache[text]
        return [wanted[text] for text in texts]

    return embed_new


def _cosines(vectors: Sequence[Any]) -> list[float]:
    """The cosines of the first vector with each other one; 0 for a vector of zeros."""
    import numpy as np

    together = np.array(vectors, float)
    lengths = np.linalg.norm(together, axis=1)
    each = together / np.where(lengths > 0, lengths, 1)[:, None]
    cosines: list[float] = (each[1:] @ each[0]).round(_DIGITS).tolist()
    return cosines


def _bare(text: str) -> str:
    """The start of a text, without the punctuation around it."""
    return text[:_LONGEST].strip(_PUNCTUATION)
