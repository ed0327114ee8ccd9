"""What the tests on a cluster run there: an evaluator that tells which process it is in, and a driver.

`python -m tests.ray_child` runs one comparison after another, each a line of JSON: its plan and its folder. That saves
the start of workers, which belong to their driver.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import Plan
from tests import bench_child

HOME = "ICRL_TEST_HOME"
"""The variable that names the folder where the evaluator writes, the same on all nodes."""


def score(response: str, task: str) -> float:
    """As `bench_child.score`; logs its process, and kills it at the task that stands in the file `poison`."""
    home = Path(os.environ[HOME])
    with (home / "log").open("a") as log:
        log.write(json.dumps([os.getpid(), task]) + "\n")
    poison = home / "poison"
    if poison.exists() and poison.read_text() in task:
        os.kill(os.getpid(), signal.SIGKILL)
    return bench_child.score(response)


def quiet(response: str) -> float:
    """The same, and logs nothing."""
    return bench_child.score(response)


def busy(response: str) -> float:
    """The same, after a fifth of a second of the processor's time."""
    end = time.process_time() + 0.2
    while time.process_time() < end:
        sha256(response.encode()).digest()
    return bench_child.score(response)


def resumed(home: Path) -> int:
    """Tasks that one process has begun and another one has gone on with."""
    logged = [json.loads(line) for line in (home / "log").read_text().splitlines()]
    processes: dict[str, set[int]] = {}
    for pid, task in logged:
        processes.setdefault(task, set()).add(pid)
    return sum(len(each) > 1 for each in processes.values())


def players(home: Path, rounds: int) -> set[int]:
    """The processes of tasks that are begun, and have not been judged as often as they have rounds."""
    logged = [json.loads(line) for line in (home / "log").read_text().splitlines()]
    judged = Counter(task for _, task in logged)
    return {pid for pid, task in logged if judged[task] < rounds}


def _run(plan: dict[str, Any], folder: str, by_value: bool) -> dict[str, Any]:
    objects: dict[str, Any] = {}
    if by_value:
        objects["model"] = lambda messages: f"A function of {__name__}, by value."
    began = time.perf_counter()
    try:
        progress = runner.run(Plan(**plan), Path(folder), objects=objects)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    left = progress.left and str(progress.left)
    seconds = time.perf_counter() - began
    return {"done": progress.done, "failed": len(progress.failed), "left": left, "seconds": seconds}


def main() -> None:
    """Run what standard input says, until it ends."""
    from icrl_graph.benchmarks import on_ray

    answers = sys.stdout
    with redirect_stdout(sys.stderr), on_ray.connected(sys.argv[1]):  # Ray prints which nodes have died
        for line in sys.stdin:
            print(json.dumps(_run(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
