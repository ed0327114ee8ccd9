"""Measures everything at full size, several times, and writes the table of docs/performance.md: `make perf`.

A test says what it measured in a line of its own: `PERF | what | goal | measured`. Of several repeats the table has the
one whose figure is in the middle, with the lowest and the highest beside it. Where other programs use the processors,
nothing is measured: the figures would be theirs.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
REPEATS = 3
BUSY = 0.1
"""The share of the processors that other programs may use at most."""
PACKAGES = ("langgraph", "langchain-core", "langchain-openai", "openai", "aiohttp")
MISSED = " (**missed**)"
_HEAD = ["| what | goal | measured | lowest, highest |", "| --- | --- | --- | --- |"]


def rows(lines: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What some lines of output say was measured: by what it is, the goal and the figures."""
    found = (line.strip().removeprefix("PERF | ") for line in lines if line.startswith("PERF | "))
    parts = (row.split(" | ") for row in found)
    return {what: (goal, measured) for what, goal, measured in parts}


def merged(repeats: Sequence[Mapping[str, tuple[str, str]]]) -> list[str]:
    """The rows of the table: of each what the middle one of the repeats says, and between which figures all are."""
    table = []
    for what, (goal, _) in repeats[0].items():
        measured = sorted((each[what][1] for each in repeats), key=_figure)
        middle, ends = measured[len(measured) // 2], [f"{_figure(each):g}" for each in (measured[0], measured[-1])]
        table.append(f"| {what} | {goal} | {middle} | {', '.join(ends)} |")
    return table


def ends(page: str) -> dict[str, tuple[float, float]]:
    """By row of a page's table, the lowest and the highest figure; of rows without them, nothing."""
    written = (line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| "))
    found = ((what, re.fullmatch(r"(\S+), (\S+)", last)) for what, *_, last in written)
    return {what: (float(both[1]), float(both[2])) for what, both in found if both and what != "what"}


TIMED, COUNTED = 3.0, 1.1
"""How many times worse than all that is recorded a ratio of times, or of counts, of a short form has to be.

A short form is taken once, on other machines and busy ones. Three times on two processors with a load of 8 to 13, the
worst ratio of times was 2.0 times what it is on a quiet machine, and 1.8 times that of another repeat.
"""


def has_fallen_behind(what: str, goal: str, measured: str, lowest: float, highest: float) -> bool:
    """Whether a ratio is worse than the worst one recorded, by more than these lie apart and a margin."""
    if not (re.match(r"[<>]= ", goal) and re.match(r"\d*\.?\d+x", measured)):
        return False
    margin, noise = TIMED if re.search("CPU|time|second", what) else COUNTED, highest - lowest
    if goal.startswith("<"):
        return _figure(measured) > margin * (highest + noise)
    return _figure(measured) < (lowest - noise) / margin


def _figure(measured: str) -> float:
    """The first number of what was measured."""
    found = re.search(r"\d*\.?\d+", measured)
    return float(found[0]) if found else 0.0


def with_table(page: str, circumstances: str, table: Iterable[str]) -> str:
    """The page with these rows between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the table, between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{circumstances}\n\n" + "\n".join([*_HEAD, *table]) + f"\n\n{END}{after}"


class Load:
    """How much of the processors others use than this process and its children, from when it is made."""

    def __init__(self) -> None:
        self._start = self._used()

    def of_others(self) -> float:
        """Their share since then, 0 to 1."""
        busy, own, whole = (now - then for now, then in zip(self._used(), self._start, strict=True))
        return max(0.0, (busy - own) / whole) if whole else 0.0

    def _used(self) -> tuple[float, float, float]:
        """Processor seconds that were used by all, by this process and its children, and that there were."""
        hertz = os.sysconf("SC_CLK_TCK")
        user, nice, system, idle, waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        busy = (user + nice + system + sum(rest)) / hertz
        own = os.times()
        return busy, sum(own[:4]), busy + (idle + waiting) / hertz


def circumstances(load: float) -> str:
    """Under what a table was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=PAGE.parent)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"Measured on {date.today().isoformat()} at commit {commit.stdout.strip() or 'unknown'}, {REPEATS} times, on "
        f"{os.cpu_count()} processors, of which other programs used {load:.0%}; Python {platform.python_version()}, "
        f"{versions}."
    )


def main() -> int:
    """Run the tests, show what they say, and write the table; gives the tests' exit status."""
    idle = Load()
    time.sleep(5)
    if (load := idle.of_others()) > BUSY:
        print(f"Other programs use {load:.0%} of the processors: end them first, or these figures would be theirs.")
        return 1
    command = [sys.executable, "-m", "pytest", "-s", "-q", str(Path(__file__).parent)]
    during, repeats, full_size = Load(), [], os.environ | {"ICRL_PERF": "1"}
    for repeat in range(REPEATS):
        print(f"Repeat {repeat + 1} of {REPEATS}", flush=True)
        said = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=full_size) as tests:
            assert tests.stdout is not None
            for line in tests.stdout:
                print(line, end="", flush=True)
                said.append(line)
        if tests.returncode:  # a table is whole or stays as it was
            return tests.returncode
        repeats.append(rows(said))
    if (load := during.of_others()) > BUSY:
        print(f"Other programs used {load:.0%} of the processors meanwhile: nothing is written.")
        return 1
    page = with_table(PAGE.read_text(encoding="utf-8"), circumstances(load), merged(repeats))
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
