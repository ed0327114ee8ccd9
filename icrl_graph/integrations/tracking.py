"""Experiment trackers: trackio, Weights & Biases and MLflow hear runs as they go.

    improve(task, score, model=..., watch=track("trackio:my-project"))

The tracker is not brought by this package: install the one that you use (`pip install trackio`, `wandb`, `mlflow`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from icrl_graph.errors import MissingExtra
from icrl_graph.execution.retry import describe
from icrl_graph.state.episode import Usage, add_usage

logger = logging.getLogger(__name__)

Log = Callable[[dict[str, float], int], Any]
"""Logs numbers by name, at a step."""


def _trackio(project: str, name: str, config: dict[str, Any]) -> tuple[Log, Callable[[], Any]]:
    import trackio

    run = trackio.init(project=project, name=name, config=config)
    return lambda numbers, step: run.log(numbers, step=step), run.finish


def _wandb(project: str, name: str, config: dict[str, Any]) -> tuple[Log, Callable[[], Any]]:
    import wandb

    run = wandb.init(project=project, name=name, config=config, reinit="create_new")  # else runs side by side are one
    return lambda numbers, step: run.log(numbers, step=step), run.finish


def _mlflow(project: str, name: str, config: dict[str, Any]) -> tuple[Log, Callable[[], Any]]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient()
    found = client.get_experiment_by_name(project)
    run = client.create_run(client.create_experiment(project) if found is None else found.experiment_id, run_name=name)
    id = run.info.run_id
    client.log_batch(id, params=[Param(key, str(value)[:500]) for key, value in config.items()])

    def log(numbers: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        client.log_batch(id, metrics=[Metric(key, value, now, step) for key, value in numbers.items()])

    return log, lambda: client.set_terminated(id)


TRACKERS = {"trackio": _trackio, "wandb": _wandb, "mlflow": _mlflow}


class Tracker:
    """Logs runs, as many at once as there are; see `track`."""

    def __init__(self, where: str, config: Mapping[str, Any]) -> None:
        kind, _, self._project = where.partition(":")
        if kind not in TRACKERS or not self._project:
            raise ValueError(f"track={where!r}: give {', '.join(f'{name}:PROJECT' for name in TRACKERS)}")
        if find_spec(kind) is None:
            raise MissingExtra(f"{kind} is not installed; run: pip install {kind}")
        self._begin, self._config, self._told = TRACKERS[kind], dict(config), set[str]()
        self._runs = dict[str, tuple[Log, Callable[[], Any], int, list[Usage]]]()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="icrl-track")

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Log an event, if it is that of an attempt, or the last one of a run."""
        if event["type"] in ("episode", "done"):
            self._thread.submit(self._safely, self._log if event["type"] == "episode" else self._finish, event)

    def close(self) -> None:
        """Wait until all is logged, and finish the runs that have not ended, too."""
        self._thread.submit(self._finish_all)
        self._thread.shutdown()

    def _log(self, event: Mapping[str, Any]) -> None:
        if (run := event["run"]) not in self._runs:
            config = {**{name: event[name] for name in ("topology", "task", "thread", "run")}, **self._config}
            begun = self._begin(self._project, event["thread"] or run, config)
            self._runs[run] = (*begun, event["round"], [])
        log, _, first, usages = self._runs[run]
        usages.append(event["usage"])
        numbers = {**{name: event[name] for name in ("reward", "metric", "best")}, **add_usage(*usages)}
        named = ("reward", "metric", "best", "calls", "input", "output", "usd")
        known = {name: float(numbers[name]) for name in named if numbers.get(name) is not None}
        log(known, first + len(usages) - 1)

    def _finish(self, event: Mapping[str, Any]) -> None:
        if (run := self._runs.pop(event["run"], None)) is not None:
            run[1]()

    def _finish_all(self) -> None:
        for run in list(self._runs):
            self._safely(self._finish, {"run": run})

    def _safely(self, do: Callable[[Mapping[str, Any]], None], event: Mapping[str, Any]) -> None:
        try:
            do(event)
        except Exception as error:
            if (told := describe(error)) not in self._told:
                self._told.add(told)
                logger.warning("the tracker has failed, and the run goes on without it: %s", told)


def track(where: str, config: Mapping[str, Any] | None = None) -> Tracker:
    """A function for the option `watch` that logs runs to a tracker.

    Each run is one of the tracker's, named by its thread, with a step for each attempt: `reward`, `metric`, `best`,
    and what its attempts have cost since it was begun or resumed: `calls`, `input`, `output`, `usd`. What is unscored
    is not logged, never as 0. A thread of its own does the logging, so no run waits for it; a failure there is told
    once, and ends no run.

    Args:
        where: "trackio:PROJECT", "wandb:PROJECT" or "mlflow:EXPERIMENT"; where the tracker keeps it is set in its own
            way, such as by WANDB_MODE or MLFLOW_TRACKING_URI.
        config: what else is logged of each run once, such as its settings.

    Raises:
        ValueError: there is no such tracker, or the project has no name.
        MissingExtra: the tracker is not installed.
    """
    return Tracker(where, config or {})
