"""A saved run as it stands, whether it is under way, was interrupted or has ended.

Looking at it pays nothing, resumes nothing, and writes nothing into its folder: the database is read from a copy, for
SQLite writes beside what it reads. The folder may be a stranger's, so nothing that it names is imported, with one
exception: a method or a layout of one's own, named by path, has to make the prompts, and only where they are asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, cast

from icrl_graph.benchmarks.arms import graph_of
from icrl_graph.benchmarks.plan import read_plan
from icrl_graph.benchmarks.report import write_run
from icrl_graph.benchmarks.report.runs import prompts
from icrl_graph.benchmarks.report.tables import shown_names
from icrl_graph.benchmarks.results import checked_results
from icrl_graph.cli.run_folder import Run
from icrl_graph.errors import IcrlError
from icrl_graph.execution.langgraph_internals import PlainSerializer
from icrl_graph.prompts.text import text_of
from icrl_graph.state.choices import names_an_object
from icrl_graph.state.episode import Episode, LoopState, Message, answer_of
from icrl_graph.state.formatting import file_names
from icrl_graph.state.loading import importing_nothing
from icrl_graph.state.selection import reported_reward
from icrl_graph.topologies import nodes
from icrl_graph.topologies.methods import build
from icrl_graph.topologies.settings import SWITCHED, SavedSettings, Settings

OUTCOME = ("answer", "reward", "metric", "regret", "rewarded_by", "stopped")
"""What a run has only once it has ended."""


@dataclass(frozen=True)
class SavedRun:
    """A run as it stands.

    Attributes:
        name: its folder; of a run of a comparison also its arm, task and seed.
        about: what it is made of, and the settings that differ from the defaults, by name.
        task: a text, or messages.
        episodes: its attempts so far.
        outcome: what it came to, by the names in `OUTCOME`; empty if it has not ended.
        code: the names of what is imported to make its prompts, such as "mine.py:create"; mostly none.
        make_prompts: makes the prompt of each attempt again.
    """

    name: str
    about: Mapping[str, Any]
    task: str | Sequence[Message]
    episodes: Sequence[Episode]
    outcome: Mapping[str, Any]
    code: Sequence[str]
    make_prompts: Callable[[], list[list[Message]]]

    @property
    def chosen(self) -> int | None:
        """The place of the attempt that gave the answer, if there is one."""
        answer, reward = self.outcome.get("answer"), self.outcome.get("reward")
        same = (answer_of(episode) == answer and reported_reward(episode) == reward for episode in self.episodes)
        return None if answer is None else next((at for at, is_same in enumerate(same) if is_same), None)


def read_run(folder: Path) -> SavedRun:
    """The run of a folder.

    Raises:
        ValueError: the folder holds no run, or it can't be read.
        ThreadMismatch: another version wrote it.
    """
    run = Run.read(folder)
    state = _state(folder / "run.sqlite")
    settings = state.get("settings") or {**Settings().model_dump(), **run.options}
    saved, episodes = SavedSettings.of(settings), state.get("episodes", [])
    parts = {name: getattr(run, name) for name in ("topology", "model", "evaluator", "metric")}
    # a plan has the outcome of memories, schedules, spreads and ablations
    unneeded = ("memory", "schedule", "spread", "show", "stop", "reflector", "critic", "switch_after", *SWITCHED)
    options = {name: value for name, value in run.options.items() if name not in unneeded}

    named = dict.fromkeys(str(name) for name in (run.topology, saved.layout, *options.values()))  # of both files

    def make_prompts() -> list[list[Message]]:
        graph = build(run.topology, lambda: "", lambda: 0.0, **options)
        return [graph.prompt(state, at) for at in range(len(episodes))]

    return SavedRun(
        name=str(folder),
        about={**{name: file_names(part) for name, part in parts.items() if part}, **_settings(saved)},
        task=state["inputs"]["task"] if "inputs" in state else run.task,
        episodes=episodes,
        outcome={name: state.get(name) for name in OUTCOME} if state.get("stopped") and "answer" in state else {},
        code=[name for name in named if names_an_object(name)],
        make_prompts=make_prompts,
    )


def write_page(folder: Path, trust: bool = False) -> Path:
    """Write the report of a folder's run, a page; without its prompts where code would have to be imported for them.

    Args:
        folder: of the run.
        trust: whether to import that code.

    Raises:
        ValueError: the folder holds no run, or it can't be read.
        ThreadMismatch: another version wrote it.
        MissingExtra: the extra `report` is not installed.
    """
    run = read_run(folder)
    unmade = [] if trust else run.code
    with importing_nothing(unless=trust):
        prompts = () if unmade else run.make_prompts()
    write_run(
        folder / "report.html",
        name=run.name,
        about=run.about,
        task=text_of(run.task),
        episodes=run.episodes,
        outcome=run.outcome,
        chosen=run.chosen,
        prompts=prompts,
        unmade=", ".join(unmade),
    )
    return folder / "report.html"


def read_cell(folder: Path, name: str) -> SavedRun:
    """A run of a comparison that has ended.

    Args:
        folder: of the comparison.
        name: the run's arm, task and seed, as "icrl/4,5,6,10/0".

    Raises:
        ValueError: the folder holds no comparison, or no such run.
        ThreadMismatch: another version wrote it.
    """
    plan, rows = read_plan(folder), checked_results(folder).rows
    arms = shown_names(plan.arms)
    cells = {f"{arms[c.arm]}/{c.item}/{c.seed}": c for c, row in rows.items() if "error" not in row}
    cell = cells.get(name) or cells.get(file_names(name))
    if cell is None:
        example = (
            f"name one as ARM/TASK/SEED, such as --run {quote(next(iter(cells)))}" if cells else "none has ended yet"
        )
        raise ValueError(f"{folder} holds a comparison and no run {name!r}: {example}")
    row: Mapping[str, Any] = rows[cell]
    parts = {"topology": cell.arm, "model": plan.model, "evaluator": plan.evaluator, "judge": plan.judge}
    return SavedRun(
        name=f"{folder}, {arms[cell.arm]}/{cell.item}/{cell.seed}",
        about={**{name: file_names(part) for name, part in parts.items() if part}, "rounds": plan.rounds},
        task=row["task"],
        episodes=row["episodes"],
        outcome={name: row[name] for name in OUTCOME},
        code=_code(cell.arm, plan.options),
        make_prompts=lambda: prompts(graph_of(plan, cell.arm), rows[cell]),
    )


def _code(arm: str, shared: Mapping[str, Any]) -> list[str]:
    """What the graph of an arm imports; neither its model nor its evaluator is needed."""
    topology, *options = arm.split("+")
    parts = [option.partition("=")[2] for option in options if not option.startswith(("model=", "switch_model="))]
    return [part for part in (topology, *parts, *shared.values()) if isinstance(part, str) and names_an_object(part)]


def _settings(saved: SavedSettings) -> dict[str, Any]:
    """The settings that differ from the defaults, and how many rounds or attempts there may be."""
    defaults = {**Settings().model_dump(), "n": None, "rounds": None}
    fixed = () if saved.n is None else ("rounds", "width", "memory")
    values = {name: getattr(saved, name) for name in defaults if name not in ("model", *fixed)}
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    return {name: file_names(value) if isinstance(value, str) else value for name, value in changed.items()}


def _state(database: Path) -> LoopState:
    """The state of a saved run; empty if nothing is saved yet.

    Raises:
        ValueError: it can't be read.
    """
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    if not database.exists():
        return LoopState()
    graph = build("icrl", lambda: "", lambda: 0.0)  # any method reads the state of any other
    try:
        with _copied(database) as connection:
            saver = SqliteSaver(connection, serde=PlainSerializer())
            state = graph.saved_by(saver).get_state({"configurable": {"thread_id": "run"}})
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{database} can't be read: {error!r:.200}") from error
    if saved := state.values.get("settings"):
        nodes.check_schema_version(saved)
    return cast(LoopState, state.values)


@contextmanager
def _copied(database: Path) -> Iterator[Any]:
    """A connection to a copy of a database, which may be in use."""
    import sqlite3

    log = database.with_name(f"{database.name}-wal")
    with tempfile.TemporaryDirectory(prefix="icrl-") as folder:
        copy = Path(folder) / database.name
        for _ in range(100):
            (Path(folder) / log.name).unlink(missing_ok=True)
            before = _versions(database, log)
            with suppress(FileNotFoundError):  # the log goes when the run ends
                if before[1] is not None:
                    shutil.copyfile(log, Path(folder) / log.name)
                shutil.copyfile(database, copy)
                if _versions(database, log) == before:
                    break
        else:
            raise IcrlError(f"{database} is written all the time; try again")
        with closing(sqlite3.connect(copy)) as connection:
            yield connection


def _versions(database: Path, log: Path) -> tuple[Any, bytes | None]:
    """What changes when SQLite moves its log into the database; what it adds to the log does not matter."""
    stat = database.stat()
    try:
        with log.open("rb") as file:
            opening: bytes | None = file.read(32)  # holds salts that are drawn anew
    except FileNotFoundError:
        opening = None
    return (stat.st_mtime_ns, stat.st_size), opening
