r"""The answer to a problem of mathematics: where it stands in a response, and its plain form.

It stands in the last `<answer>...</answer>`, else in the last `\boxed{...}` whose braces close. Nothing else counts,
such as the last number of the text, which may be any. All of it takes time in proportion to the length of the response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from icrl_graph.state.checks import is_number
from icrl_graph.state.plain import plain

LONGEST = 500
"""Characters of an answer that is compared."""

_TAG = re.compile(r"<(/?)answer>", re.I)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{|\\.|[{}]", re.S)


def read_answer(response: str) -> str | None:
    """The answer that a response gives, as it is written; None if it gives none."""
    answer = tagged(response)
    boxed = _boxed(response if answer is None else answer)
    answer = answer if boxed is None else boxed
    return answer.strip() or None if answer is not None else None


def tagged(text: str) -> str | None:
    """What stands in the last pair of tags."""
    start, found = None, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            found, start = text[start : tag.start()], None
    return found


def _boxed(text: str) -> str | None:
    """What stands in the last box whose braces close."""
    opened: list[int | None] = []  # where the content of a box begins; None for other braces
    found = None
    for brace in _BRACE.finditer(text):
        if brace[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found = text[start : brace.start()]
        elif brace[0] == "{":
            opened.append(None)
        elif brace[0][-1] == "{" and len(brace[0]) > 2:  # not \{
            opened.append(brace.end())
    return found


def read_targets(task_data: Mapping[str, Any]) -> list[str]:
    """The reference answers of a task, each of which is right.

    Raises:
        ValueError: task_data["target"] is neither a text or a number nor a list of these.
    """
    told = task_data.get("target")
    targets = list(told) if isinstance(told, Sequence) and not isinstance(told, str) else [told]
    known = [str(each).strip() for each in targets if isinstance(each, str) or is_number(each)]
    if not targets or len(known) < len(targets) or not all(known):
        raise ValueError(f"task_data['target'] must be the right answer, or a list of such, got {told!r:.200}")
    return known


_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")


def is_prose(target: str) -> bool:
    """Whether a reference answer is more than an answer: four words and more, such as a worked solution without a box.

    Each of their letters can be read as a variable, and no answer would ever equal their product.
    """
    return _boxed(target) is None and len(_WORD.findall(_WORDS.sub("", target))) > 3


_WORDS = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s?\{([^{}]*)\}")
_NOISE = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|\\[,;:! ]|\\[()\[\]]|\\?\$|\s|\^\{?\\circ\}?"
    r"|\\degree(?![a-zA-Z])|°"
)
_EMPHASIS = re.compile(r"(\*\*|`)(.+)\1", re.S)
_MIXED = re.compile(r"([-+]?[0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_APART = re.compile(r"(?![0-9]{1,3}(?:\s[0-9]{3})+$)[0-9]+(?:\s+[0-9]+)+")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NAMED = re.compile(r"[a-zA-Z]=(?=[^=])")
_RATIONAL = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<decimal>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|\\frac\{(?P<top>-?[0-9]+)\}\{(?P<bottom>[0-9]+)\}"
    r"|\\frac(?P<one>[0-9])(?P<two>[0-9])|(?P<over>[0-9]+)/(?P<under>[0-9]+))"
)


def normal(answer: str) -> str:
    """An answer without what does not change its meaning: spaces, dollars, emphasis, sizes of brackets, units."""
    text = _FRACTION.sub(r"\\frac", plain(answer).replace("{,}", ","))
    words = list(_WORDS.finditer(text))
    if words and words[-1].end() == len(text.rstrip("$ .)^23")) and words[-1].start() > 0:
        text = text[: words[-1].start()]
    bare = text.strip("$ .")
    if emphasised := _EMPHASIS.fullmatch(bare):
        text = bare = emphasised[2].rstrip(". ")
    if _MIXED.fullmatch(bare):  # 2 1/2 is no 21/2
        text = _MIXED.sub(r"\1\\frac{\2}{\3}", bare)
    elif _APART.fullmatch(bare):  # nor is 3 4 a 34; 1 000 is 1000
        text = ",".join(bare.split())
    text = _NOISE.sub("", text).rstrip(".")
    named = _NAMED.match(text)
    text = text[named.end() :] if named else text
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


def rational(answer: str) -> Fraction | None:
    r"""The number that an answer is: an integer, a decimal, or a fraction such as 3/4 or \frac{3}{4}; None for others.

    It is exact; of an answer to AIME, an integer from 0 to 999, nothing else has to be asked.
    """
    if len(answer) > LONGEST or not (number := _RATIONAL.fullmatch(normal(answer))):
        return None
    parts = number.groupdict()
    top = parts["decimal"] or parts["top"] or parts["one"] or parts["over"]
    bottom = parts["bottom"] or parts["two"] or parts["under"] or "1"
    if int(bottom) == 0:
        return None
    value = Fraction(top) / int(bottom)
    return -value if parts["sign"] == "-" else value


def canonical(answer: str) -> str:
    """An answer in the form in which equal ones are counted together: a number as a fraction, others normalised.

    Formulas that are equal, but written otherwise, are told apart.
    """
    number = rational(answer)
    return normal(answer) if number is None else str(number)


def canonical_answer(response: str) -> str:
    """The answer of a response in its canonical form, "" where it gives none: the option `extract` of a graph."""
    answer = read_answer(response)
    return "" if answer is None else canonical(answer[:LONGEST])
