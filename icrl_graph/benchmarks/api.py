"""`compare`: methods against each other on a benchmark, as `icrl bench` does it, from Python.

from icrl_graph import compare

result = compare("game24", "icrl,best_of_n", model="openai:gpt-4.1-mini", limit=20, folder="runs/first")
print(result)
result.report()
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from langgraph.runtime import RunControl

from icrl_graph.benchmarks import registered
from icrl_graph.benchmarks.benchmark import Benchmark
from icrl_graph.benchmarks.experiment import NO_OBJECTS, Objects, make_plan
from icrl_graph.benchmarks.plan import Plan, read_plan
from icrl_graph.benchmarks.rejudge import judging_cost, rejudge
from icrl_graph.benchmarks.results import Cell, Row, checked_results, has_ended
from icrl_graph.benchmarks.runner import run
from icrl_graph.benchmarks.scheduler import Left, OnProgress, watched
from icrl_graph.benchmarks.summary import Summary, summarize
from icrl_graph.benchmarks.verdict import Verdict, verdict
from icrl_graph.benchmarks.win_rates import WinRate, win_rates
from icrl_graph.errors import MissingExtra
from icrl_graph.execution.run_file import local
from icrl_graph.state import notebook
from icrl_graph.state.checks import check_control, check_function
from icrl_graph.state.episode import Usage, add_usage, answer_of, value_of
from icrl_graph.state.events import Emit
from icrl_graph.state.formatting import cost

WIDTH = 160
"""Columns of the tables of a printed comparison."""


def compare(
    benchmark: str | Path | Benchmark,
    arms: str | Sequence[str],
    *,
    model: Any = None,
    evaluator: Any = None,
    judge: Any = None,
    rubric: str | None = None,
    metric: Any = None,
    items: Sequence[str] = (),
    limit: int | None = None,
    rounds: int | None = None,
    seeds: int = 1,
    concurrency: int = 8,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    attempts: int = 6,
    call_timeout: float = 600.0,
    solved_at: float | None = None,
    base_url: str | None = None,
    judge_base_url: str | None = None,
    switch_base_url: str | None = None,
    temperature: float | None = None,
    total_usd: float | None = None,
    total_calls: int | None = None,
    total_seconds: float | None = None,
    send_seed: bool = True,
    allocate: int | None = None,
    register: bool = False,
    db: str | None = None,
    engine: str = "process",
    ray_address: str | None = None,
    folder: str | PathLike[str] | None = None,
    watch: Emit | None = None,
    on_progress: OnProgress | None = None,
    control: RunControl | None = None,
    **options: Any,
) -> Comparison:
    """Compare methods on the tasks of a benchmark, with intervals and tests.

    The same call with the same folder resumes an interrupted comparison and repeats the runs that failed; arms, tasks
    and seeds may be added. A model, evaluator, judge, metric or benchmark may be an object. The folder then holds its
    name alone, so only the same call resumes it, not `icrl resume`.

    Args:
        benchmark: a name (see `icrl benchmarks`), "path.py:name" or "module:name" of a `Benchmark`, a `Benchmark`, or
            a data set: a file (.jsonl, .csv, .parquet) or "hf:owner/name", and from which columns its tasks are made,
            as in "hf:owner/name?task=problem,target=answer" (see `icrl_graph.benchmarks.datasets`).
        arms: the methods, such as "icrl,best_of_n,icrl+show=zero+memory=last:5" or a list of them; the others are
            compared with the first. See `icrl_graph.benchmarks.arms`.
        model: a chat model, "provider:name", "path.py:name", a Runnable or a function; default the learner that plays
            the benchmark.
        evaluator: gives the rewards: a function, a LangChain tool, a Runnable, a judge such as `llm_judge(...)`, or
            "path.py:name"; default the benchmark's own.
        judge: a model that gives the rewards by the rubric, in place of an evaluator.
        rubric: what the judge judges by; default the benchmark's own.
        metric: another evaluator, whose value is reported; no prompt shows it.
        items: names of tasks, or patterns such as "find-*"; default all.
        limit: number of tasks; default the benchmark's own, mostly 50; all of `items`, where they are given.
        rounds: attempts at each task, one after another or side by side; default the benchmark's own, mostly 8.
        seeds: runs of each arm on each task.
        concurrency: number of runs, and of calls, at once.
        requests_per_minute: paid calls a minute at most.
        tokens_per_minute: tokens a minute, in and out, on average.
        attempts: attempts per API call, retries of transient errors included.
        call_timeout: seconds for one attempt, of a model named "openai:...".
        solved_at: the metric from which a task counts as solved; default the benchmark's own, where its own rewards
            count.
        base_url: an OpenAI-compatible server for models that are named; default OPENAI_BASE_URL. A user name and a
            password in it (`http://user:password@...`) are used, and not saved.
        judge_base_url: the same for the judge; default `base_url`.
        switch_base_url: the same for the models that runs switch to (`switch_model`).
        temperature: for every call of the model.
        total_usd: US dollars for all runs together, those of earlier calls with this folder included. Once it is spent,
            no call is begun; what is left is told (`Comparison.left`), and the same call with a higher total does it.
            Needs the prices of the models.
        total_calls: paid calls, the same.
        total_seconds: seconds that the comparison may take by the clock, the same.
        send_seed: whether models that take a seed get one, the same for all arms; without it, what this package draws
            is not repeatable either.
        allocate: paid calls for all runs of an arm together, in place of rounds: each arm is played twice, with them
            split evenly over its tasks, and with them handed out attempt by attempt to the tasks where they are
            expected to help most. Needs `target` or `bounds`. Arms without rounds, such as best_of_n, are played once.
        register: whether the claim that the first arm is better than each other one is registered before the first
            call: with arms, tasks, seeds and the test, under a hash. The report says whether what was run is that.
        db: a PostgreSQL database that saves runs until they end, "postgresql://user:password@host/name" (extra
            `postgres`); default files of the folder, which keeps the address without user and password.
        engine: where runs are played: in this "process", or on the machines of a cluster ("ray", which needs `db` and
            the extra `ray`). Objects that are passed go there by value; files and modules that are named must be there.
        ray_address: of the cluster; default the one that Ray finds: RAY_ADDRESS, one on this machine, else a new one.
        folder: new, or one that holds the same comparison. Default a new temporary one, which is not deleted; give one
            wherever calls cost money.
        watch: called with each attempt that is judged, an `EpisodeEvent`, on Ray too: such as `track("wandb:mine")`
            (`icrl_graph.integrations.tracking`).
        on_progress: called with a `Progress` whenever something has happened; default a progress bar, if standard error
            is a terminal.
        control: its `request_drain()`, called from a signal handler or another thread, ends the comparison once the
            calls in flight have answered.
        options: settings that all arms share, such as target, patience, max_calls, max_usd, prices and system, as JSON
            values; custom parts by "path.py:name".

    Returns:
        The results, also where single runs failed: see `Comparison.failures`.

    Raises:
        ValueError: an argument is wrong, or the folder holds something else. Nothing was paid.
        ModelError: no run can succeed: the key, the model's name or the address is wrong.
        JournalError: what was paid can't be saved, or the database can't be reached.
        MissingExtra: `db` needs the extra `postgres`, and engine="ray" the extra `ray`.
        ConnectionError: there is no Ray cluster at that address, or this machine's part of it has died.
        GraphDrained: it was ended through `control`; the same call resumes it.

    Examples:
        >>> result = compare("hidden-color", "icrl,best_of_n", limit=4, rounds=2)
        >>> [row["arm"] for row in result.tables["methods"]]
        ['icrl', 'best_of_n']
    """
    check_function("on_progress", on_progress, "progress")
    check_function("watch", watch, "event")
    check_control(control)
    plan, objects = make_plan(
        benchmark,
        arms,
        model=model,
        evaluator=evaluator,
        judge=judge,
        rubric=rubric,
        metric=metric,
        items=items,
        limit=limit,
        rounds=rounds,
        seeds=seeds,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        attempts=attempts,
        call_timeout=call_timeout,
        solved_at=solved_at,
        base_url=base_url,
        judge_base_url=judge_base_url,
        switch_base_url=switch_base_url,
        temperature=temperature,
        total_usd=total_usd,
        total_calls=total_calls,
        total_seconds=total_seconds,
        send_seed=send_seed,
        allocate=allocate,
        db=db,
        engine=engine,
        ray_address=ray_address,
        options=options,
    )
    with _folder(folder) as path, _progress(on_progress) as report:
        if register:
            registered.register(plan, path, objects)
        return execute(plan, path, report if watch is None else watched(report, watch), control, objects)


@contextmanager
def _folder(folder: str | PathLike[str] | None) -> Iterator[Path]:
    """The folder, or a temporary one; a failure says how to resume, if anything was saved."""
    path = (
        Path(tempfile.mkdtemp(prefix="icrl-")) if folder is None else local(folder, "a comparison is saved in a folder")
    )
    try:
        yield path
    except BaseException as error:
        if (path / "bench.json").exists():
            error.add_note(f"What was done so far is saved; the same call with folder={str(path)!r} resumes it.")
        elif folder is None:
            path.rmdir()
        raise


def _progress(on_progress: OnProgress | None) -> AbstractContextManager[OnProgress]:
    if on_progress is not None:
        return nullcontext(on_progress)
    from rich.console import Console

    from icrl_graph.benchmarks.terminal import progress_bar

    console = Console(stderr=True)
    return progress_bar(console) if console.is_terminal else nullcontext(lambda progress: None)


def execute(
    plan: Plan,
    folder: Path,
    on_progress: OnProgress = lambda progress: None,
    control: RunControl | None = None,
    objects: Objects = NO_OBJECTS,
) -> Comparison:
    """Run or resume the comparison of a plan in a folder, or judge its answers again: see `runner.run`, `rejudge`."""
    if plan.again is None:
        progress = run(plan, folder, on_progress, control, objects=objects)
    else:
        progress = rejudge(plan, folder, on_progress, control)
    return replace(Comparison.read(folder), left=progress.left)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The results of a comparison; printed, the table of `icrl bench`.

    Attributes:
        folder: where they are saved; `icrl report` and `icrl rejudge` take it.
        plan: what was compared.
        rows: every run, with its answer, its rewards and all attempts, by (arm, item, seed).
        damaged: the lines of results.jsonl, from 1, that could not be read; their runs were repeated.
        left: what a total budget left undone; None if there is nothing.
    """

    folder: Path
    plan: Plan
    rows: Mapping[Cell, Row]
    damaged: Sequence[int] = ()
    left: Left | None = None

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> Comparison:
        """The comparison that `compare` or `icrl bench` saved in a folder.

        Raises:
            ValueError: the folder holds no comparison.
            ThreadMismatch: another version wrote it.
        """
        path = Path(folder)
        return cls(path, read_plan(path), *checked_results(path))

    @property
    def failures(self) -> dict[Cell, str]:
        """The runs that failed, each with the reason; the same call of `compare` repeats them."""
        return {cell: row["error"] for cell, row in self.rows.items() if "error" in row}

    @property
    def unscored(self) -> list[Row]:
        """The runs that have answered without a reward for any attempt, as where a judge gives no verdict."""
        ended = (row for cell, row in self.rows.items() if has_ended(self.rows, cell))
        answered = (row for row in ended if any(answer_of(episode) is not None for episode in row["episodes"]))
        return [row for row in answered if all(value_of(episode) is None for episode in row["episodes"])]

    @property
    def usage(self) -> Usage:
        """What all of its rows have cost; of answers that were judged again, also what they have cost before."""
        return add_usage(*(row.get("usage", {}) for row in self.rows.values()))

    @property
    def spent(self) -> Usage:
        """What its own calls have cost: of answers that were judged again, the judging alone.

        Where a total was spent, with the runs that have not ended.
        """
        if self.left is not None:
            return self.left.spent
        return self.usage if self.plan.again is None else add_usage(*map(judging_cost, self.rows.values()))

    @cached_property
    def summary(self) -> Summary:
        """All figures.

        Raises:
            ValueError: no run has ended.
            MissingExtra: scipy is not installed (extra `report`).
        """
        return summarize(self.plan, self.rows)

    @cached_property
    def registered(self) -> list[str]:
        """What was registered, whether that is what was run, and what has come of it, as sentences; else none."""
        return registered.told(self.folder, self.plan, self.rows, self.summary)

    @cached_property
    def verdict(self) -> Verdict:
        """What it shows, in words: which method is best, how sure that is, who learns, costs, what speaks against it.

        Raises:
            ValueError: no run has ended.
            MissingExtra: scipy is not installed (extra `report`).
        """
        return verdict(self.summary, self.registered)

    @cached_property
    def win_rates(self) -> list[WinRate]:
        """How often each method's answers are better than those of one method: of what `icrl win-rates` has judged.

        Raises:
            ValueError: the answers were not compared with each other, or none of them yet.
            MissingExtra: scipy is not installed (extra `report`).
        """
        return win_rates(self.plan, self.rows)

    @cached_property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Its tables by name, each a list of rows.

        `methods`: an arm a row. `differences`: from the first arm, with intervals and tests; `learning`: the same of
        all attempts. `rounds`, `budgets` and `tasks`: means by round, by what was spent and by task. `runs` and
        `attempts`: everything that they are made of. Rounds and candidates are counted from 1.

        Raises:
            ValueError: no run has ended.
            MissingExtra: scipy is not installed (extra `report`).
        """
        from icrl_graph.benchmarks.report.tables import as_rows

        return {
            **as_rows(self.summary),
            "runs": [_run_row(row) for row in self.rows.values()],
            "attempts": [line for row in self.rows.values() for line in _attempt_rows(row)],
        }

    def to_pandas(self, name: str = "methods") -> Any:
        """A table as a pandas DataFrame; `frame` is the same.

        Args:
            name: of one of `tables`.

        Raises:
            ValueError: there is none of that name, or no run has ended.
            MissingExtra: pandas (extra `pandas`) or scipy (extra `report`) is not installed.
        """
        if name not in self.tables:
            raise ValueError(f"unknown table {name!r}; choose one of {', '.join(map(repr, self.tables))}")
        return notebook.data_frame(self.tables[name])

    frame = to_pandas

    def plot(self, axes: Any = None) -> Any:
        """Draw the mean reward of each method by round, with 95 % intervals over tasks.

        Args:
            axes: of matplotlib, where it is drawn; default those of a new figure.

        Returns:
            The axes.

        Raises:
            ValueError: no run has ended.
            MissingExtra: the extra `report` is not installed.
        """
        from icrl_graph.benchmarks.report.pictures import draw_rewards

        summary = self.summary
        axes = notebook.new_axes() if axes is None else axes
        draw_rewards(summary, axes)
        axes.legend()
        return axes

    def report(
        self,
        path: str | PathLike[str] | None = None,
        *,
        trust: bool = True,
        labels: str | PathLike[str] | None = None,
    ) -> Path:
        """Write the report into the folder: a page with curves, tests, costs and every run; pictures; tables.

        Args:
            path: where a copy of the page goes; default none.
            trust: whether custom parts that the folder names by path may be imported, to show the prompts that they
                make. Not for somebody else's folder.
            labels: a file of human labels of some answers, drawn at random, by which judged scores are corrected; see
                `icrl_graph.benchmarks.labels`.

        Returns:
            The path of the page.

        Raises:
            ValueError: no run has ended.
            MissingExtra: the extra `report` is not installed.
        """
        from icrl_graph.benchmarks.report import write_report

        write_report(self.folder, trust, None if labels is None else Path(labels))
        page = self.folder / "report.html"
        return page if path is None else Path(shutil.copyfile(page, path))

    def __repr__(self) -> str:
        from rich.console import Console

        from icrl_graph.benchmarks.terminal import results

        text = io.StringIO()
        console = Console(file=text, width=WIDTH, color_system=None)
        try:
            for table in results(self):
                console.print(table)
        except (MissingExtra, ValueError) as error:
            text.write(f"No table: {error}.\n")
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, self._ending])

    @property
    def _ending(self) -> str:
        left = "" if self.left is None else f"{self.left}. "
        failed = f"{len(self.failures)} of {len(self.rows)} runs failed. " if self.failures else ""
        return f"{left}{failed}Spent: {cost(self.spent)}. Saved in {self.folder}"

    def _repr_html_(self) -> str:
        from icrl_graph.benchmarks.terminal import results

        try:
            shown = [_as_html(table) for table in results(self)]
            means = {method["arm"]: [point["mean"] for point in method["reward"]] for method in self.summary["methods"]}
            curves = [[arm, notebook.curve_html(values)] for arm, values in means.items()]
        except (MissingExtra, ValueError) as error:
            shown, curves = [f"<div>No table: {notebook.escaped(error)}.</div>"], []
        drawn = [f"<div>{notebook.escaped(arm)}, reward by round</div>{curve}" for arm, curve in curves]
        return f"<div>{''.join([*shown, *drawn])}<div>{notebook.escaped(self._ending)}</div></div>"


def _run_row(row: Row) -> dict[str, Any]:
    names = ("arm", "item", "seed", "error", "answer", "reward", "metric", "regret", "rewarded_by", "stopped")
    values: Mapping[str, Any] = row
    return {**{name: values.get(name) for name in names}, "attempts": len(row.get("episodes", [])), **row["usage"]}


def _attempt_rows(row: Row) -> Iterator[dict[str, Any]]:
    for episode in row.get("episodes", []):
        yield {**{name: row[name] for name in ("arm", "item", "seed")}, **notebook.attempt_row(episode)}


def _as_html(table: Any) -> str:
    """A table or a text for a terminal as HTML."""
    if isinstance(text := getattr(table, "plain", None), str):
        return f"<div>{notebook.escaped(text)}</div>"
    headings, cells = [column.header for column in table.columns], [column.cells for column in table.columns]
    return notebook.html_table(headings, zip(*cells, strict=True), table.title)
