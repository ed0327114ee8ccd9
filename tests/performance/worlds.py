"""Plays ScienceWorld in a process of its own, as this package does or as the plain one, and prints what it took."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

EPISODES = (("freeze", 25), ("find-living-thing", 0), ("use-thermometer", 143), ("grow-fruit", 66))
ROOMS = ("kitchen", "outside", "greenhouse", "workshop", "art studio", "foundry")
ACTIONS = [
    *(["look around"] + [a for room in ROOMS for a in (f"teleport to {room}", "look around", "inventory")]),
    *("wait1", "pick up thermometer", "open door", "look at door"),
]


def _resident(pid: int) -> float:
    """MB of memory that a process takes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


async def _ours() -> dict[str, float]:
    from icrl_graph.environments.scienceworld import ScienceWorld

    begun = time.perf_counter()
    world = ScienceWorld(max_actions=10_000)
    await world.reset({"task": "boil"})
    started = time.perf_counter() - begun
    taken = 0.0
    for task, variation in EPISODES:
        await world.reset({"task": task, "variation": variation})
        begun = time.perf_counter()
        for action in ACTIONS:
            await world.step(action)
        taken += time.perf_counter() - begun
    assert world.pid is not None
    figures = _figures(started, taken, world.pid)
    await world.close()
    return figures


def _plain() -> dict[str, float]:
    from scienceworld import ScienceWorldEnv

    begun = time.perf_counter()
    world: Any = ScienceWorldEnv()
    world.load("boil", 0, "easy")
    world.reset()
    started = time.perf_counter() - begun
    taken = 0.0
    for task, variation in EPISODES:
        world.load(task, variation, "easy")
        world.reset()
        begun = time.perf_counter()
        for action in ACTIONS:
            world.step(action)
        taken += time.perf_counter() - begun
    figures = _figures(started, taken, world._gateway.java_process.pid)
    world.close()
    return figures


def _figures(started: float, taken: float, pid: int) -> dict[str, float]:
    return {"start": started, "steps": len(EPISODES) * len(ACTIONS) / taken, "memory": _resident(pid)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_ours()) if sys.argv[1] == "ours" else _plain()))
