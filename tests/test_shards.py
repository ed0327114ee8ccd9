"""A shard of a comparison, as a worker of a cluster plays it: here in this process, on a real PostgreSQL."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from icrl_graph.benchmarks import on_ray, shards
from icrl_graph.benchmarks.experiment import prepare
from icrl_graph.benchmarks.results import Cell
from icrl_graph.benchmarks.shards import News, Shard, packed, play
from icrl_graph.benchmarks.storage import PostgresStorage, name_of
from icrl_graph.execution.shared_limits import Ledger
from icrl_graph.testing import OpenAIServer
from tests import bench_child
from tests.bench_child import plan_of, player


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        yield started


@pytest.fixture
def ledger(postgres: str) -> Iterator[Ledger]:
    opened = Ledger(postgres, "c")
    opened.open({})
    opened.admit("s")
    yield opened
    opened.close()


@pytest.fixture
def comparison(server: OpenAIServer) -> Any:
    """Two runs of three rounds: packed, and the runs."""
    plan = plan_of("icrl", base_url=server.base_url)
    experiment = prepare(plan)
    return packed(plan, {}, experiment.code(), True), experiment.cells()


@pytest.fixture
def shard(postgres: str, comparison: Any) -> Shard:
    _, cells = comparison
    return Shard("s", cells, {}, concurrency=2, caps={}, share=0.1, address=postgres, comparison="c")


def told(news: Any, *kinds: str) -> list[News]:
    return [each for some in news for each in some if each.kind in kinds]


@contextmanager
def driven(address: str, cell: Cell) -> Iterator[threading.Event]:
    """Another process that drives a run, until the event is set."""
    driving, release = threading.Event(), threading.Event()

    async def drive() -> None:
        storage = PostgresStorage(address, "c")
        async with storage.open(), storage.drive(name_of(cell)):
            driving.set()
            await asyncio.to_thread(release.wait)

    thread = threading.Thread(target=asyncio.run, args=(drive(),))
    thread.start()
    assert driving.wait(60)
    try:
        yield release
    finally:
        release.set()
        thread.join()


def test_a_shard_tells_what_comes_of_its_runs(
    ledger: Ledger, comparison: Any, shard: Shard, server: OpenAIServer
) -> None:
    news = [each for some in play(comparison[0], shard) for each in some]
    of_one = [each.kind for each in news if each.cell == shard.cells[0]]
    assert of_one == ["begun", "attempt", "attempt", "attempt", "row"]
    assert news[-1].kind == "end"
    reached, spent = news[-1].value
    assert (reached, spent["calls"], server.counts["calls"]) == (None, 6, 6)


def test_a_run_that_another_process_drives_is_waited_for(
    ledger: Ledger, comparison: Any, shard: Shard, server: OpenAIServer
) -> None:
    with driven(shard.address, shard.cells[0]) as release:
        some = iter(play(comparison[0], replace(shard, cells=shard.cells[:1])))
        assert [each.kind for each in next(some)] == ["begun"]
        assert server.counts["calls"] == 0
        release.set()
        assert len(told(some, "row")) == 1


def test_a_shard_that_was_given_up_pays_for_nothing_once_it_gets_its_run(
    ledger: Ledger, comparison: Any, shard: Shard, server: OpenAIServer
) -> None:
    """Its driver has given the run to another one, which has ended it and deleted its thread."""
    with driven(shard.address, shard.cells[0]) as release:
        some = iter(play(comparison[0], replace(shard, cells=shard.cells[:1])))
        assert [each.kind for each in next(some)] == ["begun"]
        ledger.revoke("s")
        release.set()
        assert [each.kind for batch in some for each in batch] == ["end"]
    assert server.counts["calls"] == 0


def test_a_shard_that_is_given_up_drains(ledger: Ledger, comparison: Any, shard: Shard, monkeypatch: Any) -> None:
    monkeypatch.setattr(shards, "POLL", 0.01)
    some = iter(play(comparison[0], replace(shard, concurrency=1)))
    next(some)
    ledger.revoke_all()
    assert len(told(some, "row", "wrong", "broken")) < 2


def test_a_node_with_other_code_plays_nothing(comparison: Any, shard: Shard, server: OpenAIServer) -> None:
    plan = plan_of("icrl", base_url=server.base_url, evaluator=f"{bench_child.__file__}:score")
    code = prepare(plan).code()["icrl"]["evaluator"]
    other = packed(plan, {}, {"icrl": {"evaluator": f"{code[:-4]}0000"}}, True)
    (wrong,) = told(play(other, shard), "wrong")
    assert "the code of the evaluator here is not what it is where it was started" in wrong.value
    assert server.counts["calls"] == 0


def test_a_database_that_is_out_of_reach_is_told(comparison: Any, shard: Shard, monkeypatch: Any) -> None:
    away = replace(shard, address="postgresql://127.0.0.1:1/x?connect_timeout=1")
    monkeypatch.setattr("icrl_graph.execution.shared_limits.PATIENCE", 0.1)
    assert len(told(play(comparison[0], away), "broken")) == 1


def test_an_object_that_can_not_be_sent_is_an_error_before_anything_begins() -> None:
    with pytest.raises(ValueError, match="can't be sent to another machine"):
        packed(plan_of("icrl"), {"model": threading.Lock()}, {}, True)


@pytest.mark.parametrize(
    ("runs", "workers", "at_once", "sizes"),
    [
        (3, 3, 2, [1, 1, 1]),
        (40, 1, 8, [24, 8, 8]),
        (30, 3, 2, [6, 4, 4, 4, 2, 2, 2, 2, 2, 2]),
        (20, 4, 25, [5, 5, 5, 5]),
        (100, 4, 25, [25, 25, 25, 25]),
        (1000, 2, 5, [40] * 21 + [40, 30, 25, 20, 15, 10, 5, 5, 5, 5]),
    ],
)
def test_shards_become_smaller_towards_the_end(runs: int, workers: int, at_once: int, sizes: list[int]) -> None:
    waiting = deque(Cell("icrl", str(number), 0) for number in range(runs))
    cut: list[int] = []
    while waiting:
        idle = max(1, workers - len(cut))  # then one ends after another
        cut.append(len(on_ray._cut(waiting, workers, idle, at_once)))
    assert cut == sizes
