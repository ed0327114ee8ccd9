"""Runs in the real trackers, offline: trackio, Weights & Biases, MLflow."""

import json
import logging
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from icrl_graph import compare, improve
from icrl_graph.errors import MissingExtra
from icrl_graph.integrations import tracking
from icrl_graph.integrations.tracking import track
from tests.command_line import ROOT, process

Logged = dict[str, dict[str, list[tuple[int, float]]]]
"""By the name of a run and that of a number: steps and values."""


def need(package: str) -> None:
    """Skip where a tracker is not installed; on CI, fail."""
    if find_spec(package) is None:
        assert "CI" not in os.environ, f"CI installs {package}: see the Makefile"
        pytest.skip(f"{package} is not installed: pip install {package}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    variables = {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path),
        "WANDB_CONFIG_DIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": f"file://{tmp_path / 'mlruns'}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def of_trackio(home: Path) -> Logged:
    (database,) = home.glob("trackio/mine*.db")
    logged: Logged = {}
    for name, step, metrics in sqlite3.connect(database).execute("SELECT run_name, step, metrics FROM metrics"):
        for metric, value in json.loads(metrics).items():
            logged.setdefault(name, {}).setdefault(metric, []).append((step, value))
    return logged


def of_wandb(home: Path) -> Logged:
    from wandb.proto import wandb_internal_pb2

    logged: Logged = {}
    for file in home.glob("wandb/offline-run-*/run-*.wandb"):
        name = ""
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            numbers = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            for metric, value in numbers.items():
                if not metric.startswith("_"):
                    logged.setdefault(name, {}).setdefault(metric, []).append((numbers["_step"], value))
    return logged


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a file in the format of LevelDB's log, behind a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if at % 32768 > 32768 - 7:  # no record begins in the last bytes of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # it is whole, or this was its last part
            yield whole
            whole = b""


def of_mlflow(home: Path) -> Logged:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment: Any = client.get_experiment_by_name("mine")
    logged: Logged = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FINISHED"
        logged[str(run.info.run_name)] = {
            metric: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
    return logged


READ: dict[str, Callable[[Path], Logged]] = {"trackio": of_trackio, "wandb": of_wandb, "mlflow": of_mlflow}


@pytest.mark.parametrize("kind", READ)
def test_eight_runs_at_once_are_not_mixed_and_what_is_unscored_is_not_logged(kind: str, home: Path) -> None:
    need(kind)
    subprocess.run([sys.executable, "-m", "tests.trackers.tracked_child", f"{kind}:mine"], check=True, cwd=ROOT)
    logged = READ[kind](home)
    assert sorted(logged) == [f"run {number}" for number in range(8)]
    for number in range(8):
        of_run = {name: sorted(values) for name, values in logged[f"run {number}"].items()}
        assert of_run["calls"] == [(0, 1), (1, 2), (2, 3)]
        assert of_run.get("reward", []) == ([] if number == 3 else [(step, number / 10) for step in range(3)])


@pytest.mark.parametrize("kind", READ)
def test_the_command_line_logs_a_run_and_a_comparison_and_prints_json_alone(kind: str, home: Path) -> None:
    need(kind)
    at = ["--track", f"{kind}:mine", "--json"]
    run = ["run", "hidden-color:#b94", "--model", "learner:hidden-color", "--rounds", "2", "--out", str(home / "r")]
    json.loads(process(*run, *at, cwd=home).stdout)
    bench = ["bench", "hidden-color", "--topologies", "icrl,best_of_n", "--limit", "1", "--rounds", "2"]
    json.loads(process(*bench, "--out", str(home / "b"), *at, cwd=home).stdout)
    logged = READ[kind](home)
    assert len(logged) == 3
    assert all(len(of_run["reward"]) == 2 for of_run in logged.values())


# --------------------------------------------------------------------------------------- without any of them


def fake(logged: list[Any], fails: bool = False) -> Any:
    def begin(project: str, name: str, config: dict[str, Any]) -> Any:
        if fails:
            raise ConnectionError("the tracker is out of reach")
        logged.append((name, config))
        return lambda numbers, step: logged.append((name, step, numbers)), lambda: logged.append((name, "finished"))

    return begin


@pytest.fixture
def json_tracker(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A tracker by the name of a package that is always there."""
    logged: list[Any] = []
    monkeypatch.setitem(tracking.TRACKERS, "json", fake(logged))
    return logged


def test_a_run_has_a_step_for_each_attempt_and_what_it_has_spent_so_far(json_tracker: list[Any]) -> None:
    tracker = track("json:mine", {"note": "x"})
    improve("t", lambda response: 0.5, model=lambda: "abc", rounds=2, watch=tracker, thread_id="me")
    tracker.close()
    (name, config), first, second, finished = json_tracker
    assert (name, config["topology"], config["task"], config["note"]) == ("me", "icrl", "t", "x")
    assert [first[:2], second[:2], finished] == [("me", 0), ("me", 1), ("me", "finished")]
    assert (first[2]["calls"], second[2]["calls"], second[2]["best"]) == (1, 2, 0.5)


def test_runs_that_have_broken_off_are_finished_when_it_is_closed(json_tracker: list[Any]) -> None:
    def fails() -> str:
        raise AssertionError

    tracker, answers = track("json:mine"), iter(["abc"])
    options: Any = {"end_on": [StopIteration, RuntimeError], "watch": tracker, "thread_id": "me"}
    with pytest.raises((StopIteration, RuntimeError)):
        improve("t", lambda response: 0.5, model=lambda: next(answers), **options)
    assert ("me", "finished") not in json_tracker
    tracker.close()
    assert json_tracker[-1] == ("me", "finished")


def test_a_tracker_that_fails_is_told_once_and_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(tracking.TRACKERS, "json", fake([], fails=True))
    tracker = track("json:mine")
    with caplog.at_level(logging.WARNING):
        result = improve("t", lambda response: 0.5, model=lambda: "abc", rounds=4, watch=tracker)
        tracker.close()
    assert result.stopped == "rounds"
    assert caplog.text.count("the tracker is out of reach") == 1


def test_a_tracker_that_is_stuck_is_told_and_holds_no_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = Event()

    def stuck(project: str, name: str, config: dict[str, Any]) -> Any:
        answers.wait()

    monkeypatch.setitem(tracking.TRACKERS, "json", stuck)
    monkeypatch.setattr(tracking, "PATIENCE", 0.1)
    tracker = track("json:mine")
    improve("t", lambda response: 0.5, model=lambda: "abc", rounds=2, watch=tracker)
    with caplog.at_level(logging.WARNING):
        tracker.close()
    answers.set()
    assert "has not answered" in caplog.text


def test_its_runs_can_be_named(json_tracker: list[Any]) -> None:
    tracker = track("json:mine", name="pangrams")
    improve("t", lambda response: 0.5, model=lambda: "abc", rounds=1, watch=tracker)
    tracker.close()
    assert {each[0] for each in json_tracker} == {"pangrams"}


def test_a_comparison_hands_on_every_attempt(json_tracker: list[Any], tmp_path: Path) -> None:
    tracker = track("json:mine")
    compare("hidden_color", "icrl,best_of_n", limit=2, rounds=3, folder=tmp_path / "x", watch=tracker)
    tracker.close()
    assert sum(each[1] in range(3) for each in json_tracker) == 12
    assert sum(each[1] == "finished" for each in json_tracker) == 4


def test_a_function_that_raises_ends_no_comparison(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Any) -> None:
        raise ConnectionError("no tracker")

    with caplog.at_level(logging.WARNING):
        made = compare("hidden_color", "icrl", limit=1, rounds=2, folder=tmp_path / "x", watch=fail)
    assert not made.failures
    assert "no tracker" in caplog.text


@pytest.mark.parametrize("where", ["trackio", "trackio:", "tensorboard:mine", "", None, 5])
def test_another_tracker_is_refused_with_the_choices(where: Any) -> None:
    with pytest.raises(ValueError, match="give trackio:PROJECT, wandb:PROJECT, mlflow:PROJECT"):
        track(where)


def test_a_tracker_that_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="wandb is not installed; run: pip install wandb"):
        track("wandb:mine")
