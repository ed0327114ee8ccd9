"""How long it takes until a command shows something, and whether that grows faster than what it reads.

All figures are CPU times of processes of their own, the least of a few: what others do on the machine matters little.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import compare
from icrl_graph.testing import OpenAIServer
from tests.performance.lab import FULL, ROOT, record, serving

REPEATS = 3 if FULL else 1
LANGGRAPH = "from langgraph.graph import StateGraph"
CLIENT = "from langchain_openai import ChatOpenAI"


def _cpu(*arguments: Any, until: str = "", folder: Path = ROOT) -> float:
    """CPU seconds of a Python process; of one that says something, until it has said a line with these words."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        assert process.stdout is not None
        assert not until or any(until in line for line in process.stdout)
        if until:
            process.kill()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
    assert until or status == 0
    return float(used.ru_utime + used.ru_stime)


def _over(what: str, goal: float, command: Callable[[], float], imports: str, told: str) -> float:
    """Record what a command costs over imports that it can't do without."""
    pairs = [(command(), _cpu("-c", imports)) for _ in range(REPEATS)]
    ours, theirs = (float(min(side)) for side in zip(*pairs, strict=True))
    figures = f"{ours / theirs:.2f}x ({1000 * ours:.0f} ms of {1000 * theirs:.0f})"
    record(f"CPU of {what} over {told}", f"<= {goal}x", figures, ours <= goal * theirs)
    return ours / theirs


def test_the_help_of_the_command_line_comes_at_once() -> None:
    ratio = _over("`icrl --help`", 0.5, lambda: _cpu("-m", "icrl_graph", "--help"), LANGGRAPH, "`import StateGraph`")
    assert ratio <= 0.7


def test_a_run_tells_its_first_round_soon_after_its_libraries_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def score(response):\n    return 0.5\n")
    with serving(says="words") as server:
        command = ["-m", "icrl_graph", "run", "Write.", "--evaluator", "score.py:score", "--rounds", "2"]
        command += ["--model", "openai:any", "--base-url", server.base_url]

        def until_the_first_round() -> float:
            return _cpu(*command, until="round 1", folder=tmp_path)

        what, told = "`icrl run` until its first round is told", "`import StateGraph, ChatOpenAI`"
        assert _over(what, 1.2, until_the_first_round, f"{LANGGRAPH}; {CLIENT}", told) <= 1.8


def test_the_demo_begins_soon_after_its_libraries_are_loaded(tmp_path: Path) -> None:
    def until_its_first_output() -> float:
        return _cpu("-m", "icrl_graph", "demo", until="The hidden color is", folder=tmp_path)

    what, told = "`icrl demo` until its first output", "`import StateGraph, numpy`"
    assert _over(what, 1.2, until_its_first_output, f"{LANGGRAPH}; import numpy", told) <= 1.8


# -------------------------------------------------------------------------------------------------------------- growth

READ = "from icrl_graph.benchmarks.api import Comparison\nread = Comparison.read"
REPORT = "from icrl_graph.benchmarks.report import write_report\nread = write_report"
TIMED = """
import sys, time
from pathlib import Path
{imported}
loaded, *folders = map(Path, sys.argv[2:])
read(loaded)
for folder in folders:
    took = []
    for _ in range(int(sys.argv[1])):
        start = time.process_time()
        read(folder)
        took.append(time.process_time() - start)
    print(min(took))
"""
"""A program about folders: the CPU seconds of all but the first, which has loaded what is loaded once."""


def _copied(source: Path, folder: Path, runs: int) -> Path:
    """A comparison of so many runs: those of a small one, again and again, under other names."""
    folder.mkdir()
    (folder / "bench.json").write_bytes((source / "bench.json").read_bytes())
    lines = (source / "results.jsonl").read_text(encoding="utf-8").splitlines()
    with (folder / "results.jsonl").open("w", encoding="utf-8") as file:
        for at in range(runs):
            line = lines[at % len(lines)]
            name = json.loads(line)["item"]
            file.write(line.replace(name, f"task-{at // len(lines)}-{name}") + "\n")
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, with tokens and dollars."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "tasks.jsonl").write_text("".join(f'{{"id": "name{at}", "task": "Do name{at}."}}\n' for at in range(5)))
    with OpenAIServer(lambda messages, rng: "w" * rng.randint(1, 200)) as server:
        compare(
            folder / "tasks.jsonl",
            "icrl,best_of_n",
            model="openai:any",
            base_url=server.base_url,
            evaluator=lambda response: len(response) % 7 / 7,
            rounds=2,
            prices={"any": {"input": 1, "output": 4}},
            folder=folder / "out",
        )
    return folder / "out"


@pytest.mark.parametrize(
    ("what", "imported", "runs", "repeats"),
    [
        ("reading a results folder", READ, 10_000 if FULL else 500, 2),
        ("`icrl report`, what it loads apart,", REPORT, 1_000 if FULL else 50, 1),
    ],
    ids=["results", "report"],
)
def test_ten_times_as_many_runs_take_at_most_ten_times_as_long(
    what: str, imported: str, runs: int, repeats: int, comparison: Path, tmp_path: Path
) -> None:
    folders = [_copied(comparison, tmp_path / str(size), size) for size in (runs, 10 * runs)]
    program = TIMED.format(imported=imported)
    command = [sys.executable, "-c", program, *map(str, (repeats, comparison, *folders))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    few, many = map(float, done.stdout.split())
    growth = many / few / 10
    what = f"CPU of {what} of {10 * runs:,} runs over ten times that of {runs:,}"
    record(what, "<= 1.1x", f"{growth:.2f}x ({many:.2f} s of {few:.3f})", growth <= 1.1)
    assert growth <= 2
