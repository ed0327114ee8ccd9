"""A Ray cluster on this machine: what it adds to a run, and how much faster it is with more workers."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import ray_child, ray_cluster
from tests.bench_child import plan_of
from tests.performance.lab import full_only, record, serving
from tests.ray_cluster import Driver

RUNS, ROUNDS, AT_ONCE = 40, 10, 8


def _seconds(driver: Driver, folder: Path, server: Any, **fields: Any) -> float:
    given = {"limit": RUNS, "rounds": ROUNDS, "concurrency": AT_ONCE, "model": "openai:any", **fields}
    result = driver.run(plan_of("icrl", base_url=server.base_url, **given), folder)
    assert result["done"] == given["limit"], result
    return float(result["seconds"])


@full_only
def test_what_ray_adds_and_how_it_scales(databases: Callable[[], str], tmp_path: Path) -> None:
    file = str(ray_child.__file__)
    db = databases()
    with serving(0.2, says="7") as server, ray_cluster.cluster(1) as cluster, closing(Driver(cluster)) as driver:
        on_ray = {"engine": "ray", "db": db, "evaluator": f"{file}:quiet"}
        _seconds(driver, tmp_path / "warm", server, **on_ray, limit=10, concurrency=10)
        ours = _seconds(driver, tmp_path / "ray", server, **on_ray)
        one = _seconds(driver, tmp_path / "one", server, db=db, evaluator=f"{file}:quiet")
        of_each = f"{(ours - one) / RUNS * 1000:.0f} ms a run"
        what = f"wall time of {RUNS} runs of {ROUNDS} rounds at 200 ms, {AT_ONCE} at once, on Ray over in one process"
        record(what, "<= 1.15x", f"{ours / one:.2f}x ({of_each})", ours <= 1.15 * one)
        assert ours <= 1.5 * one
        times: dict[str, list[float]] = {"waits": [], "computes": []}
        for workers in (1, 2, 4):
            while len(cluster.nodes) < workers:
                cluster.add_node()
            warm = {**on_ray, "limit": 10 * workers, "concurrency": 10 * workers}
            _seconds(driver, tmp_path / f"warm{workers}", server, **warm)
            waits = {**on_ray, "concurrency": 4 * workers}
            times["waits"].append(_seconds(driver, tmp_path / f"waits{workers}", server, **waits))
            computes = {**on_ray, "evaluator": f"{file}:busy", "concurrency": 8, "rounds": 3}
            times["computes"].append(_seconds(driver, tmp_path / f"computes{workers}", server, **computes))
    for kind, about in (("waits", "4 runs at once each, 200 ms a call"), ("computes", "200 ms of CPU an attempt")):
        faster = ", ".join(f"{times[kind][0] / seconds:.1f}x" for seconds in times[kind])
        record(f"{RUNS} runs on Ray with 1, 2, 4 workers on this machine: {about}", "stated", faster, True)
