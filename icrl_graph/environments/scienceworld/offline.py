"""What the simulator says of an episode without playing it; kept in the user's cache."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icrl_graph.environments.scienceworld.simulator import PATIENCE, Simulator
from icrl_graph.environments.scienceworld.tasks import Spec
from icrl_graph.errors import missing_extra


def gold_path(task: str, variation: int = 0, simplification: str = "easy") -> list[str]:
    """Actions that solve an episode, as the simulator's own solver has them; they may go on after it is solved.

    Worked out once, in a JVM of its own, for seconds up to a minute; then read from the user's cache.

    Raises:
        ValueError: there is no such episode.
        MissingExtra: the package is not installed.
        SimulatorError: the simulator does not start, has died or failed.
    """
    spec = Spec(task, variation, simplification)
    solution: list[str] = _cached("gold", spec, lambda simulator: simulator.gold(), gold=True)
    return solution


def describe(task: str, variation: int = 0, simplification: str = "easy") -> str:
    """An episode's task in the simulator's words; worked out and kept as `gold_path` is.

    Raises:
        ValueError: there is no such episode.
        MissingExtra: the package is not installed.
        SimulatorError: the simulator does not start, has died or failed.
    """
    spec = Spec(task, variation, simplification)
    words: str = _cached("description", spec, lambda simulator: simulator.description())
    return words


def _cached(what: str, spec: Spec, of: Callable[[Simulator], Any], gold: bool = False) -> Any:
    """What a simulator says of an episode, from the cache if it was asked before."""
    file = _cache() / f"{what}-{spec.task}-{spec.variation}-{spec.simplification or 'plain'}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    simulator = Simulator(patience=10 * PATIENCE)
    try:
        simulator.connect()
        simulator.load(spec, gold=gold)
        found = of(simulator)
    finally:
        simulator.jvm.end()
    with suppress(OSError):  # a cache that can't be written is none
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as unfinished:
            json.dump(found, unfinished)
        os.replace(unfinished.name, file)  # whole or not there, whoever else does the same
    return found


def _cache() -> Path:
    """A folder for this version of the simulator within the user's cache."""
    try:
        found = version("scienceworld")
    except PackageNotFoundError:
        raise missing_extra("scienceworld", "scienceworld") from None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "icrl-graph" / f"scienceworld-{found}"
