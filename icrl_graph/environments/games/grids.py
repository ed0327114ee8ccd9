"""Games of walking: a maze, and a room with a key and a door."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from random import Random
from typing import Any

from icrl_graph.environments.games.game import Game, named
from icrl_graph.environments.games.players import Seen

Cell = tuple[int, int]
STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def moved(cell: Cell, direction: str) -> Cell:
    """The cell beside another one."""
    return cell[0] + STEPS[direction][0], cell[1] + STEPS[direction][1]


def beside(cell: Cell) -> list[Cell]:
    """The four cells beside another one."""
    return [moved(cell, direction) for direction in STEPS]


class Walk(Game):
    """A game of steps up, down, left and right."""

    form = "Say up, down, left or right."
    at: Cell

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Go a step, or bump into a wall."""
        direction = named(action, STEPS)
        if direction is None:
            return None
        if (target := moved(self.at, direction)) not in self.cells():
            return f"There is a wall. {self.view()}", None
        self.at = target
        return self.arrive()

    @abstractmethod
    def cells(self) -> Collection[Cell]:
        """Where one can walk."""

    @abstractmethod
    def arrive(self) -> tuple[str, bool | None]:
        """What is seen after a step, and whether it ends the episode."""

    def view(self) -> str:
        """What is seen from here."""
        return f"You are at row {self.at[0]}, column {self.at[1]}."


# ---------------------------------------------------------------------------------------------------------------- maze


class Maze(Walk):
    """A maze of 6 to 7 rows and columns with its outer walls, its goal 7 or 8 steps away, in 9 steps.

    Only the four cells beside one's own are seen.
    """

    name = "maze"
    rules = (
        "Find the goal of a maze. You see whether there is a wall, a path or the goal above, below, left and right of "
        "you. Each turn you go one step. You have nine steps. The maze, your start and the goal are always the same."
    )
    turns = 9
    sizes = (6, 7)
    distances = (7, 8)

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw mazes until the farthest cell is as far as it should be."""
        while True:
            height, width = rng.choice(self.sizes), rng.choice(self.sizes)
            inside = {(row, column) for row in range(1, height - 1) for column in range(1, width - 1)}
            self.start = rng.choice(sorted(inside))
            self.paths = dig(self.start, inside, rng)
            steps = distances(self.start, self.paths)
            self.goal = max(sorted(steps), key=lambda cell: steps[cell])
            if steps[self.goal] in self.distances:
                return

    def begin(self) -> str:
        """At the start."""
        self.at = self.start
        return self.view()

    def cells(self) -> Collection[Cell]:
        """The paths."""
        return self.paths

    def arrive(self) -> tuple[str, bool | None]:
        """The goal ends the episode."""
        if self.at == self.goal:
            return f"{super().view()} You have reached the goal.", True
        return self.view(), None

    def view(self) -> str:
        """Where one is, and what is beside."""
        seen = [f"{direction}: {self._kind(moved(self.at, direction))}" for direction in STEPS]
        return f"{super().view()} {', '.join(seen).capitalize()}."

    def _kind(self, cell: Cell) -> str:
        return "goal" if cell == self.goal else "path" if cell in self.paths else "wall"


def dig(start: Cell, inside: Collection[Cell], rng: Random) -> set[Cell]:
    """Paths that branch, grown cell by cell from a start, with two or three loops."""
    paths, fronts = {start}, [start]
    while fronts:
        front = rng.choice(fronts)
        free = [cell for cell in beside(front) if cell in inside and cell not in paths and len(_open(cell, paths)) == 1]
        if free:
            fronts.append(rng.choice(free))
            paths.add(fronts[-1])
        else:
            fronts.remove(front)
    for _ in range(rng.randint(2, 3)):
        walls = [cell for cell in sorted(inside) if cell not in paths and len(_open(cell, paths)) == 2]
        paths.update([rng.choice(walls)] if walls else [])
    return paths


def _open(cell: Cell, paths: Collection[Cell]) -> list[Cell]:
    return [each for each in beside(cell) if each in paths]


def distances(start: Cell, paths: Collection[Cell]) -> dict[Cell, int]:
    """The steps from a start to each cell that can be reached, in their order."""
    steps, front = {start: 0}, deque([start])
    while front:
        at = front.popleft()
        for cell in _open(at, paths):
            if cell not in steps:
                steps[cell] = steps[at] + 1
                front.append(cell)
    return steps


def any_path(seen: Seen, rng: Random) -> str:
    """Any direction without a wall."""
    return rng.choice(list(_ways(seen)))


def least_visited_path(seen: Seen, rng: Random) -> str:
    """The way that has led to the goal; else to the goal where it is seen, or where it has been least often."""
    for episode in seen.earlier:
        if "reached the goal" in episode[-1].observation and len(seen.turns) < len(episode):
            return episode[len(seen.turns)].action
    ways, at, visits = _ways(seen), _at(_now(seen)), Counter(_visited(seen))
    value = {way: -1 if kind == "goal" else visits[moved(at, way)] for way, kind in ways.items()}
    return rng.choice([way for way in ways if value[way] == min(value.values())])


def _ways(seen: Seen) -> dict[str, str]:
    """By direction what is beside, but for walls."""
    return dict(re.findall(r"(up|down|left|right): (path|goal)", _now(seen).lower()))


# --------------------------------------------------------------------------------------------------------- key and door

ROOM = [(row, column) for row in range(4) for column in range(4)]


class KeyDoor(Walk):
    """A dark room of 4 x 4 cells: find the key, then the door, in 10 steps; 5 to 8 would be enough."""

    name = "key_door"
    rules = (
        "You are in a dark room of 4 rows and 4 columns, counted from 0. Find the key, then open the door. You see "
        "only what is where you stand. Each turn you go one step. You have ten steps. Your start, the key and the door "
        "are always in the same places."
    )
    turns = 10

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw start, key and door until the way is as long as it should be."""
        while True:
            self.start, self.key, self.door = rng.sample(ROOM, 3)
            if 5 <= apart(self.start, self.key) + apart(self.key, self.door) <= 8:
                return

    def begin(self) -> str:
        """At the start, without the key."""
        self.at, self.has_key = self.start, False
        return self.view()

    def cells(self) -> Collection[Cell]:
        """The room."""
        return ROOM

    def arrive(self) -> tuple[str, bool | None]:
        """Take the key; open the door with it."""
        if self.at == self.door and self.has_key:
            return f"{self.view()} You open the door.", True
        if self.at == self.key and not self.has_key:
            self.has_key = True
            return f"{self.view()} Here is the key: you take it.", None
        return f"{self.view()}{' Here is the door. It is locked.' * (self.at == self.door)}", None


def apart(one: Cell, other: Cell) -> int:
    """Steps between two cells without walls."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def any_step(seen: Seen, rng: Random) -> str:
    """Any direction that stays in the room."""
    at = _at(_now(seen))
    return rng.choice([way for way in STEPS if moved(at, way) in ROOM])


def to_key_and_door(seen: Seen, rng: Random) -> str:
    """To the key and then to the door, where their places are known; else to the nearest cell where it was not yet."""
    at, has_key = _at(_now(seen)), any("the key" in turn.observation for turn in seen.turns)
    wanted = "the door" if has_key else "the key"
    known = [_at(turn.observation) for turn in seen.all_turns if wanted in turn.observation]
    visited = {*_visited(seen)}
    targets = known or [cell for cell in ROOM if cell not in visited] or [cell for cell in ROOM if cell != at]
    nearest = min(apart(at, cell) for cell in targets)
    target = rng.choice([cell for cell in targets if apart(at, cell) == nearest])
    return rng.choice([way for way in STEPS if apart(moved(at, way), target) < nearest])


# -------------------------------------------------------------------------------------------------------- what was seen


def _now(seen: Seen) -> str:
    """The latest view."""
    views = (turn.observation for turn in reversed(seen.turns) if "at row" in turn.observation)
    return next(views, seen.first)


def _at(observation: str) -> Cell:
    match = re.search(r"at row (\d+), column (\d+)", observation)
    assert match is not None
    return int(match[1]), int(match[2])


def _visited(seen: Seen) -> Iterator[Cell]:
    """Where the player was, as often as it was there."""
    for episode in (*seen.earlier, seen.turns):
        yield _at(seen.first)
        yield from (_at(turn.observation) for turn in episode if "at row" in turn.observation)
