"""A reproduced table as text, Markdown and LaTeX."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from icrl_graph.benchmarks.reproduction.lines import Line
from icrl_graph.state.formatting import MISSING, level, table

if TYPE_CHECKING:
    from icrl_graph.benchmarks.reproduction import Reproduction

HEADINGS = ("method", "paper", "ours", "95 %", "how")


def figure(value: float | None) -> str:
    """A figure in the unit of a table: two digits after the point below 1, else one; none where it is whole."""
    if value is None or value == round(value):
        return MISSING if value is None else f"{value:g}"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def _cells(line: Line, several: bool, source: str) -> tuple[str, ...]:
    ours, paper = line["ours"], line["paper"]
    error = "" if line["error"] is None else f" ± {line['error']:g}"
    published = MISSING if paper is None else paper if isinstance(paper, str) else f"{paper:g}{error}"
    bounds = MISSING if ours is None or ours["low"] is None else f"{figure(ours['low'])} to {figure(ours['high'])}"
    elsewhere = "" if source.endswith(line["source"]) or isinstance(paper, str) else line["source"]
    scored = f"{ours['scored']} of {ours['of']} scored" if ours is not None and "scored" in ours else ""
    how = "; ".join(filter(None, (line["note"], elsewhere, scored)))
    name = f"{line['part']}: {line['name']}" if several else line["name"]
    return name, published, MISSING if ours is None else level(ours, figure), bounds, how


def _rows(made: Reproduction) -> list[tuple[str, ...]]:
    return [_cells(line, len(made.comparisons) > 1, made.preset.source) for line in made.lines]


def _title(made: Reproduction) -> str:
    return f"{made.preset.title} ({made.preset.source})"


def _notes(made: Reproduction) -> Iterator[tuple[str, Sequence[str]]]:
    """What stands below a table, by its heading."""
    if made.preset.notes:
        yield "In the paper", made.preset.notes
    for part, differences in made.differences.items():
        where = f" ({part})" if len(made.comparisons) > 1 else ""
        yield f"Differs from the paper{where}", differences


def text(made: Reproduction, width: int) -> str:
    """For a terminal of so many columns."""
    from rich.console import Console
    from rich.text import Text

    shown = table("", *HEADINGS)
    shown.title = None  # it would be broken at the width of the columns
    shown.columns[-1].justify, shown.columns[-1].no_wrap = "left", False
    for cells in _rows(made):
        shown.add_row(*map(Text, cells))
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    console.print(_title(made), markup=False, highlight=False)
    console.print(shown)
    for heading, notes in _notes(made):
        console.print(f"{heading}:", markup=False, highlight=False)
        for note in notes:
            console.print(f"  - {note}", markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def markdown(made: Reproduction) -> str:
    """In Markdown."""

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    head = [f"**{_title(made)}**", "", row(HEADINGS), "| --- | ---: | ---: | ---: | --- |"]
    notes = [
        line for heading, told in _notes(made) for line in ("", f"{heading}:", "", *(f"* {note}" for note in told))
    ]
    return "\n".join([*head, *map(row, _rows(made)), *notes, ""])


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", MISSING: "--",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def latex_text(plain: str) -> str:
    """A text that LaTeX sets as it is."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda sign: _LATEX[sign[0]], plain)


def latex(made: Reproduction) -> str:
    """In LaTeX, a float with the package booktabs."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\"

    notes = [
        rf"\par\smallskip\footnotesize {latex_text(heading)}: {latex_text('; '.join(told))}."
        for heading, told in _notes(made)
    ]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{latex_text(_title(made))}}}",
        rf"\label{{tab:{made.table}}}", r"\begin{tabular}{lrrrl}", r"\toprule", row(HEADINGS), r"\midrule",
        *map(row, _rows(made)), r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", "",
    ])  # fmt: skip


FORMATS: Mapping[str, Callable[[Reproduction], str]] = {
    "text": lambda made: made.to_text(),
    "markdown": markdown,
    "latex": latex,
}
"""By the name of `--format`."""
