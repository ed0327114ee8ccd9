"""A run saved in a folder, so that it can be resumed after a crash, a Ctrl-C or a reboot.

DIR/run.json      its arguments: enough to build the same graph again; never a key or a password
DIR/run.sqlite    LangGraph's checkpoints and the journal of paid replies
DIR/result.json   the answer and every attempt, once it has ended
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from langgraph.runtime import RunControl

from icrl_graph.api import OnEpisode, Result, check, improve
from icrl_graph.benchmarks.files import read_versioned, write_whole
from icrl_graph.benchmarks.registry import find_item
from icrl_graph.errors import UnknownTask
from icrl_graph.evaluators.evaluator import find_evaluator
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.run_file import local
from icrl_graph.models.addresses import FolderAddress, server_of_further, without_credentials
from icrl_graph.models.registry import load_model
from icrl_graph.preview import preview
from icrl_graph.state.episode import Usage
from icrl_graph.state.formatting import command
from icrl_graph.topologies.methods import find_topology, size_option
from icrl_graph.topologies.options import at_temperature
from icrl_graph.topologies.settings import EARLY_STOPS, GIVEN_UP, SWITCH

SCHEMA_VERSION = 1
"""Of run.json."""
_ADDED = ("concurrency", "switch_base_url")
"""Fields that a run.json of an earlier version does not have."""
_ADDRESSES = ("base_url", "switch_base_url")
"""Fields that say where calls are made."""


@dataclass(frozen=True)
class Run:
    """The arguments of a run, in names and numbers.

    Attributes:
        task: a text, or an item of a benchmark such as "game24:4,5,6,10".
        model: "provider:name", or "path.py:name" of an object.
        evaluator: "path.py:name" or "module:name"; None takes the benchmark's own.
        metric: the same, or None.
        topology: a name, or "path.py:name".
        base_url: the model's server, or None.
        temperature: for every call, or None for the model's default.
        attempts: per API call, retries of transient errors included.
        options: settings, `system` and `max_response_tokens`.
        concurrency: calls in flight at most, or None for no limit.
        switch_base_url: the server of the model to switch to; None for the model's, where that speaks its protocol.
    """

    task: str
    model: str
    evaluator: str | None = None
    metric: str | None = None
    topology: str = "icrl"
    base_url: str | None = None
    temperature: float | None = None
    attempts: int = 6
    options: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    switch_base_url: str | None = None

    def start(self, folder: Path, on_episode: OnEpisode | None = None, control: RunControl | None = None) -> Result:
        """Start the run in a folder and follow it to its end.

        Raises:
            ValueError: an argument is wrong, or the folder is not empty.
        """
        local(folder, "a run is saved in a folder")
        if (folder / "run.json").exists():
            resumed = command("resume", folder)
            raise ValueError(f"{folder} holds a run already; resume it by {resumed!r}, or name another folder")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is not an empty folder; name another one")
        arguments = self._arguments()
        check(**arguments)  # nothing is written if one is wrong
        created = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._save(folder)
        try:
            return _play(arguments, folder, on_episode, control)
        except UnknownTask:  # a wrong argument, too, but only the model knows
            for name in ("run.json", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm"):
                (folder / name).unlink(missing_ok=True)
            for each in created:
                each.rmdir()
            raise

    def preview(self, response_tokens: int = 300) -> Usage:
        """What it will cost; see `icrl_graph.preview`.

        Args:
            response_tokens: assumed for each response.

        Raises:
            ValueError: an argument is wrong.
        """
        return preview(**self._arguments(), response_tokens=response_tokens)

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run of a folder; no key of this environment is sent to an address that it names alone.

        Raises:
            ValueError: the folder holds no run, or one of another version.
        """
        run = cls(**read_versioned(folder / "run.json", SCHEMA_VERSION, cls.__dataclass_fields__, "run", _ADDED))
        addresses: Any = {name: FolderAddress(address) for name in _ADDRESSES if (address := getattr(run, name))}
        return replace(run, **addresses)

    def _save(self, folder: Path) -> None:
        values = {**asdict(self), **{name: without_credentials(getattr(self, name)) for name in _ADDRESSES}}
        write_whole(folder / "run.json", {"form": SCHEMA_VERSION, **values})

    @classmethod
    def resume(
        cls,
        folder: Path,
        on_episode: OnEpisode | None = None,
        control: RunControl | None = None,
        more: int = 0,
        base_url: str | None = None,
        switch_base_url: str | None = None,
    ) -> Result:
        """Resume the run of a folder; of one that has ended, give the saved result.

        Rounds are added once it has ended: not to a run whose model, or evaluator, has failed again. Then run.json is
        what its thread becomes, also if something ends this process in between.

        Args:
            folder: holds it.
            on_episode: called with each episode.
            control: ends it early.
            more: rounds to add after those that are done.
            base_url: the model's server, with a password, say; default the one that the folder names.
            switch_base_url: that of the model to switch to, the same.

        Raises:
            ValueError: the folder holds no run, or one of another version, or the run can't be extended.
        """
        run = cls.read(folder)
        run = replace(run, base_url=base_url or run.base_url, switch_base_url=switch_base_url or run.switch_base_url)
        result = _play(run._arguments(), folder, on_episode, control)
        if not more or result.stopped in GIVEN_UP:
            return result
        done = len({episode["round"] for episode in result.episodes}) - result.lost_rounds
        longer = run.with_more(more, done)
        longer._save(folder)
        return _play(longer._arguments(), folder, on_episode, control)

    def with_more(self, more: int, done: int) -> Run:
        """The same run with rounds added to those that are done, whatever ended it.

        Raises:
            ValueError: it has no rounds.
        """
        if size_option(find_topology(self.topology)) != "rounds":
            raise ValueError("a Best-of-N run can't be extended; start a new one with a larger --n")
        options = {name: value for name, value in self.options.items() if name not in EARLY_STOPS}
        return replace(self, options={**options, "rounds": done + more})

    def _arguments(self) -> dict[str, Any]:
        """The arguments of `improve` that the names stand for."""
        item = find_item(self.task)
        inputs: Mapping[str, Any] = item.inputs if item else {"task": self.task, "task_data": {}}
        if self.evaluator is not None:
            score: Any = find_evaluator(self.evaluator)
        elif item is not None and item.benchmark.evaluator is not None:
            score = item.benchmark.evaluator
        else:
            raise ValueError(
                "an evaluator is needed, such as --evaluator path.py:function; only the items of benchmarks that have "
                "one, such as game24:4,5,6,10, need none"
            )
        model = load_model(self.model, base_url=self.base_url)
        metric: Any = find_evaluator(self.metric) if self.metric else None
        second = self.options.get(SWITCH)
        if second is None and self.switch_base_url is not None:
            raise ValueError("--switch-base-url is the server of a model to switch to: name that by --set switch_model")
        address = second and server_of_further(second, self.switch_base_url, self.model, self.base_url)
        switch = {SWITCH: load_model(second, base_url=address, role=SWITCH)} if second else {}
        if item is not None:
            metric = metric or item.benchmark.metric
            model = item.benchmark.player(model)() if item.benchmark.player else model
        return {
            **inputs,
            "score": score,
            "metric": metric,
            "model": model,
            "topology": self.topology,
            "rate_limit": RateLimit(max_attempts=self.attempts, max_concurrency=self.concurrency),
            **at_temperature(self.temperature),
            **self.options,
            **switch,
        }


def _play(arguments: dict[str, Any], folder: Path, on_episode: OnEpisode | None, control: RunControl | None) -> Result:
    result = improve(**arguments, path=folder / "run.sqlite", thread_id="run", on_episode=on_episode, control=control)
    if not _holds(folder / "result.json", result):  # a run that has ended can be read where nothing can be written
        write_whole(folder / "result.json", as_json(result))
    return result


def _holds(path: Path, result: Result) -> bool:
    """Whether a file holds this result."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(as_json(result))))
    except (OSError, ValueError):
        return False


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain values; without `made` where that is not known, with lost rounds where there are any."""
    values = {name: getattr(result, name) for name in Result.__dataclass_fields__}
    left_out = {name for name in ("made", "lost_rounds") if not values[name]}
    return {name: value for name, value in values.items() if name not in left_out}
