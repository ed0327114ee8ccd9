"""Many tasks in one process, through HTTP: rounds a second and core, connections, memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.performance.lab import FULL, ROOT, child, full_only, record, serving

TASKS, ROUNDS = (1000, 10)
TEXT = (350 + 500 * ROUNDS) / 1000
"""KB of text in a task."""


def _play(set_up: str, tasks: int, rounds: int, latency: float = 0.2) -> tuple[dict[str, Any], float]:
    """What a set-up takes, and how many connections it opens for each task."""
    with serving(latency) as server:
        took = child("loops", set_up, tasks, rounds, server.base_url)
        return took, (server.counts()["connections"] - 1) / tasks


def _rate(took: dict[str, Any]) -> float:
    """Rounds a second of one core's time."""
    return float(took["rounds"] / took["cpu"])


@full_only
def test_a_thousand_tasks_in_one_process() -> None:
    (ours, _), (bare, _), (naive, _), (few, _), (kept, _), (shared, _) = (
        _play(set_up, TASKS, ROUNDS)
        for set_up in ("ours", "bare", "naive", "ours-few-files", "ours-sqlite", "ours-one-file")
    )
    figures = f"{_rate(ours) / _rate(naive):.2f}x ({_rate(ours):.0f} of {_rate(naive):.0f})"
    met = _rate(ours) >= 2.9 * _rate(naive)
    record("rounds a second and core at 1000 tasks of 200 ms, no saver, over the naive set-up", ">= 2.9x", figures, met)
    figures = f"{_rate(ours) / _rate(bare):.2f}x ({_rate(ours):.0f} of {_rate(bare):.0f})"
    record("the same over a bare loop with our client", ">= 0.58x", figures, _rate(ours) >= 0.58 * _rate(bare))
    figures = f"{_rate(few):.0f}; a file each {_rate(kept):.0f}, all in one file {_rate(shared):.0f}"
    record("rounds a second and core at 1000 tasks, SQLite and journal", "stated", figures, True)
    memory = [took["grown"] / TASKS / 1000 - TEXT for took in (few, shared, kept, ours)]
    what = "KB of memory for each of 1000 tasks in flight, above its text"
    record(f"{what}, SQLite, a few files, as in `icrl bench`", "<= 160", f"{memory[0]:.0f}", memory[0] <= 160)
    record(f"{what}, SQLite, all in one file", "stated", f"{memory[1]:.0f}", True)
    record(f"{what}, SQLite, a file each", "stated", f"{memory[2]:.0f}", True)
    record(f"{what}, no saver", "stated", f"{memory[3]:.0f}", True)
    assert _rate(ours) > 1.5 * _rate(naive)


def test_a_task_keeps_its_connection() -> None:
    tasks = 500 if FULL else 40
    _, connections = _play("ours", tasks, 4)
    record(f"connections opened for each of {tasks} tasks", "<= 1.05", f"{connections:.2f}", connections <= 1.05)
    assert connections <= 1.05


@full_only
def test_a_comparison_of_a_thousand_runs_at_once(tmp_path: Path) -> None:
    """Through the command line, every run kept until its row is written."""
    (tmp_path / "tasks.jsonl").write_text("".join(f'{{"id": "{i}", "task": "Task {i}."}}\n' for i in range(1000)))
    (tmp_path / "score.py").write_text("def score(response):\n    return len(response) % 7 / 7\n")
    with serving(0.2) as server:
        arguments = ["bench", str(tmp_path / "tasks.jsonl"), "--evaluator", f"{tmp_path / 'score.py'}:score"]
        arguments += ["--model", "openai:any", "--base-url", server.base_url, "--topologies", "icrl", "--rounds", "3"]
        arguments += ["--concurrency", "1000", "--limit", "1000", "--out", str(tmp_path / "out")]
        command = [sys.executable, "-m", "icrl_graph", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
        assert server.counts()["calls"] == 3000
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sum("error" not in row for row in rows) == 1000
    record("runs of `icrl bench --concurrency 1000` that end with a row", "1000", "1000", True)
