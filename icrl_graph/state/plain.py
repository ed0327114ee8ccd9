"""What models write, in plain signs, for whatever reads an answer out of it: an expression, a score, a color.

Only what looks and means the same becomes the same: full-width forms, typographic signs, the entities of HTML, LaTeX,
and characters that nobody sees. Digits of other scripts stay what they are: some look like another digit of ours.

All of it takes time in proportion to the length of the text; every repetition that could be tried anew has a bound.
"""

from __future__ import annotations

import re
from html import unescape

_SIGNS = str.maketrans(
    {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f", "")
    | dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
    | dict.fromkeys("\u2028\u2029\u0085\v\f\r", "\n")
    | dict.fromkeys("×✕✖⨯·⋅∙•・∗⁎", "*")
    | dict.fromkeys("÷∕⁄➗", "/")
    | dict.fromkeys("−﹣‒‐‑➖", "-")
    | dict.fromkeys("﹢➕", "+")
    | dict.fromkeys("“”„«»「」『』【】", '"')
    | dict.fromkeys("‘’", "'")
    | {"。": ". ", "、": ",", "﹦": "="}
)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#[0-9]{1,6}|#[xX][0-9a-fA-F]{1,5});")
_DASH = re.compile(r"(?<=[0-9)\]}])( ?)[–—]( ?)(?=[0-9(\[{])")

_TO_CHANGE = re.compile(r"[&\r\v\f]")


def plain(text: str) -> str:
    """A text with plain signs, and lines that end in a newline."""
    if text.isascii() and not _TO_CHANGE.search(text):
        return text
    shown = _ENTITY.sub(lambda match: unescape(match[0]), text.replace("\r\n", "\n"))
    return _DASH.sub(r"\1-\2", shown.translate(_SIGNS))


_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_FRACTION = re.compile(r"\\[cdt]?frac\s{0,4}(?:\{([^{}]*)\}\s{0,4}\{([^{}]*)\}|([0-9])\s?([0-9]))")
_WORDS = re.compile(r"\\(?:text|math|operatorname|mbox|emph|bm|boldsymbol)[a-z]{0,2}\s?\{([^{}]*)\}")
_COMMAND = re.compile(r"\\(?:begin|end)\{[^{}\n]{0,20}\}|\\([a-zA-Z]+|.)|\$\$?", re.S)
_MEANS = (
    {"times": "*", "cdot": "*", "ast": "*", "div": "/", "boxed": r"\boxed", "checkmark": "✓"}
    | dict.fromkeys(("left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "!"), "")
    | dict.fromkeys(("quad", "qquad", "space", ",", ";", ":", ">", " ", "\n"), " ")
    | dict.fromkeys(("Rightarrow", "rightarrow", "implies", "to", "therefore"), "→")
    | dict.fromkeys("[]\\", "\n")
    | dict.fromkeys("()", "`")
    | {sign: sign for sign in "{}*+-=_#.`$%&<"}
)


def without_latex(text: str) -> str:
    r"""A plain text with the signs and fractions of LaTeX as plain ones, also where each backslash stands twice.

    `\boxed` stays; of a command that is not known a backslash is left. Formulas within a line stand between backticks,
    others on a line of their own.
    """
    if "\\" not in text and "$" not in text:
        return text
    text = _DOUBLED.sub(r"\\", text)
    for _ in range(4):  # from the innermost to the outermost
        text = _FRACTION.sub(lambda match: f"(({match[1] or match[3] or ''})/({match[2] or match[4] or ''}))", text)
    return _COMMAND.sub(_meaning, _WORDS.sub(r" \1 ", text))


def _meaning(match: re.Match[str]) -> str:
    if match[0][0] == "$":
        return "\n" if match[0] == "$$" else "`"
    return "\n" if match[1] is None else _MEANS.get(match[1], "\\")


def last_line(text: str) -> str:
    """The last line with more than signs on it, in plain signs; "" if there is none."""
    lines = (line for line in reversed(text.splitlines()) if _WORD.search(line))
    return without_latex(plain(next(lines, ""))).replace("\\boxed", "").replace("\n", " ")


_WORD = re.compile(r"[^\W_]")


def last_object(text: str) -> str:
    """The end of a text from its last line on that begins with a brace, without a fence around it; "" if none does."""
    _, brace, rest = ("\n" + text.strip("` \t\r\n")).rpartition("\n{")
    return brace[1:] + rest if brace else ""
