"""The demos: what learns in its context against its controls, on held-out tasks.

A demo is one comparison or more, as of `icrl bench`, and what it says of them: a module with `opening` (one game, step
by step), `plans` (its comparisons, by the name of the folder of each), `summarize`, `report` (what the figures say) and
`plot`. What they share is here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row, read_results
from icrl_graph.benchmarks.scheduler import OnProgress

Rows = Mapping[Cell, Row]
"""Of one comparison."""


def play(
    plans: Mapping[str, Plan],
    folder: Path,
    progress: Callable[[str, int], None] | None = None,
    workers: int | None = None,
) -> dict[str, Rows]:
    """Run the comparisons of a demo.

    Args:
        plans: by the name of the folder of each; "" is `folder` itself.
        folder: where they are saved.
        progress: called with a name and the number of runs that have ended.
        workers: processes, at most and by default one for each plan. More than one needs a guarded main module.

    Returns:
        The rows by name; for any number of processes the same.

    Raises:
        RuntimeError: a run or a process failed.
    """
    on_progress = progress or (lambda name, done: None)
    processes = min(workers or len(plans), len(plans))
    if processes == 1:
        for name, plan in plans.items():
            _run(plan, folder / name, lambda made, name=name: on_progress(name, made.done))  # type: ignore[misc]
    else:
        _run_side_by_side(plans, folder, on_progress, processes)
    rows: dict[str, Rows] = {name: read_results(folder / name).rows for name in plans}
    if failed := [row["error"] for made in rows.values() for row in made.values() if "error" in row]:
        raise RuntimeError(f"{len(failed)} runs failed: {failed[0]}")
    return rows


def _run(plan: Plan, folder: Path, on_progress: OnProgress = lambda progress: None) -> None:
    runner.run(plan, folder, on_progress, durable=plan.concurrency > 1)  # runs that aren't saved are made one by one


def _run_side_by_side(
    plans: Mapping[str, Plan], folder: Path, on_progress: Callable[[str, int], None], workers: int
) -> None:
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    waiting, running = list(plans), dict[str, SpawnProcess]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                running[name] = spawn.Process(target=_work, args=(plans[name], folder / name), name=name)
                with _without_ctrl_c():
                    running[name].start()
            wait([process.sentinel for process in running.values()], timeout=0.5)
            for name in plans:
                on_progress(name, _lines(folder / name / "results.jsonl"))
            for name in [name for name, process in running.items() if process.exitcode is not None]:
                if exitcode := running.pop(name).exitcode:
                    raise RuntimeError(f"the process of the runs {name} ended with the exit code {exitcode}")
    finally:
        for process in running.values():
            process.terminate()
            process.join()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Have a Ctrl-C wait until the block is left; in what is started within, until it has said what it does at one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else the start does it, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _work(plan: Plan, folder: Path) -> None:
    """Run a comparison, leave Ctrl-C to the process that started this one, and end when that one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _run(plan, folder)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
