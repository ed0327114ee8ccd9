"""Creative writing: four short paragraphs, each of which ends with a sentence of the task.

The task is that of Tree of Thoughts (arXiv 2305.10601) and ICRL prompting (arXiv 2506.06303). Their 100 items are not
shipped: `load` reads them from a copy of the published file. The items here are drawn from this package's sentences
(`texts`). Whether each sentence ends its paragraph is checked exactly (`verifier`); a judge scores the quality of the
passage (`icrl_graph.benchmarks.judges`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

from icrl_graph.prompts.templates import WRITING_TASK, fill
from icrl_graph.tasks.writing.texts import SENTENCES
from icrl_graph.tasks.writing.verifier import read_endings

Endings = tuple[str, str, str, str]
"""The sentences of one item, in the order of their paragraphs."""

ITEMS = 100
"""The number of items, as in the papers."""


@cache
def items() -> tuple[Endings, ...]:
    """All items; no two have the same four sentences."""
    rng = Random(0)
    drawn: dict[frozenset[str], Endings] = {}
    while len(drawn) < ITEMS:
        first, second, third, fourth = rng.sample(SENTENCES, 4)
        drawn.setdefault(frozenset((first, second, third, fourth)), (first, second, third, fourth))
    return tuple(drawn.values())


def item(number: int) -> Endings:
    """The four sentences of one item, always the same.

    Args:
        number: 0 to 99.

    Raises:
        ValueError: there is no item with that number.
    """
    if not 0 <= number < ITEMS:
        raise ValueError(f"the items of the writing benchmark are numbered 0 to {ITEMS - 1}, got {number}")
    return items()[number]


def read_item(text: str) -> Endings:
    """The four sentences of the item whose number is written like "7".

    Raises:
        ValueError: it is not written like that, or there is no such item.
    """
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise ValueError(f"an item of the writing benchmark is a number from 0 to {ITEMS - 1}, like '7', got {text!r}")
    return item(int(digits))


def task(endings: Sequence[str]) -> dict[str, Any]:
    """The input of a graph for four sentences.

    Raises:
        ValueError: they are not four non-empty texts.
    """
    sentences = read_endings({"endings": endings})
    if len(sentences) != 4:
        raise ValueError(f"the writing task takes four sentences, one for each paragraph, got {len(sentences)}")
    numbered = "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(sentences, 1))
    return {"task": fill(WRITING_TASK, endings=numbered), "task_data": {"endings": list(sentences)}}


def tasks(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """`count` different items as inputs of a graph, the same for the same seed.

    Args:
        count: 1 to 100.
        seed: of the choice and its order; the items themselves don't depend on it.

    Raises:
        ValueError: the count is out of range.
    """
    if not 1 <= count <= ITEMS:
        raise ValueError(f"count must be 1 to {ITEMS}, got {count}")
    return [task(endings) for endings in Random(seed).sample(items(), count)]


# ------------------------------------------------------------------------------------------------- the published items

_SIZE, _SHA256 = 27669, ("830b2fce", "c4098")
_SENTENCE_END = re.compile(r"([.!?][\"'”’]?) +(?=[A-Z\"'“‘])")


def load(path: str | PathLike[str], *, verify: bool = True) -> tuple[list[Endings], list[str]]:
    """The items of Tree of Thoughts' data_100_random_text.txt: 100 lines of four sentences.

    The sentences of a line are not marked. A line is split after each `.`, `!` or `?`, with a closing quote where there
    is one, that a space and a capital or a quote follow. A line where that doesn't give four sentences is left out. Of
    the others a few may still be split at the wrong place, after an abbreviation for instance: look through them before
    you report figures. This was tried on a stand-in only, never on the published file.

    Args:
        path: a copy of the file, of the repository princeton-nlp/tree-of-thought-llm, folder src/tot/data/text.
        verify: refuse a file whose size, or the first eight or the last five digits of whose sha256, differ from those
            of the published one. The other digits are not known here, so this finds mistakes, not forgeries.

    Returns:
        The items in the file's order, and the lines left out, each with its number (from 1) and the reason.

    Raises:
        ValueError: the file differs from the published one, is not text in UTF-8, or has no line of four sentences.
    """
    raw = Path(path).read_bytes()
    if verify:
        _check_published(raw, path)
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8; save it as that: {error}") from None
    loaded: list[Endings] = []
    left_out: list[str] = []
    for number, line in enumerate(lines, 1):
        sentences = _SENTENCE_END.sub(r"\1\n", line.strip()).split("\n")
        if len(sentences) == 4:
            first, second, third, fourth = (sentence.strip() for sentence in sentences)
            loaded.append((first, second, third, fourth))
        elif line.strip():
            left_out.append(f"line {number}, '{line.strip():.60}': splits into {len(sentences)} sentences, not 4")
    if not loaded:
        raise ValueError(f"{path} has no line of four sentences; it must have four in a row on each line")
    return loaded, left_out


def _check_published(raw: bytes, path: str | PathLike[str]) -> None:
    digest = hashlib.sha256(raw).hexdigest()
    first, last = _SHA256
    if len(raw) != _SIZE or not (digest.startswith(first) and digest.endswith(last)):
        raise ValueError(
            f"{path} is not the published data_100_random_text.txt: it has {len(raw)} bytes and the sha256 {digest}, "
            f"not {_SIZE} bytes and {first}...{last}; get the published one, or pass verify=False to read it as it is"
        )
