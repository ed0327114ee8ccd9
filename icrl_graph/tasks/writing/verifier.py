"""Paragraphs: exact verification that each paragraph of a response ends with its sentence.

This is the hard constraint of the creative writing task of Tree of Thoughts (arXiv 2305.10601). The papers that use the
task leave it to a judge of coherence; here a program checks it exactly.

Paragraphs are separated by empty lines. Ignored are: other signs for the same quotes and dashes, whitespace, upper and
lower case, markdown emphasis that closes a paragraph, and a heading "Paragraph 1:" in front of one. Nothing else is; a
preface, a title or a rule counts as a paragraph. The time is linear in the length of the response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest
from typing import Any

from icrl_graph.state.reward import Reward

_SIGNS = str.maketrans(
    dict.fromkeys("“”„‟″＂", '"') | dict.fromkeys("‘’‚‛′´`", "'") | dict.fromkeys("‐‑‒–—―−﹣－", "-")
)
# Every repetition has a bound, so that no text makes it try for long.
_HEADING = re.compile(r"\A[#*_ ]{0,8}paragraph {1,3}\d{1,3}[*_ ]{0,4}(?::[*_ ]{0,4}|$)", re.I | re.M)


def plain(text: str) -> str:
    """A text normalised for the comparison: plain signs, lower case, single spaces, no emphasis at the end."""
    signs = re.sub("-+", "-", text.translate(_SIGNS))
    return " ".join(signs.casefold().split()).rstrip("*_ ")


def read_paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, plain and without their headings; a heading between empty lines is not a paragraph."""
    blocks = ("\n".join(lines) for filled, lines in groupby(text.splitlines(), _is_filled) if filled)
    paragraphs = (plain(_HEADING.sub("", block.strip())) for block in blocks)
    return [paragraph for paragraph in paragraphs if paragraph]


def _is_filled(line: str) -> bool:
    return bool(line.strip())


def read_endings(task_data: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences of a task, unchanged.

    Raises:
        ValueError: they are not a list of texts, or it or one of them is empty.
    """
    sentences = task_data.get("endings")
    if (
        isinstance(sentences, Sequence)
        and not isinstance(sentences, str | bytes)
        and sentences
        and all(isinstance(ending, str) and plain(ending) for ending in sentences)
    ):
        return tuple(sentences)
    raise ValueError(
        "task_data['endings'] must be a list of one or more sentences, each a text that is not empty, in the order of "
        f"their paragraphs, got {sentences!r:.200}"
    )


def endings(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The evaluator: the value is the share of the paragraphs that end with their sentence, 0 to 1.

    The metric is 1.0 if all do and there are as many paragraphs as sentences, else 0.0. Where there are too many or too
    few, the share is that of the larger number, so that the value is 1 only where the metric is. A paragraph of nothing
    but its sentence fails: it is a copy of the task. So does one whose last word only happens to end like the sentence.

    Args:
        response: the paragraphs.
        task_data: the sentences by "endings", in the order of their paragraphs, such as {"endings": ["It rained."]}.

    Raises:
        ValueError: the endings are not a list of texts.
    """
    wanted = [plain(ending) for ending in read_endings(task_data)]
    paragraphs = read_paragraphs(response)
    pairs = zip_longest(paragraphs[: len(wanted)], wanted, fillvalue="")
    faults = [_fault(paragraph, ending) for paragraph, ending in pairs]
    words = [f"Paragraph {place} {fault}." for place, fault in enumerate(faults, 1) if fault]
    if len(paragraphs) != len(wanted):
        words.insert(
            0, f"The paragraphs, separated by empty lines, must be {len(wanted)} in number, not {len(paragraphs)}."
        )
    return Reward(
        value=faults.count("") / max(len(wanted), len(paragraphs)),
        metric=float(not words),
        feedback=" ".join(words) or "Each paragraph ends with its sentence.",
    )


def _fault(paragraph: str, ending: str) -> str:
    """What is wrong with a plain paragraph; empty if nothing is."""
    if not paragraph:
        return "is missing"
    before = paragraph[: -len(ending)]
    if paragraph.endswith(ending) and not before[-1:].isalnum():
        written = any(map(str.isalpha, before.replace(ending, "")))
        return "" if written else "is nothing but its sentence"
    return "goes on after its sentence" if ending in paragraph[:-1] else "does not end with its sentence"
