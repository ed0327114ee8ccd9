"""Comparisons on a real Ray cluster of three nodes, with a real PostgreSQL: nodes, workers and drivers are killed."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from icrl_graph.benchmarks import compare, experiment, on_ray, runner
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell
from icrl_graph.errors import MissingExtra
from icrl_graph.testing import OpenAIServer
from tests import ray_child, ray_cluster
from tests.bench_child import calls_in, outcome, plan_of, player, rows_of
from tests.command_line import icrl, process, started
from tests.ray_cluster import Cluster, Driver

pytestmark = pytest.mark.xdist_group("ray")  # one cluster for all of them
PRICES = {"policy": {"input": 0.0, "output": 1e6}}
"""A dollar a token, so that each answer costs some."""
EVALUATOR = f"{Path(ray_child.__file__)}:score"


def _check_ray() -> None:
    if not find_spec("ray"):
        assert "CI" not in os.environ, "CI installs the extra ray"
        pytest.skip("the extra ray is not installed")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    _check_ray()
    with ray_cluster.cluster(3) as running:
        yield running


@pytest.fixture(scope="session")
def driver(cluster: Cluster) -> Iterator[Driver]:
    running = Driver(cluster)
    yield running
    running.close()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(player, latency=0.1) as started:
        yield started


@pytest.fixture
def plan(server: OpenAIServer, postgres: str, request: pytest.FixtureRequest) -> Callable[..., Plan]:
    """Makes the plan of a comparison, in one process or on the cluster."""

    def make(*arms: str, clustered: bool = True, **fields: Any) -> Plan:
        where = {"engine": "ray", "db": postgres} if clustered else {}
        small = {"base_url": server.base_url, "limit": 6, "concurrency": 6, "evaluator": EVALUATOR, "solved_at": None}
        return plan_of(*arms, **{**small, **where, **fields})

    return make


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ray_child.HOME, str(tmp_path))


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------- without a cluster


def test_a_cluster_needs_a_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"saved in PostgreSQL: give its address \(db\)"):
        runner.run(plan_of("icrl", model="learner:game24", engine="ray"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_calls_that_are_allocated_are_no_business_of_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'icrl\+allocate=40': which run gets the next call"):
        compare("hidden_color", "icrl", limit=2, allocate=40, target=1, engine="ray", db="postgresql://x/y")


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'icrl-graph\[ray\]'"):
        runner.run(plan_of("icrl", model="learner:game24", engine="ray", db="postgresql://x/y"), tmp_path / "x")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_an_address_at_which_no_cluster_is_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _check_ray()
    for given, named in ((address, ""), (None, address)):
        monkeypatch.setenv("RAY_ADDRESS", named)
        with (
            pytest.raises(ConnectionError, match=f"there is no Ray cluster at {re.escape(address)}"),
            on_ray.connected(given),
        ):
            pass


def test_an_engine_is_one_of_two(here: Path) -> None:
    done = icrl("bench", "hidden_color", "--engine", "slurm")
    assert (done.returncode, "unknown engine 'slurm'; choose one of 'process', 'ray'" in done.stderr) == (2, True)
    done = icrl("bench", "hidden_color", "--ray-address", "head:6379")
    assert (done.returncode, "name engine ray" in done.stderr) == (2, True)


def test_a_driver_whose_own_node_has_died_says_what_to_do() -> None:
    """Whatever it tried would fail."""
    _check_ray()
    from ray.exceptions import LocalRayletDiedError

    with pytest.raises(ConnectionError, match=r"start it again \(ray start --address=...\).* and resume"):
        on_ray._check_connected(LocalRayletDiedError())


# --------------------------------------------------------------------------------------------------- on a cluster


def test_a_cluster_comes_to_the_results_of_one_process(
    driver: Driver, plan: Any, server: OpenAIServer, tmp_path: Path
) -> None:
    """Also of an arm that draws from the rewards of another one, and so comes last."""
    arms = ("icrl", "reflexion", "best_of_n", "icrl+show=shuffled")
    runner.run(plan(*arms, clustered=False), tmp_path / "one")
    calls = server.counts["calls"]
    assert without_time(driver.run(plan(*arms), tmp_path / "x")) == ended(24)
    assert outcome(tmp_path / "x") == outcome(tmp_path / "one")
    assert server.counts["calls"] == 2 * calls
    assert len({pid for pid, _ in logged(driver)}) == 3


def ended(done: int, failed: int = 0) -> dict[str, Any]:
    return {"done": done, "failed": failed, "left": None}


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "seconds"}


def logged(driver: Driver) -> list[Any]:
    return [json.loads(line) for line in (driver.home / "log").read_text().splitlines()]


def kill_points(config: pytest.Config) -> list[int]:
    """After how many of 60 calls a node is killed."""
    return [Random(place).randrange(6, 50) for place in range(10)] if config.getoption("--soak") else [20]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "killed_at" in metafunc.fixturenames:
        metafunc.parametrize("killed_at", kill_points(metafunc.config))


def test_a_node_that_is_killed_costs_no_more_than_its_calls_in_flight(
    killed_at: int, driver: Driver, cluster: Cluster, plan: Any, server: OpenAIServer, tmp_path: Path
) -> None:
    fields = {"limit": 12, "rounds": 5}
    runner.run(plan("icrl", clustered=False, **fields), tmp_path / "one")
    before = server.counts["calls"]
    running = driver.start(plan("icrl", **fields), tmp_path / "x")
    wait_for(lambda: server.counts["calls"] >= before + killed_at)
    cluster.kill_node(lambda: ray_child.players(driver.home, rounds=5))
    result = running.result()
    cluster.add_node()  # for the next test
    assert without_time(result) == ended(12)
    assert outcome(tmp_path / "x") == outcome(tmp_path / "one")
    assert before <= server.counts["calls"] - before <= before + 6
    assert ray_child.resumed(driver.home) > 0


def test_a_run_that_kills_its_worker_is_set_aside_and_the_others_go_on(
    driver: Driver, plan: Any, tmp_path: Path
) -> None:
    wanted = plan("icrl", rounds=2)
    item = experiment.prepare(wanted).items()[2]
    (driver.home / "poison").write_text(item.replace(",", " "))
    try:
        result = driver.run(wanted, tmp_path / "x")
    finally:
        (driver.home / "poison").unlink()
    assert without_time(result) == ended(5, failed=1)
    row = rows_of(tmp_path / "x")[Cell("icrl", item, 0)]
    assert "its worker died 3 times while it was alone there" in row["error"]
    assert without_time(driver.run(wanted, tmp_path / "x")) == ended(6)


def test_a_total_of_calls_is_that_of_all_nodes(driver: Driver, plan: Any, server: OpenAIServer, tmp_path: Path) -> None:
    fields = {"limit": 8, "rounds": 4}
    result = driver.run(plan("icrl", total_calls=21, **fields), tmp_path / "x")
    assert (server.counts["calls"], result["left"].split(",")[0]) == (21, "total_calls is spent")
    assert driver.run(plan("icrl", total_calls=32, **fields), tmp_path / "x")["left"] is None
    assert server.counts["calls"] == calls_in(rows_of(tmp_path / "x")) == 32


def test_a_total_of_dollars_is_passed_by_no_more_than_the_calls_in_flight(
    driver: Driver, plan: Any, server: OpenAIServer, tmp_path: Path
) -> None:
    result = driver.run(plan("icrl", limit=8, rounds=4, total_usd=100.0, options={"prices": PRICES}), tmp_path / "x")
    cost = [usage["completion_tokens"] for usage in server.reported]
    assert "total_usd is spent" in result["left"]
    assert sum(cost) >= 100 > sum(sorted(cost)[:-6])


def test_a_wrong_key_ends_it(driver: Driver, plan: Any, tmp_path: Path) -> None:
    with OpenAIServer(player, faults=dict.fromkeys(range(1, 999), "401")) as refusing:
        result = driver.run(plan("icrl", base_url=refusing.base_url), tmp_path / "x")
    assert result["error"].startswith("ModelError")


def test_a_function_goes_to_the_nodes_by_value(driver: Driver, plan: Any, tmp_path: Path) -> None:
    wanted = plan("icrl", limit=1, rounds=1, model="python:<lambda>")
    assert without_time(driver.run(wanted, tmp_path / "x", by_value=True)) == ended(1)
    (row,) = rows_of(tmp_path / "x").values()
    assert row["episodes"][0]["response"] == "A function of __main__, by value."


def test_a_database_that_is_restarted_is_waited_for(
    driver: Driver, plan: Any, server: OpenAIServer, postgres_server: Any, tmp_path: Path
) -> None:
    running = driver.start(plan("icrl"), tmp_path / "x")
    wait_for(lambda: server.counts["calls"] >= 6)
    postgres_server.stop()
    postgres_server.start()
    assert without_time(running.result()) == ended(6)
    assert 18 <= server.counts["calls"] <= 18 + 6


@pytest.mark.skipif(not shutil.which("java"), reason="Java is not installed (see docs/scienceworld.md)")
def test_an_episode_of_scienceworld_goes_on_in_another_worker(
    driver: Driver, cluster: Cluster, plan: Any, tmp_path: Path
) -> None:
    """Its actions are done again there: an episode that began anew would pay for all of its 15 turns."""
    with OpenAIServer(_walks_on, latency=0.1) as server:
        fields = {"benchmark": "scienceworld", "items": ["find-plant:0"], "rounds": 1, "base_url": server.base_url}
        fields |= {"evaluator": None}
        runner.run(plan("icrl", clustered=False, **fields), tmp_path / "one")
        running = driver.start(plan("icrl", **fields), tmp_path / "x")
        wait_for(partial(_has_made, server, 15 + 8))
        (worker,) = [each for node in cluster.nodes for each in node.workers()]
        worker.kill()
        assert without_time(running.result()) == ended(1)
        assert 30 <= server.counts["calls"] <= 31
    assert outcome(tmp_path / "x") == outcome(tmp_path / "one")


def _walks_on(messages: list[dict[str, Any]]) -> str:
    done = [message for message in messages if message["role"] == "assistant"]
    return ["teleport to greenhouse", "look around", "wait1"][len(done) % 3]


def _has_made(server: OpenAIServer, calls: int) -> bool:
    return server.counts["calls"] >= calls


def test_a_driver_that_is_ended_and_started_again_goes_on(
    cluster: Cluster, plan: Any, server: OpenAIServer, postgres: str, tmp_path: Path
) -> None:
    """By SIGTERM, which lets the calls in flight answer, then by SIGKILL."""
    runner.run(plan("icrl", clustered=False, evaluator=None, limit=8, rounds=4), tmp_path / "one")
    before = server.counts["calls"]
    command = (
        *("bench", "game24", "--topologies", "icrl", "--model", "openai:policy", "--base-url", server.base_url),
        *("--limit", "8", "--rounds", "4", "--concurrency", "4", "--engine", "ray", "--ray-address", cluster.address),
        *("--db", postgres, "--out", "x"),
    )
    for how, at in ((signal.SIGTERM, 8), (signal.SIGKILL, 18)):
        with started(*command, cwd=tmp_path, **cluster.environment) as running:
            wait_for(partial(_has_made, server, before + at))
            running.send_signal(how)
            _, errors = running.communicate(timeout=120)
        if how == signal.SIGTERM:
            assert (running.returncode, "Resume with: icrl resume x" in errors) == (143, True)
            assert 8 <= server.counts["calls"] - before < 18
    done = process("resume", "x", "--db", postgres, cwd=tmp_path, **cluster.environment)
    assert (done.returncode, "Saved in x" in done.stdout) == (0, True), done.stderr
    assert outcome(tmp_path / "x") == outcome(tmp_path / "one")
    assert before <= server.counts["calls"] - before <= before + 4
