"""Numbers, intervals, costs and tables as people read them; `prompts.text.number` is for prompts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MISSING = "–"
"""In place of a number that is not known."""
_FOLDERS = re.compile(
    r"(?<![^+=,])(?:[A-Za-z]:)?[^+=,:]*[/\\\\](?=[^/\\\\+=,:]+\.(?:py|jsonl|csv|parquet|txt)(?:$|[:+,?]))"
)


def number(value: float | None) -> str:
    """Three significant digits; from 1000 whole."""
    return MISSING if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share of something, two digits and no leading zero."""
    return MISSING if value is None else f"{value:.2f}".removeprefix("0")


def score(value: float | None) -> str:
    """A score: below 1 as a share, so that many fit on a line."""
    return share(value) if value is not None and abs(value) < 1 else number(value)


def level(estimate: Mapping[str, Any], write: Callable[[float | None], str] = number) -> str:
    """A mean, or the lowest and the highest that it can be, where some is unscored."""
    if estimate.get("lowest") is None:
        return write(estimate["mean"])
    return f"{write(estimate['lowest'])} to {write(estimate['highest'])}"


def between(estimate: Mapping[str, Any], write: Callable[[float | None], str] = number) -> str:
    """A mean with the ends of its interval, where it has one, and how much is scored, where that is not all."""
    high = "∞" if estimate["high"] is None else write(estimate["high"])
    ends = "" if estimate["low"] is None else f" [{write(estimate['low'])} {high}]"
    scored = f" ({estimate['scored']} of {estimate['of']})" if "scored" in estimate else ""
    return level(estimate, write) + ends + scored


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plus_minus(value: str, estimate: Mapping[str, Any]) -> str:
    """A number with half the width of its interval, where it has one."""
    return value if estimate["low"] is None else f"{value} ±{share((estimate['high'] - estimate['low']) / 2)}"


def signed(value: float | None) -> str:
    """A difference: two digits after the point, fewer from 10 on, and one significant digit of what is near 0."""
    if value is None:
        return MISSING
    size = abs(value)
    if size >= 10:
        return f"{value:+.3g}" if size < 1000 else f"{value:+,.0f}"
    return f"{value:+.1g}" if 1e-9 < size < 0.005 else f"{value:+.2f}"


def interval(pair: Mapping[str, Any]) -> str:
    """The interval of a difference, if it has one."""
    return MISSING if pair["low"] is None else f"{signed(pair['low'])} to {signed(pair['high'])}"


def apart(pair: Mapping[str, Any], write: Callable[[float | None], str] = signed) -> str:
    """A difference, or the lowest and the highest that it can be, where some is unscored."""
    if pair.get("lowest") is None:
        return write(pair["difference"])
    return f"{write(pair['lowest'])} to {write(pair['highest'])}"


def chance(p: float | None) -> str:
    """The p of a test."""
    return MISSING if p is None else f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def cost(usage: Mapping[str, Any]) -> str:
    """What was spent: calls, tokens (in and out), US dollars, and what is not known or was wasted."""
    parts = [f"{usage.get('calls', 0):,} calls"]
    if "input" in usage:
        cached = f" ({usage['cached']:,} cached)" if usage.get("cached") else ""
        parts.append(f"{usage['input'] + usage['output']:,} tokens{cached}")
    if "usd" in usage:
        parts.append(f"{usage['usd']:.4f} USD" if usage["usd"] < 0.1 else f"{usage['usd']:,.2f} USD")
    if usage.get("estimated"):
        parts.append(f"{usage['estimated']} replies without usage, estimated")
    if usage.get("unpriced"):
        parts.append(f"{usage['unpriced']} replies without a price")
    if usage.get("breaks"):
        parts.append(f"{usage['breaks']} prompt cache breaks")
    return ", ".join(parts)


def shorten(value: Any, width: int = 80) -> str:
    """A text, or the repr of something else, on one line of at most so many characters."""
    whole = value if isinstance(value, str) else repr(value)
    start = whole[: 20 * width]  # of a text of a megabyte, no more than may be shown is looked at
    text = " ".join(start.split())
    return text if len(text) <= width and start == whole else text[: width - 3] + "..."


def command(*words: object) -> str:
    """A command line of `icrl`, as a hint that a shell takes as it is printed."""
    return shlex.join(["icrl", *map(str, words)])


def table(title: str, *headings: str) -> Any:
    """A table for a terminal, a `rich.table.Table`; its first column holds names, the others hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column(headings[0], overflow="fold")  # of what does not fit, names are folded, never numbers
    for heading in headings[1:]:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def file_names(text: str) -> str:
    """A name, such as that of a custom part, of an arm or of a file of tasks, with file names in place of paths."""
    benchmark, mark, file = text.partition("@")  # as in game24@24.csv
    if mark and not set("/\\+=,:") & set(benchmark):
        return f"{benchmark}@{_FOLDERS.sub('', file)}"
    return _FOLDERS.sub("", text)
