"""Experiment trackers: trackio, Weights & Biases and MLflow hear runs as they go.

    improve(task, score, model=..., watch=track("trackio:my-project"))

The tracker is not brought by this package: install the one that you use (`pip install trackio`, `wandb`, `mlflow`).
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Thread
from typing import Any

from icrl_graph.errors import MissingExtra
from icrl_graph.execution.retry import describe
from icrl_graph.state.episode import Usage, add_usage

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which a tracker is waited for at the end, from the last time that it has answered."""
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

    def __init__(self, where: str, config: Mapping[str, Any], name: str | None) -> None:
        kind, _, self._project = where.partition(":") if isinstance(where, str) else ("", "", "")
        if kind not in TRACKERS or not self._project:
            raise ValueError(f"track={where!r}: give {', '.join(f'{name}:PROJECT' for name in TRACKERS)}")
        if not isinstance(config, Mapping):
            raise ValueError(f"config is a mapping, got {config!r:.80}")
        if find_spec(kind) is None:
            raise MissingExtra(f"{kind} is not installed; run: pip install {kind}")
        self._begin, self._config, self._name, self._told = TRACKERS[kind], dict(config), name, set[str]()
        self._runs = dict[str, tuple[Log, Callable[[], Any], int, list[Usage]]]()
        self._events, self._done = SimpleQueue[Mapping[str, Any] | None](), 0
        self._thread = Thread(target=self._work, daemon=True, name="icrl-track")  # no tracker holds the process
        self._thread.start()
        atexit.register(self.close)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Log an event, if it is that of an attempt, or the last one of a run."""
        if event["type"] in ("episode", "done"):
            self._events.put(event)

    def close(self) -> None:
        """Wait until all is logged, and finish the runs that have not ended, too; not for a tracker that is stuck."""
        atexit.unregister(self.close)
        self._events.put(None)
        before = -1
        while self._thread.is_alive() and before < self._done:
            before = self._done
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            logger.warning("the tracker has not answered for %.0f s; what is not logged yet is lost", PATIENCE)

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            self._safely(self._log if event["type"] == "episode" else self._finish, event)
        for run in list(self._runs):
            self._safely(self._finish, {"run": run})

    def _log(self, event: Mapping[str, Any]) -> None:
        if (run := event["run"]) not in self._runs:
            config = {**{name: event[name] for name in ("topology", "task", "thread", "run")}, **self._config}
            begun = self._begin(self._project, self._name or event["thread"] or run, config)
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

    def _safely(self, do: Callable[[Mapping[str, Any]], None], event: Mapping[str, Any]) -> None:
        try:
            do(event)
        except Exception as error:
            if (told := describe(error)) not in self._told:
                self._told.add(told)
                logger.warning("the tracker has failed, and the run goes on without it: %s", told)
        finally:
            self._done += 1


def track(where: str, config: Mapping[str, Any] | None = None, *, name: str | None = None) -> Tracker:
    """A function for the option `watch` that logs runs to a tracker.

    Each run is one of the tracker's, named by its thread, with a step for each attempt: `reward`, `metric`, `best`,
    and what its attempts have cost since it was begun or resumed: `calls`, `input`, `output`, `usd`. What is unscored
    is not logged, never as 0. A thread of its own does the logging, so no run waits for it; a failure there is told
    once, and ends no run.

    Args:
        where: "trackio:PROJECT", "wandb:PROJECT" or "mlflow:EXPERIMENT"; where the tracker keeps it is set in its own
            way, such as by WANDB_MODE or MLFLOW_TRACKING_URI.
        config: what else is logged of each run once, such as its settings.
        name: what its runs are called; default by their threads.

    Raises:
        ValueError: there is no such tracker, or the project has no name.
        MissingExtra: the tracker is not installed.
    """
    return Tracker(where, {} if config is None else config, name)
