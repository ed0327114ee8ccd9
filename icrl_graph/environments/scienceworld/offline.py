"""An episode's solution and task text, computed without playing it; saved in the user's cache."""

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
    """Actions that solve an episode, by the simulator's solver; there may be more after it is solved.

    Computed once, in a separate JVM, for seconds up to a minute; then read from the user's cache.

    Raises:
        ValueError: there is no such episode.
        MissingExtra: the package is not installed.
        SimulatorError: the simulator does not start, has died or failed.
    """
    spec = Spec(task, variation, simplification)
    solution: list[str] = _cached("gold", spec, lambda simulator: simulator.gold(), gold=True)
    return solution


def describe(task: str, variation: int = 0, simplification: str = "easy") -> str:
    """An episode's task in the simulator's words; computed and saved as `gold_path` is.

    Raises:
        ValueError: there is no such episode.
        MissingExtra: the package is not installed.
        SimulatorError: the simulator does not start, has died or failed.
    """
    spec = Spec(task, variation, simplification)
    description: str = _cached("description", spec, lambda simulator: simulator.description())
    return description


def _cached(name: str, spec: Spec, compute: Callable[[Simulator], Any], gold: bool = False) -> Any:
    """A value that a simulator computes for an episode, from the cache if it is there."""
    file = _cache() / f"{name}-{spec.task}-{spec.variation}-{spec.simplification or 'plain'}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    simulator = Simulator(patience=10 * PATIENCE)
    try:
        simulator.connect()
        simulator.load(spec, gold=gold)
        value = compute(simulator)
    finally:
        simulator.jvm.end()
    with suppress(OSError):  # the cache is optional
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as unfinished:
            json.dump(value, unfinished)
        os.replace(unfinished.name, file)  # atomic: other processes may write the same file
    return value


def _cache() -> Path:
    """A folder for this version of the simulator within the user's cache."""
    try:
        installed = version("scienceworld")
    except PackageNotFoundError:
        raise missing_extra("scienceworld", "scienceworld") from None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "icrl-graph" / f"scienceworld-{installed}"
