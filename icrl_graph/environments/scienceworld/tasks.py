"""The episodes: tasks, their variations and simplifications. All of it is known without Java."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

Split = Literal["train", "dev", "test"]


class Task(NamedTuple):
    """A task's number in the paper, and the sizes of its splits; variations are numbered train first, dev, test."""

    number: str
    train: int
    dev: int
    test: int

    def variations(self, split: Split | None = None) -> range:
        """The variations of a split, or all."""
        ends = (0, self.train, self.train + self.dev, self.train + self.dev + self.test)
        if split is None:
            return range(ends[-1])
        at = one_of("split", split, get_args(Split))
        return range(ends[at], ends[at + 1])


TASKS: Mapping[str, Task] = {
    "boil": Task("1-1", 14, 7, 9),
    "melt": Task("1-2", 14, 7, 9),
    "freeze": Task("1-3", 14, 7, 9),
    "change-the-state-of-matter-of": Task("1-4", 14, 7, 9),
    "use-thermometer": Task("2-1", 270, 135, 135),
    "measure-melting-point-known-substance": Task("2-2", 218, 109, 109),
    "measure-melting-point-unknown-substance": Task("2-3", 150, 75, 75),
    "power-component": Task("3-1", 10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": Task("3-2", 10, 5, 5),
    "test-conductivity": Task("3-3", 450, 225, 225),
    "test-conductivity-of-unknown-substances": Task("3-4", 300, 150, 150),
    "find-living-thing": Task("4-1", 150, 75, 75),
    "find-non-living-thing": Task("4-2", 150, 75, 75),
    "find-plant": Task("4-3", 150, 75, 75),
    "find-animal": Task("4-4", 150, 75, 75),
    "grow-plant": Task("5-1", 62, 31, 33),
    "grow-fruit": Task("5-2", 62, 31, 33),
    "chemistry-mix": Task("6-1", 16, 8, 8),
    "chemistry-mix-paint-secondary-color": Task("6-2", 18, 9, 9),
    "chemistry-mix-paint-tertiary-color": Task("6-3", 18, 9, 9),
    "lifespan-longest-lived": Task("7-1", 62, 31, 32),
    "lifespan-shortest-lived": Task("7-2", 62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": Task("7-3", 62, 31, 32),
    "identify-life-stages-1": Task("8-1", 6, 3, 5),
    "identify-life-stages-2": Task("8-2", 4, 2, 4),
    "inclined-plane-determine-angle": Task("9-1", 84, 42, 42),
    "inclined-plane-friction-named-surfaces": Task("9-2", 692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": Task("9-3", 80, 40, 42),
    "mendelian-genetics-known-plant": Task("10-1", 60, 30, 30),
    "mendelian-genetics-unknown-plant": Task("10-2", 240, 120, 120),
}
"""All tasks, so that a plan can be checked without Java; a test compares them with the simulator's lists."""

SIMPLIFICATIONS = ("teleportAction", "selfWateringFlowerPots", "openContainers", "openDoors", "noElectricalAction")
_EASY = ("teleportAction", "selfWateringFlowerPots", "openDoors", "noElectricalAction")


@dataclass(frozen=True)
class Spec:
    """The settings of an episode.

    Args:
        task: one of `TASKS`.
        variation: its number, below `len(TASKS[task].variations())`.
        simplification: "easy" (what papers use), "", or some of `SIMPLIFICATIONS` with commas between them.

    Raises:
        ValueError: there is no such episode.
    """

    task: str
    variation: int = 0
    simplification: str = "easy"

    def __post_init__(self) -> None:
        one_of("task", self.task, tuple(TASKS))
        most = len(TASKS[self.task].variations())
        if type(self.variation) is not int or not 0 <= self.variation < most:
            raise ValueError(
                f"variation of {self.task} must be an integer from 0 to {most - 1}, got {self.variation!r}"
            )
        if not isinstance(self.simplification, str):
            raise ValueError(f"simplification must be a text, got {self.simplification!r}")
        if self.simplification not in ("", "easy"):  # beside others the simulator silently ignores "easy"
            for name in self.simplification.split(","):
                one_of('simplification, if not "" or "easy" alone,', name, SIMPLIFICATIONS)
            if self._electrical() and "noElectricalAction" in self.simplification:
                raise ValueError(f"simplification of {self.task} can't be noElectricalAction: it needs electricity")

    def simplifications(self) -> set[str]:
        """The names of its simplifications; in an electrical task, "easy" does not take the wires away."""
        if self.simplification == "easy":
            return set(_EASY) - ({"noElectricalAction"} if self._electrical() else set())
        return set(self.simplification.split(",")) - {""}

    def _electrical(self) -> bool:
        return "power-component" in self.task or "conductivity" in self.task


def as_spec(task_data: Mapping[str, Any]) -> Spec:
    """The episode of a task's data.

    Raises:
        ValueError: there is no such episode.
    """
    for name in task_data:
        one_of("a key of ScienceWorld's task data", name, tuple(Spec.__dataclass_fields__))
    if "task" not in task_data:
        raise ValueError(
            f"ScienceWorld's task data must have a task, one of {', '.join(TASKS)}; got {dict(task_data)!r}"
        )
    return Spec(**task_data)


def one_of(name: str, value: Any, choices: Sequence[str]) -> int:
    """The index of a value among its choices.

    Raises:
        ValueError: it is not one of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return choices.index(value)
