"""Game of 24: the puzzles and their prompt.

All 1362 solvable puzzles are generated: four numbers from 1 to 13 that make 24. That is the same set as in the file
24.csv of Tree of Thoughts (arXiv 2305.10601), whose order, by how long people take, can't be generated: `load_ranked`
reads it from a copy of the file. The paper's test set is its rows 900 to 999, counted from 0.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import combinations_with_replacement
from os import PathLike
from pathlib import Path
from typing import Any

from icrl_graph.prompts.templates import GAME24_TASK, fill
from icrl_graph.tasks.game24.verifier import can_make, read_numbers

Puzzle = tuple[int, ...]

RANKED_SHA256 = "b9f12b3e36d987a3c714c4cef17d89a137d7c59da26532fcfb93b4821d8111b5"
"""Of 24.csv in the repository princeton-nlp/tree-of-thought-llm, folder src/tot/data/24."""


@cache
def puzzles() -> tuple[Puzzle, ...]:
    """All solvable puzzles, numbers ascending, in lexical order."""
    return tuple(four for four in combinations_with_replacement(range(1, 14), 4) if can_make(four))


def task(numbers: Sequence[int]) -> dict[str, Any]:
    """The input of a graph for one puzzle.

    Raises:
        ValueError: not four integers from 1 to 13, or they can't make 24.
    """
    four = read_numbers({"numbers": list(numbers)})
    if not can_make(four):
        raise ValueError(f"the numbers {' '.join(map(str, four))} can't make 24")
    return {"task": fill(GAME24_TASK, numbers=" ".join(map(str, four))), "task_data": {"numbers": list(four)}}


def read_puzzle(text: str) -> Puzzle:
    """The numbers of a puzzle written like "4,5,6,10".

    Raises:
        ValueError: it is not in that form.
    """
    try:
        return tuple(int(number) for number in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"a puzzle is written like '4,5,6,10', got {text!r}") from None


def load_ranked(path: str | PathLike[str], *, verify: bool = True) -> list[Puzzle]:
    """The puzzles of Tree of Thoughts' 24.csv, in its order.

    Args:
        path: a copy of the file.
        verify: refuse a file that differs from the published one.

    Raises:
        ValueError: the file differs from the published one, or has no column "Puzzles" of four numbers.
    """
    raw = Path(path).read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if verify and digest != RANKED_SHA256:
        raise ValueError(f"{path} is not the published 24.csv: its sha256 is {digest}, not {RANKED_SHA256}")
    rows = csv.DictReader(raw.decode("utf-8-sig").splitlines())
    if "Puzzles" not in (rows.fieldnames or ()):
        raise ValueError(f"{path} has no column 'Puzzles'; it has {', '.join(rows.fieldnames or ()) or 'none'}")
    return [read_numbers({"numbers": list(read_puzzle(row["Puzzles"]))}) for row in rows]


PAPER_ROWS = range(900, 1000)
"""Of the ranked file, counted from 0: the test set of Tree of Thoughts and of ICRL prompting (arXiv 2506.06303)."""


def paper_rows(path: str | PathLike[str]) -> dict[int, Puzzle]:
    """The puzzles of the papers' test set by row; arguments and errors as of `load_ranked`."""
    ranked = load_ranked(path)
    return {row: ranked[row] for row in PAPER_ROWS}
