"""Minesweeper on 5 x 5 cells with 5 mines.

The mines lie where they lie from the start, away from a first cell that is named; in ORBIT they are placed at the
first reveal, which gives each episode another instance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any

from icrl_graph.environments.games.game import Game
from icrl_graph.environments.games.players import Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE, MINES = 5, 5
CELLS = range(SIZE * SIZE)


@cache
def around(cell: int) -> tuple[int, ...]:
    """The neighbours of a cell."""
    row, column = divmod(cell, SIZE)
    rows, columns = range(max(row - 1, 0), min(row + 2, SIZE)), range(max(column - 1, 0), min(column + 2, SIZE))
    return tuple(SIZE * r + c for r in rows for c in columns if SIZE * r + c != cell)


class Minesweeper(Game):
    """Reveal all cells without a mine, in eight turns."""

    name = "minesweeper"
    rules = (
        "Five mines lie hidden on a board of 5 rows and 5 columns. Reveal all cells without a mine. A number says how "
        "many of the neighbours of a cell, also diagonally, have a mine; around a 0 everything is revealed. A mine "
        "ends the game. Hidden cells are shown as a dot, flags as F. Rows and columns are counted from 0. You have "
        "eight turns."
    )
    turns = 8
    form = "Say reveal or flag with a row and a column from 0 to 4, such as reveal 2 3."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Lay the mines, away from the first cell; drawn again until eight turns are enough."""
        while True:
            self.first = rng.choice(CELLS)
            self.mines = frozenset(
                rng.sample([c for c in CELLS if c != self.first and c not in around(self.first)], MINES)
            )
            if needed(self.mines) <= self.turns:
                return

    def begin(self) -> str:
        """An empty board."""
        self.shown, self.flags = set[int](), set[int]()
        row, column = divmod(self.first, SIZE)
        return f"Row {row}, column {column} and its neighbours have no mine.\n{self._board()}"

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Reveal or flag a cell."""
        place = [int(digit) for digit in re.findall(r"[0-9]", action)]
        if len(place) != 2 or max(place) >= SIZE:
            return None
        cell = SIZE * place[0] + place[1]
        if "flag" in action:
            self.flags ^= {cell} - self.shown
            return self._board(), None
        if cell in self.mines:
            return f"A mine at row {place[0]}, column {place[1]}.", False
        self.shown |= opened(cell, self.mines)
        self.flags -= self.shown
        is_clear = len(self.shown) == len(CELLS) - MINES
        return f"{self._board()}{' All safe cells are revealed.' * is_clear}", is_clear or None

    def _board(self) -> str:
        signs = [self._sign(cell) for cell in CELLS]
        return "\n".join(" ".join(signs[SIZE * row : SIZE * (row + 1)]) for row in range(SIZE))

    def _sign(self, cell: int) -> str:
        return str(_count(cell, self.mines)) if cell in self.shown else "F" if cell in self.flags else "."


def _count(cell: int, mines: frozenset[int]) -> int:
    return len(mines.intersection(around(cell)))


@cache
def opened(cell: int, mines: frozenset[int]) -> frozenset[int]:
    """What a reveal opens: the cell, and from a 0 all around it."""
    found, front = {cell}, [cell]
    while front:
        if _count(at := front.pop(), mines) == 0:
            front += [each for each in around(at) if each not in found]
            found.update(around(at))
    return frozenset(found)


def needed(mines: frozenset[int]) -> int:
    """The least number of reveals that open all safe cells: one for each region of 0, and for each cell beside none."""
    regions = {opened(cell, mines) for cell in CELLS if cell not in mines and _count(cell, mines) == 0}
    return len(regions) + len(set(CELLS) - mines - set().union(*regions))


# ------------------------------------------------------------------------------------------------------------- players


def any_hidden_cell(seen: Seen, rng: Random) -> str:
    """Any cell that is hidden."""
    return _reveal(rng.choice(sorted(set(CELLS) - dict(_latest(seen)).keys())))


def safest_cell(seen: Seen, rng: Random) -> str:
    """The cell with a mine in the fewest layouts that fit all that was seen; of several, one that is a 0 in most."""
    import numpy as np

    layouts, counts = _layouts()
    fits = _fitting((*((cell, SAFE) for cell in _safe(seen)), *dict(_known(seen)).items()))
    hidden = sorted(set(CELLS) - dict(_latest(seen)).keys())
    risk = layouts[fits][:, hidden].mean(axis=0)
    is_zero = (counts[fits][:, hidden] == 0).mean(axis=0)
    value = risk - 1e-3 * is_zero
    return _reveal(hidden[rng.choice(np.flatnonzero(value <= value.min() + 1e-9).tolist())])


MINE, SAFE = -1, -2
"""Stand for a mine, and for none, among the numbers of the cells."""


@lru_cache(maxsize=256)
def _fitting(known: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    """The layouts in which the cells are so."""
    import numpy as np

    layouts, counts = _layouts()
    if not known:
        return np.arange(len(layouts))
    *before, (cell, number) = known
    fits = _fitting((*before,))
    mines = layouts[fits, cell]
    is_so = mines if number == MINE else ~mines & ((number == SAFE) | (counts[fits, cell] == number))
    return np.asarray(fits[is_so])


@cache
def _layouts() -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """All layouts of the mines, and the numbers that the cells then have."""
    import numpy as np

    layouts = np.zeros((53130, len(CELLS)), dtype=bool)
    layouts[np.arange(len(layouts))[:, None], np.array(list(combinations(CELLS, MINES)))] = True
    beside = np.array([[other in around(cell) for other in CELLS] for cell in CELLS], dtype=np.uint8)
    return layouts, layouts.astype(np.uint8) @ beside


_CELL = re.compile(r"row (\d), column (\d)", re.I)
_BOARD = re.compile(r"(?<!\S)[0-8.F](?: [0-8.F]){24}(?!\S)")


def _safe(seen: Seen) -> tuple[int, ...]:
    """The cells that are told to be safe."""
    (row, column), *_ = _CELL.findall(seen.first)
    first = SIZE * int(row) + int(column)
    return first, *around(first)


def _numbers(observation: str) -> Iterator[tuple[int, int]]:
    """The cells that a board shows, with their numbers."""
    for board in _BOARD.findall(observation):
        yield from ((cell, int(sign)) for cell, sign in enumerate(board.split(" ")) if sign.isdigit())


def _latest(seen: Seen) -> Iterator[tuple[int, int]]:
    """What is revealed in this episode."""
    for turn in seen.turns:
        yield from _numbers(turn.observation)


def _known(seen: Seen) -> Iterator[tuple[int, int]]:
    """What was seen in any episode."""
    for turn in seen.all_turns:
        yield from _numbers(turn.observation)
        if mine := re.match(r"A mine at row (\d), column (\d)", turn.observation):
            yield SIZE * int(mine[1]) + int(mine[2]), MINE


def _reveal(cell: int) -> str:
    return "reveal {} {}".format(*divmod(cell, SIZE))
