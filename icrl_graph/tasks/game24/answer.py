"""Where a response to Game of 24 says its answer: rows of signs of arithmetic, and what stands around them.

A model may write `Answer: 4*5+10-6`, a sentence, a box of LaTeX or a fence of code. All that counts is read off the
text in one pass: each row of digits, signs and brackets; whether the response marks it as its answer; and whether what
touches it gives it another meaning, as in `4!`, `2^3` and `sqrt(...)`, or a digit of another script does.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple
from unicodedata import category, numeric

from icrl_graph.state.plain import plain, without_latex


class Row(NamedTuple):
    """Signs of arithmetic in a row, such as `4 * 5 + 10 - 6 = 24`."""

    sides: tuple[str, ...]
    """What stands between the signs `=`."""
    is_plain: bool
    """Whether nothing that touches it or stands beside it gives it another meaning."""
    is_denied: bool
    """Whether its sentence says that something is wrong: before it, or where it is not marked, anywhere."""
    is_marked: bool
    """Whether its line says before it that it is the answer, as by "Answer:"."""
    marks: int
    """How many such marks there are up to it."""

    @property
    def expression(self) -> str:
        """The first side that is more than a number, else the first that is not 24."""
        other = (side for side in self.sides if side != "24")
        return next(filter(_OPERATION.search, self.sides), next(other, self.sides[0]))

    @property
    def is_expression(self) -> bool:
        """Whether it is more than a number."""
        return any(map(_OPERATION.search, self.sides))


class Said(NamedTuple):
    """What a response says, as far as it is arithmetic."""

    rows: list[Row]
    """Those with a number in them, in order."""
    marks: int
    """How many marks there are in all."""
    last_line: str
    """The last line with more than signs on it."""

    @property
    def ends_with_row(self) -> bool:
        """Whether the last line is a row and nothing else."""
        pieces = _ROW.split(self.last_line)
        return not any(map(_WORD.search, pieces[::2])) and sum(map(bool, map(_WORD.search, pieces[1::2]))) == 1


def read_rows(text: str, numbers: Sequence[int]) -> Said:
    """Read a response.

    Args:
        text: the response.
        numbers: those of the puzzle; they may stand beside an expression, as in "(using 4, 5, 6, 10)".
    """
    rows, marks, last = list[Row](), 0, ""
    beside = sorted(map(str, numbers))
    for line in readable(text).split("\n"):
        last = line if _WORD.search(line) else last
        before = marks
        for sentence in _SENTENCE.split(line):
            rows += _of_sentence(sentence, before, marks, beside)
            marks += sentence.count(MARK)
    return Said(rows, marks, last)


_WORD = re.compile(r"[^\W_]")
_SENTENCE = re.compile(r"(?<=[.!?])[ \t]")
_ROW = re.compile(r"((?:[-+*/()\[\]{}= \t0-9]|(?<=[0-9])\.(?=[0-9]))+)")
_OPERATION = re.compile(r"[-+*/]|[0-9)\]}]\s?[(\[{]")
_NUMBER = re.compile(r"[0-9]+")
_DENIAL = re.compile(
    r"\b(?:not|never|wrong|incorrect|false|fail(?:s|ed)?|cannot|impossible|invalid)\b|n't\b|[≠✗✘❌❎错誤]|不[是对等能]",
    re.I,
)


def _of_sentence(sentence: str, before: int, marks: int, beside: Sequence[str]) -> Iterator[Row]:
    """The rows of a sentence, on a line that begins after that many marks."""
    if not _NUMBER.search(sentence):
        return
    pieces = _ROW.split(sentence)
    rows, opened = list[tuple[str, ...]](), 0
    for row, behind in zip(pieces[1::2], pieces[2::2], strict=True):
        rows.append(_sides(row, bool(behind), opened) if _NUMBER.search(row) else ())
        opened += row.count("(") - row.count(")")
    others = [number for sides in rows if not _is_whole(sides) for number in _NUMBER.findall("=".join(sides))]
    stands_free = sorted(number for number in others if number != "24") in ([], beside)
    denials = [bool(_DENIAL.search(words)) for words in pieces[::2]]
    is_denied_somewhere, denied_before = any(denials), accumulate(denials, operator.or_)
    for ahead, row, behind, sides, is_denied in zip(
        pieces[::2], pieces[1::2], pieces[2::2], rows, denied_before, strict=False
    ):
        marks += ahead.count(MARK)
        if sides:
            is_marked, claims = marks > before, len(sides) > 1 and "24" in (sides[0], sides[-1])
            is_plain = (
                (claims or stands_free or not _OPERATION.search(row))
                and _may_touch(ahead, ahead[-1:], is_glued=row[0] not in " \t)]}")
                and (_may_touch(behind, behind[:1], is_glued=row[-1] not in " \t([{") or (claims and behind[:1] == "!"))
            )
            yield Row(sides, is_plain, is_denied or (is_denied_somewhere and not is_marked), is_marked, marks)


def _sides(row: str, goes_on: bool, opened: int) -> tuple[str, ...]:
    """What stands between the signs `=` of a row, without brackets that belong to the words around it.

    Args:
        row: the row.
        goes_on: whether words follow it.
        opened: how many brackets the words before it have opened.
    """
    row = row.strip(" \t").lstrip(")]} \t" if opened > 0 else "").rstrip("([{ \t" if goes_on else "")
    first = row.partition("=")[0]
    if row.endswith(")") and opened > 0 and row.count(")") - row.count("(") == 1:
        row = row[:-1]
    elif (row[:1] + row[-1:] == "()" and first.count("(") - first.count(")") == 1) or row[:1] + row[-1:] == "**":
        row = row[1:-1]
    return tuple(side.strip(" \t") for side in row.removeprefix("=").split("="))


def _is_whole(sides: Sequence[str]) -> bool:
    """Whether a row is an expression that begins and ends with a number or a bracket."""
    edges = f"{sides[0][:1]}{sides[-1][-1:]}" if sides else ""
    return len(edges) == 2 and not set(edges) & set("-+*/") and any(map(_OPERATION.search, sides))


_OPERATOR = re.compile(
    r"\W*(?:plus|minus|times|multiplied|over|div|divided|mod|modulo|squared|cubed|factorial|choose|power|percent|sqrt"
    r"|root|log|ln|abs|max|min|sum|round|floor|ceil|int|eval|exec|print|else|lambda|return)\W*",
    re.I,
)


_HARMFUL = "❗❕💯🔟加減减乘除"
_HARMLESS = re.compile(
    "[-.,:;\"'`…—–„‚‹›¡¿،؛।→⇒⟹⟶∴∵\x01]"
    "|[\u2600-\u2767\u2794-\u27bf\u2b50-\u2b59\U0001f300-\U0001faff]"  # ticks, stars, faces
)
_UNSPACED = re.compile("[\u0e01-\u0e30\u3041-\u3096\u3400-\u9fff\uac00-\ud7a3]")


def _may_touch(word: str, sign: str, is_glued: bool) -> bool:
    """Whether a word, and the sign of it that is next to a row, leave the row its meaning."""
    if not word or sign in _HARMFUL or _OPERATOR.fullmatch(word):
        return not word
    if category(sign)[0] == "L" and numeric(sign, None) is None:
        return not is_glued or bool(_UNSPACED.match(sign))
    return bool(_HARMLESS.match(sign))


# ------------------------------------------------------------------------------------------------------------ the text

MARK = "\x01"
"""Stands in a readable text where a response says that its answer follows."""

_OPERATORS = ("+", "-", "*", "/", "=", "(", "[", "{")
_ANSWER = (
    r"(?:(?<![^\W_])(?:answers?|antwort|réponse|respuesta|resposta|risposta|ответ|antwoord|odpowiedź|cevap|đáp án)"
    r"|答案|答え|解答|答|정답|답)(?: [0-9]{1,2})?[\W_]{0,4}?"
)
_NEXT_LINE = r"(?:[`\"*_: \t]{0,6}\n\s*+)?"
_LABEL = re.compile(
    rf"{_ANSWER}[:=]{_NEXT_LINE}"
    rf"|(?:{_ANSWER}(?:(?:is|ist|lautet|est|es|é|è)\b|[是为為은は]|[-–—] )|(?<![^\W_])expression[\W_]{{0,4}}?:)"
    rf"{_NEXT_LINE}(?=[^0-9\n]{{0,40}}[0-9])",
    re.I,
)
_FORMS = tuple(
    (re.compile(pattern, re.I | re.M), plainer)
    for pattern, plainer in (
        (r"<br ?/?>", "\n"),
        (r"</?(?:b|strong|i|em|u|code|pre|p|div|span|mark|center|li|ul|ol|h[1-6])>", "`"),
        (r"^[ \t]{0,8}(?:```|~~~)[^`\n]*$|^[ \t]{0,8}[-=_*]{3,}[ \t]*$", ""),  # fences and rules
        (r"[-=]{1,3}>", "→"),
        (r"[ \t]+", " "),
        (r"\*\*(?:(?<![0-9)\]}]..)(?<![0-9)\]}] ..)|(?! ?(?:[0-9]|[(\[{] ?[0-9(\[{])))", "`"),  # bold, but no power
        (r"={2,3}", "="),
        (r"&(?= ?=)|(?<==)&", ""),  # lines of LaTeX that are aligned
        (r"[` ]{0,4}=[` ]{0,4}", " = "),
        (r"(?<=[0-9)\]}]) ?x ?(?=[0-9(\[{])", "*"),
        (r"(?<=[0-9])\.0++(?!\.?[0-9])", ""),
    )
)
_CLAIM = re.compile(r"(\( ?)?= 24(?(1) ?\)| (?=[(\[]))")


def tidied(text: str) -> str:
    """A response in plain signs, without what only sets its type."""
    text = without_latex(plain(text))
    for pattern, plainer in _FORMS:
        text = pattern.sub(plainer, text)
    return text


def readable(text: str) -> str:
    """A response in plain signs, each expression on one line, with a `MARK` before each answer."""
    lines = _CLAIM.sub("= 24, ", _unboxed(_tagged(tidied(text)))).split("\n")
    return _LABEL.sub(MARK, "\n".join(map(_unlisted, _joined(lines))))


_TAG = re.compile(r"(</?answer>)", re.I)


def _tagged(text: str) -> str:
    """What stands between tags of answers; the whole text if nothing does, or 24 alone."""
    pieces, opened, found = _TAG.split(text), None, list[str]()
    for at, piece in enumerate(pieces):
        if piece.lower() == "<answer>" and opened is None:
            opened = at
        elif piece.lower() == "</answer>" and opened is not None:
            found.append("".join(pieces[opened + 1 : at : 2]))
            opened = None
    inside = "\n".join(found)
    return inside if found and inside.strip() != "24" else "\n".join(pieces[::2])


def _unboxed(text: str) -> str:
    r"""The text with each box of LaTeX marked, on a line of its own; within a formula, `= \boxed{24}`, opened."""
    done, *pieces = text.split("\\boxed")
    parts, before = [done], done
    for piece in pieces:
        end = _end_of_box(piece)
        held, rest = piece[:end].strip().removeprefix("{"), piece[end + 1 :]
        is_within = before.rstrip(" \t`").endswith(_OPERATORS)
        parts.append(f"\\{piece}" if not end else held + rest if is_within else f"\n{MARK}{held}\n{rest}")
        before = piece
    return "".join(parts)


def _end_of_box(piece: str) -> int:
    """Where a box is closed whose name stands before; 0 if it is not."""
    depth = 0
    for at, sign in enumerate(piece):
        depth += (sign == "{") - (sign == "}")
        if depth == 0 and not sign.isspace():
            return at if sign == "}" else 0
    return 0


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """The lines that hold something, with those as one over which one expression goes on."""
    held = [""]
    for line in filter(_HELD.search, lines):
        before = held[-1].rstrip(" `")
        goes_on = _CONTINUES.match(line) if before[-1:].isdigit() or before.endswith((")", "]", "}")) else None
        if before.endswith(_OPERATORS) or (goes_on and (goes_on[1] or _OPERATES.search(before))):
            held.append(line)
        else:
            yield " ".join(held)
            held = [line]
    yield " ".join(held)


_HELD = re.compile(r"[^ \t`]")
_OPERATES = re.compile(r"^ ?[+/]|[0-9)\]}] ?[-+*/] ?[0-9(\[{]")
_CONTINUES = re.compile(r" ?(?:([+/=)\]}^!%])|[-*] ?(?:[0-9]+|\([^()]*\)) ?(?:= ?24\b[^0-9]*)?$)")


def _unlisted(line: str) -> str:
    """A line without the sign or number of an item of a list."""
    listed = _LISTED.match(line)
    return line[listed.end() :] if listed else line


_LISTED = re.compile(
    r"(?:`? ?(?:[-*+>#]{1,6}|[0-9]{1,2}[.)]"
    r"|(?:step|solution|option|approach|method|way|try|attempt) ?[0-9]{1,2} ?[:.)])`? ){1,3}",
    re.I,
)
