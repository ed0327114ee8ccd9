"""Creative writing: four short paragraphs, each of which ends with a given sentence.

The task is that of Tree of Thoughts (arXiv 2305.10601) and ICRL prompting (arXiv 2506.06303). Their 100 items are not
shipped: `load` reads them from a copy of yours. The items here are drawn from sentences of our own. Whether the
sentences stand where they must is checked exactly (`tasks.writing.verifier`); how well the passage reads only
a judge can say (`judged`).
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
from icrl_graph.tasks.writing.verifier import read_endings

Endings = tuple[str, str, str, str]
"""The sentences of one item, in the order of their paragraphs."""

SENTENCES = (
    "The baker counted the last coins and turned off the light.",
    "Nobody had told the children that the pond was frozen.",
    "Her umbrella was still hanging in the hallway a year later.",
    "A blue bicycle leaned against the gate of the empty school.",
    "He read the letter twice before he put it in the oven.",
    "The ferry left without the man in the yellow coat.",
    "Every clock in the repair shop showed a different time.",
    "They agreed to plant tomatoes where the garage used to stand.",
    "The dentist hummed a song that only sailors know.",
    "On the third floor, someone was learning to play the trumpet.",
    "The map turned out to be of another town with the same name.",
    "My grandmother never trusted a soup that was ready in time.",
    "The goat had eaten the invitation and most of the envelope.",
    "By noon the snow had covered every sign along the road.",
    "She painted the kitchen green and told nobody why.",
    "The train stopped between two fields and the lights went out.",
    "He kept the spare key under a stone that looked like a potato.",
    "The librarian wore running shoes on the day of the sale.",
    "Two strangers shared the only dry bench in the park.",
    "The recipe asked for patience, and there was none left in the house.",
    "A radio in the next garden announced the wrong winner.",
    "The tailor found a theatre ticket sewn into the lining.",
    "It took four men and a ladder to bring down the piano.",
    "The dog waited at the bus stop until the evening.",
    "In the morning all the boats were facing the other way.",
    "She signed the form with a pencil and handed back the pen.",
    "The lighthouse keeper's daughter was afraid of the dark.",
    "We ate the birthday cake standing up in the parking lot.",
    "The museum guard knew which of the paintings was a copy.",
    "His left boot was full of sand from a beach he had never visited.",
    "The bees came back on the day the hospital opened.",
    "There was one chair too many at the long table.",
    "The photographer asked everyone to think of a closed door.",
    "An old elevator carried the oranges up to the roof.",
    "The twins exchanged their jackets before the second interview.",
    "The plumber discovered a staircase behind the bathtub.",
    "At the end of the concert the cellist was wearing one glove.",
    "The mayor's speech was shorter than the silence after it.",
    "They named the kitten after a storm that missed the island.",
    "The neighbour returned the ladder with two new rungs.",
    "The chess players did not notice that the café had closed.",
    "A single red balloon drifted over the football field.",
    "The teacher wrote the question on the board and left the room.",
    "The bridge was sold to a family of beekeepers.",
    "Her suitcase held nothing but bread and a wool blanket.",
    "The pharmacist spoke to the plants whenever it rained.",
    "The last page of the diary was written in a different hand.",
    "A taxi driver from the coast won the spelling contest.",
    "The well at the edge of the village had begun to sing.",
    "He whistled all the way home, although it was uphill.",
    "The carpenter built a door before there was a wall.",
    "The swimming pool was full of leaves and one wooden spoon.",
    "The judge borrowed a pair of glasses from the accused.",
    "The window seat stayed empty for the whole flight.",
    "The farmer measured the shadow of the barn with a belt.",
    "Somebody had tuned the street musician's guitar overnight.",
    "The postcard arrived eleven years after the wedding.",
    "The night nurse knew the names of all the passing ships.",
    "The apprentice swept the same corner until the clock struck six.",
    "After the storm the orchard smelled of pepper and salt.",
)
"""Our own, of unrelated everyday scenes. Their order is part of what an item's number means: don't change it."""

ITEMS = 100
"""How many items are drawn from them, as many as the papers use."""


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
        ValueError: there is no item of that number.
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
        ValueError: they are not four texts.
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
        seed: of the choice and its order; what the items are doesn't depend on it.

    Raises:
        ValueError: more items are asked for than there are, or less than one.
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
        path: your copy of the file, of the repository princeton-nlp/tree-of-thought-llm, folder src/tot/data/text.
        verify: refuse a file whose size, or the first eight or the last five digits of whose sha256, differ from those
            of the published one. The other digits are not known here, so this finds mistakes, not forgeries.

    Returns:
        The items in the file's order, and the lines left out, each with its number (from 1) and the reason.

    Raises:
        ValueError: the file differs from the published one, is no text in UTF-8, or has no line of four sentences.
    """
    raw = Path(path).read_bytes()
    if verify:
        _check_published(raw, path)
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8; save it as that: {error}") from None
    kept: list[Endings] = []
    left_out: list[str] = []
    for number, line in enumerate(lines, 1):
        sentences = _SENTENCE_END.sub(r"\1\n", line.strip()).split("\n")
        if len(sentences) == 4:
            first, second, third, fourth = (sentence.strip() for sentence in sentences)
            kept.append((first, second, third, fourth))
        elif line.strip():
            left_out.append(f"line {number}, '{line.strip():.60}': splits into {len(sentences)} sentences, not 4")
    if not kept:
        raise ValueError(f"{path} has no line of four sentences; it must have four in a row on each line")
    return kept, left_out


def _check_published(raw: bytes, path: str | PathLike[str]) -> None:
    found = hashlib.sha256(raw).hexdigest()
    first, last = _SHA256
    if len(raw) != _SIZE or not (found.startswith(first) and found.endswith(last)):
        raise ValueError(
            f"{path} is not the published data_100_random_text.txt: it has {len(raw)} bytes and the sha256 {found}, "
            f"not {_SIZE} bytes and {first}...{last}; get the published one, or pass verify=False to read it as it is"
        )


# ------------------------------------------------------------------------------------------------------------ the judge
