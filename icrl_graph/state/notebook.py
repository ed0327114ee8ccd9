"""Runs as a notebook shows them: a table with a curve in HTML, rows for a data frame, a plot.

A model may have said anything: in HTML it is text, each on a line or in a cell of its own, and never markup.
"""

from __future__ import annotations

import html
import importlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from icrl_graph.errors import MissingExtra, missing_extra
from icrl_graph.state.episode import Episode, answer_of, cost_of, error_of, value_of
from icrl_graph.state.formatting import number, shorten
from icrl_graph.state.selection import metric_of

ENDS = 5
"""How many of the first, and of the last, attempts of a long run are printed."""
LONG = 4 * ENDS
"""A run of more attempts is a long one."""
REWARD, BEST = "#0072b2", "#d55e00"
"""The colors of the curves."""


def attempt_row(episode: Episode) -> dict[str, Any]:
    """An attempt as a row of a table; round and candidate are counted from 1, what is not known is None."""
    usage = cost_of(episode)
    return {
        "round": episode["round"] + 1,
        "candidate": episode["candidate"] + 1,
        "instruction": episode["plan"]["instruction"],
        "response": episode.get("response"),
        "answer": answer_of(episode),
        "reward": value_of(episode),
        "metric": metric_of(episode),
        "error": error_of(episode),
        "calls": usage.get("calls", 0),
        "tokens": usage["input"] + usage.get("output", 0) if "input" in usage else None,
        "usd": usage.get("usd"),
        "seconds": usage.get("seconds"),
        **({"model": episode["model"]} if "model" in episode else {}),
    }


def data_frame(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a pandas DataFrame.

    Raises:
        MissingExtra: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as missing:
        raise MissingExtra("pandas is not installed; run: pip install pandas, or 'icrl-graph[pandas]'") from missing
    return pandas.DataFrame(rows)


def new_axes() -> Any:
    """Empty axes of a figure of their own, which a notebook shows.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as missing:
        raise missing_extra("matplotlib", "report") from missing
    return pyplot.subplots(layout="constrained")[1]


def plot_attempts(episodes: Sequence[Episode], axes: Any = None) -> Any:
    """Draw the rewards of a run's attempts, and the best so far.

    Args:
        episodes: its attempts.
        axes: where; None for new ones.

    Returns:
        The axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    values = [value_of(episode) for episode in episodes]
    known = [at for at, value in enumerate(values, 1) if value is not None]
    axes.plot(known, [value for value in values if value is not None], "o-", color=REWARD, markersize=3, label="reward")
    best = _best_so_far(values)
    axes.step([at for at, _ in best], [value for _, value in best], where="post", color=BEST, label="best so far")
    several = any(episode["candidate"] for episode in episodes)
    axes.set(xlabel="attempt" if several else "round", ylabel="reward")
    axes.legend()
    return axes


def ends(count: int) -> tuple[int, int]:
    """Of so many attempts, how many of the first and how many of the last are printed: all, unless there are many."""
    return (count, 0) if count <= LONG else (ENDS, ENDS)


def result_html(headline: str, answer: Any, episodes: Sequence[Episode], label: Callable[[str], str]) -> str:
    """A run as HTML that needs nothing else: what it came to, its curve, its attempts, of many the first and last.

    `label` makes of an instruction what people read of it.
    """
    first, last = ends(len(episodes))
    has_models = len({episode.get("model") for episode in episodes}) > 1
    rows = [list(_cells(episode, label, has_models)) for episode in episodes]
    left_out = len(rows) - first - last
    middle = [[f"... {left_out} more ..."]] if left_out else []
    headings = ("round", "instruction", *(["model"] if has_models else []), "reward", "response")
    table = html_table(headings, [*rows[:first], *middle, *rows[len(rows) - last :]])
    curve = curve_html([value_of(episode) for episode in episodes])
    return f"<div>{_line(headline)}{_line(f'answer: {shorten(answer, 300)}')}{curve}{table}</div>"


def _cells(episode: Episode, label: Callable[[str], str], has_models: bool) -> Iterator[str]:
    yield str(episode["round"] + 1)
    yield shorten(label(episode["plan"]["instruction"]), 40)
    if has_models:
        yield episode.get("model", "")
    yield number(value_of(episode))
    yield attempt_line(episode, 200)


def attempt_line(episode: Episode, width: int = 80) -> str:
    """What an attempt has answered, on a line; what confirmed it, why it has no reward, or why there is nothing."""
    if "response" not in episode:
        return shorten(f"! {error_of(episode) or 'not answered yet'}", width)
    reason = None if value_of(episode) is not None else error_of(episode)
    passes = f"  (passes {', '.join(map(number, episode['passes']))})" if "passes" in episode else ""
    return shorten(episode["response"], width) + passes + (f"  ! {shorten(reason, 2 * width)}" if reason else "")


def html_table(headings: Iterable[Any], rows: Iterable[Iterable[Any]], title: Any = "") -> str:
    """A table as HTML. Whatever its cells say is text; the last column, or a lone cell, is set to the left."""
    head = "".join(f'<th style="text-align:left">{escaped(each)}</th>' for each in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    caption = f'<caption style="text-align:left">{escaped(title)}</caption>' if str(title) else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return f'<td style="text-align:left">{escaped(value)}</td>'


def _line(text: str) -> str:
    return f"<div>{escaped(text)}</div>"


def escaped(value: Any) -> str:
    """A value as the text of HTML that can be stored: without markup, control characters and halves of characters."""
    clean = (
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else "\ufffd" for char in str(value)
    )
    return html.escape("".join(clean))


def curve_html(values: Sequence[float | None], width: int = 320, height: int = 56) -> str:
    """A small curve of rewards and of the best so far; nothing where no attempt was scored."""
    known = [(at, value) for at, value in enumerate(values, 1) if value is not None]
    if not known:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)

    def points(curve: Iterable[tuple[int, float]]) -> str:
        across, up = (width - 8) / max(1, len(values) - 1), (height - 8) / (high - low or 1)
        return " ".join(f"{4 + (at - 1) * across:.1f},{height - 4 - (value - low) * up:.1f}" for at, value in curve)

    lines = ((BEST, _best_so_far(values)), (REWARD, known))
    drawn = "".join(
        f'<polyline points="{points(curve)}" fill="none" stroke="{color}" stroke-width="1.5" stroke-linecap="round"/>'
        for color, curve in lines
    )
    said = f"rewards from {number(low)} to {number(high)}, and the best so far"
    svg = f'<svg width="{width}" height="{height}" role="img"><title>{said}</title>{drawn}</svg>'
    return f"<div>{svg}</div>"


def _best_so_far(values: Sequence[float | None]) -> list[tuple[int, float]]:
    known = [(at, value) for at, value in enumerate(values, 1) if value is not None]
    return list(zip((at for at, _ in known), accumulate((value for _, value in known), max), strict=True))
