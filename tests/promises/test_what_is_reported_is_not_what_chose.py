"""Where rewards are noisy and the leaders are judged again, the truth is reported, not the luck of what was chosen."""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from statistics import fmean, mean
from typing import Any

import numpy as np
import pytest

from icrl_graph.benchmarks.benchmark import Benchmark
from icrl_graph.benchmarks.experiment import make_plan
from icrl_graph.benchmarks.results import read_results
from icrl_graph.benchmarks.runner import run
from icrl_graph.benchmarks.summary import summarize
from icrl_graph.state.selection import LEADERS, best_again, halves
from icrl_graph.topologies.methods import build

ATTEMPTS = 8


def _reported(retests: int, noise: float, rng: Random) -> float:
    """What is reported of pure noise around 0, as `select` chooses and reports it."""
    firsts = sorted((rng.gauss(0, noise) for _ in range(ATTEMPTS)), reverse=True)[:LEADERS]
    turns = [[rng.gauss(0, noise) for _ in firsts] for _ in range(retests)]
    top = best_again(firsts, turns)
    return fmean(turn[top] for turn in halves(turns)[1])


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("retests", range(1, 9))
def test_what_is_reported_is_within_two_hundredths_of_the_truth(retests: int, noise: float) -> None:
    rng = Random(retests)
    reported = np.array([_reported(retests, noise, rng) for _ in range(6000)])
    assert reported.std() / np.sqrt(len(reported)) < 0.007
    assert abs(reported.mean()) < 0.02


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("retests", [1, 2])
@pytest.mark.parametrize("topology", ["icrl", "reflexion", "best_of_n"])
def test_over_all_that_noise_can_do_a_whole_run_reports_the_truth(topology: str, retests: int, way: str) -> None:
    """Each of two attempts is worth .5, and every judgement is .4 off, up or down: all cases, so the mean is exact."""
    size: Any = {"n" if topology == "best_of_n" else "rounds": 2}
    judged = deque[float]()
    graph = build(topology, lambda: "x", lambda: 0.5 + judged.popleft(), retests=retests, **size).compile()

    def reward(noise: Sequence[float]) -> float:
        judged.extend(noise)
        played: Any = getattr(graph, way)({"task": "t"})
        output = asyncio.run(played) if way == "ainvoke" else played
        return float(output["reward"])

    cases = list(product((-0.4, 0.4), repeat=2 + 2 * retests))
    assert mean(map(reward, cases)) == pytest.approx(0.5)
    assert mean(0.5 + max(first, second) for first, second, *_ in cases) == pytest.approx(0.7)  # without retests


def test_a_comparison_shows_what_its_runs_report_in_all_its_figures(tmp_path: Path) -> None:
    """Rewards of pure noise, .5 on average: the first judgement of the chosen one is .8 on average."""
    rng = Random(0)
    tasks = list(map(str, range(40)))
    benchmark = Benchmark(
        about="noise", items=lambda: tasks, read=_read, evaluator=lambda: rng.random(), solved_at=None
    )
    arms = "icrl+retests=2,best_of_n+retests=2,best_of_n+n=1"
    plan, objects = make_plan(benchmark, arms, model=lambda: "x", rounds=4, solved_at=None)
    run(plan, tmp_path, objects=objects, durable=False)
    rows = read_results(tmp_path).rows
    summary = summarize(plan, rows)
    for method in summary["methods"]:
        own = mean(row["reward"] or 0.0 for cell, row in rows.items() if cell.arm == method["arm"])
        ends = [method["equal"]["reward"], method["answer"][-1], method["budget"]["calls"][-1]["value"]]
        assert [end["mean"] for end in ends] == [pytest.approx(own, abs=1e-6)] * 3
        assert all(point["mean"] < 0.7 for point in method["answer"] if point["mean"] is not None)
    assert all(pair["p"] is not None and pair["p"] > 0.01 for pair in summary["pairs"])


def _read(name: str) -> Any:
    return {"task": f"Task {name}", "task_data": {}}
