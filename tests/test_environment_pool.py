"""Environments that several episodes share: first come, first served, across tasks, threads and event loops."""

import asyncio
import threading
from typing import Any

import pytest

from icrl_graph.environments import EnvironmentFailed
from icrl_graph.environments.pool import EnvironmentPool
from tests.corridor import Corridor

DATA: Any = {"length": 2}


class Pooled(Corridor):
    """Counts what was created, and fails where the task's data says so."""

    created = 0

    def __init__(self) -> None:
        Pooled.created += 1
        super().__init__()

    def reset(self, task_data: Any) -> Any:
        if task_data.get("fails"):
            raise OSError("broken")
        return super().reset(task_data)


@pytest.fixture
def pool() -> EnvironmentPool:
    Pooled.created = 0
    return EnvironmentPool(Pooled, 1)


def test_episodes_take_turns_and_neither_a_cancelled_nor_a_failed_one_keeps_its_place(pool: EnvironmentPool) -> None:
    order = []

    async def episode(name: str) -> None:
        await pool.reset(name, {**DATA, "fails": name == "fails"})
        order.append(name)
        await pool.release(name)

    async def main() -> None:
        await pool.reset("first", DATA)
        waiting = [asyncio.create_task(episode(name)) for name in ("cancelled", "fails", "second", "third")]
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == []
        waiting[0].cancel()
        await pool.release("first")
        cancelled, failed, *others = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert isinstance(failed, EnvironmentFailed)
        assert others == [None, None]

    asyncio.run(asyncio.wait_for(main(), 60))
    assert order == ["second", "third"]
    assert Pooled.created == 2  # the failed one is not used again


def test_a_pool_serves_several_event_loops(pool: EnvironmentPool) -> None:
    observations = []

    async def episode(name: int) -> None:
        first = await pool.reset(name, DATA)
        await asyncio.sleep(0)
        outcome = await pool.step(name, DATA, [first.observation], ["right"])
        observations.append(outcome.observation)
        await pool.release(name)

    threads = [threading.Thread(target=lambda name=i: asyncio.run(episode(name))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(observations) == 8
    assert len(set(observations)) == 1
    assert Pooled.created == 1
