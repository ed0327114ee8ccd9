"""Game of 24: the arms. The shipped learner and its controls, on puzzles that no stage of its training has seen.

The arms take one thing away each. Where `icrl` is ahead of `best_of_n` and `no_repeats`, the history is of use; where
it is ahead of `avoid_tried` too, the rewards are, not only the variety; where `zero`, `shuffled` and `hidden` fall
back, it needs its own true rewards; where `outcome` does, it needs those of the steps. `teacher` is the algorithm that
the learner was taught: what there is to reach. All this stands on three base policies: none, a weak and a strong one.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from rich.text import Text
from typing_extensions import TypedDict

from icrl_graph.models.function import FunctionModel
from icrl_graph.models.learners import game24 as learner
from icrl_graph.models.learners.game24 import Strength
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.events import is_episode
from icrl_graph.state.reward import Reward
from icrl_graph.tasks.game24 import game as game24
from icrl_graph.tasks.game24 import puzzles as benchmark
from icrl_graph.tasks.game24.verifier import grade
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from icrl_graph.topologies.settings import Settings

ROUNDS = 16
ARMS = {
    "icrl": "every prompt shows all earlier attempts with the rewards of their steps",
    "best_of_n": "the same model, as many attempts, no history; at its best temperature",
    "no_repeats": "as best_of_n, but no attempt is made twice",
    "avoid_tried": "the base policy, avoiding every step that was tried; no rewards",
    "zero": "as icrl, but every reward is shown as 0",
    "shuffled": "as icrl, but the rewards shown are other puzzles' rewards",
    "hidden": "as icrl, but no rewards are shown",
    "outcome": "as icrl, but no rewards of steps are shown; of the total it reads only whether the puzzle was solved",
    "teacher": "an explicit search that prunes what is known to fail: what the learner was taught",
}
UNREWARDED = ("best_of_n", "no_repeats", "avoid_tried", "zero", "shuffled", "hidden")
"""The arms that see no true reward."""
BASES: Mapping[Strength, Sequence[str]] = {
    "none": tuple(ARMS),
    "weak": tuple(ARMS),
    "strong": ("icrl", "best_of_n", "avoid_tried", "zero"),
}
"""The base policies, and the arms that are played on each."""
TEMPERATURES: Mapping[Strength, float] = {"none": 0.5, "weak": 1.4, "strong": 1.0}
"""Of best_of_n and no_repeats: of 0.5, 0.7, 1, 1.4, 2 and 3 the one at which best_of_n solves most of the validation
puzzles within 16 attempts; of equals, 1."""


class Row(TypedDict):
    """One attempt, as a line of results.jsonl."""

    base: str
    arm: str
    puzzle: str
    round: int
    response: str | None
    reward: float | None
    steps: list[float | None]
    """The true reward of each step."""
    solved: bool


def processors() -> int:
    """How many processes are worth starting here."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 61)  # the most that Windows allows a pool


def choose(count: int, seed: int) -> list[game24.Numbers]:
    """Held-out puzzles, the same for the same seed."""
    return Random(seed).sample(game24.split("test"), count)


def held_out(rows: Mapping[int, Sequence[int]]) -> tuple[list[game24.Numbers], list[str]]:
    """Those puzzles of a ranked list that the learner may be measured on, and, with the reason, those it may not."""
    kept, left_out = [], []
    for row, numbers in rows.items():
        puzzle = tuple(sorted(numbers))
        if puzzle in game24.split("test"):
            kept.append(puzzle)
            continue
        why = next(
            (f"is in the {name} split" for name in ("train", "validation") if puzzle in game24.split(name)),
            "needs fractions",
        )
        left_out.append(f"row {row}, {' '.join(map(str, puzzle))}: {why}")
    return kept, left_out


def opening(seed: int) -> Iterator[Text]:
    """One puzzle, told as it goes: green steps still lead to 24, red ones do not."""
    (puzzle,) = choose(1, seed)
    yield Text(f"Make 24 of {' '.join(map(str, puzzle))}. The learner sees what it tried and the rewards of its steps.")
    graph = _graph("none", "icrl", ()).compile()
    for event in _attempts(graph, puzzle, Settings(seed=seed, target=1.0)):
        line = Text(f"  round {event['round'] + 1:<3} ")
        for step, worth in zip(event["response"].splitlines(), event["steps"], strict=False):
            line.append(f"{step.split(' (')[0]:<14} ", style="green" if worth else "red")
        yield line.append("solved" if event["metric"] else "")
    yield Text()


def play(
    puzzles: Sequence[game24.Numbers],
    seed: int,
    progress: Callable[[str, int], None] | None = None,
    workers: int = 1,
) -> Iterator[Row]:
    """Play all arms on all bases.

    Args:
        puzzles: what to play; two or more, for the rewards of other puzzles.
        seed: seeds every attempt.
        progress: called with the base and the arm, as "none icrl", and the number of puzzles done.
        workers: processes; the rows are the same for any number. More than one needs a guarded main module.
    """
    seeded = [(puzzle, Random(f"{seed}/{puzzle}").getrandbits(31)) for puzzle in puzzles]
    size = min(5, math.ceil(len(seeded) / 2))
    chunks = [seeded[at : at + size] for at in range(0, len(seeded), size)]
    seen: dict[str, list[Row]] = {base: [] for base in BASES}
    arms = [(base, arm) for base, names in BASES.items() for arm in names]
    with _pool(workers) as run:
        for late in (False, True):  # the rewards of other puzzles are known only once icrl has played
            jobs = [
                _Job(base, arm, tuple(chunk), _of_others(seen[base], chunk) if late else ())
                for base, arm in arms
                if (arm == "shuffled") == late
                for chunk in chunks
            ]
            done: dict[tuple[str, str], int] = {}
            for job, rows in zip(jobs, run(_play, jobs), strict=True):
                for row in rows:
                    if job.arm == "icrl":
                        seen[job.base].append(row)
                    yield row
                done[job.base, job.arm] = done.get((job.base, job.arm), 0) + len(job.puzzles)
                if progress is not None:
                    progress(f"{job.base} {job.arm}", done[job.base, job.arm])


class _Job(NamedTuple):
    """Some puzzles of one arm, for one process."""

    base: Strength
    arm: str
    puzzles: tuple[tuple[game24.Numbers, int], ...]
    """With their seeds."""
    pool: tuple[Reward, ...] = ()
    """For `shuffled`: what icrl earned on other puzzles."""


def _of_others(rows: Sequence[Row], chunk: Sequence[tuple[game24.Numbers, int]]) -> tuple[Reward, ...]:
    own = {" ".join(map(str, puzzle)) for puzzle, _ in chunk}
    return tuple(Reward(value=row["reward"], steps=row["steps"]) for row in rows if row["puzzle"] not in own)


def _play(job: _Job) -> list[Row]:
    graph = _graph(job.base, job.arm, job.pool).compile(name=job.arm)
    return [
        Row(
            base=job.base,
            arm=job.arm,
            puzzle=" ".join(map(str, puzzle)),
            round=event["round"] + event["candidate"],  # candidates stand side by side, in the place of rounds
            response=event["response"],
            reward=event["reward"],
            steps=event["steps"],
            solved=event["metric"] == 1.0,
        )
        for puzzle, seed in job.puzzles
        for event in _attempts(graph, puzzle, Settings(seed=seed))
    ]


def _attempts(graph: Any, puzzle: game24.Numbers, settings: Settings) -> Iterator[Any]:
    return filter(is_episode, graph.stream(benchmark.task(puzzle), context=settings, stream_mode="custom"))


def _graph(base: Strength, arm: str, pool: Sequence[Reward]) -> Any:
    """The graph of an arm."""

    def model(rule: game24.Rule | None = None) -> FunctionModel:
        reply = learner.reply(base) if rule is None else game24.player(rule, learner.base(base))
        return FunctionModel(reply=reply, name=f"{base} {arm}")

    if arm == "best_of_n":
        return create_best_of_n(model(), grade, n=ROUNDS, sampling={"default": {"temperature": TEMPERATURES[base]}})
    if arm == "no_repeats":
        once = game24.without_repeats(game24.player(lambda history, rng: learner.recall([], rng), learner.base(base)))
        return create_icrl(
            FunctionModel(reply=once, temperature=TEMPERATURES[base]), grade, rounds=ROUNDS, show="hidden"
        )
    if arm == "avoid_tried":
        return create_icrl(model(game24.avoid_tried), grade, rounds=ROUNDS, show="hidden")
    if arm == "teacher":
        return create_icrl(model(game24.prune), grade, rounds=ROUNDS)
    show: Any = {"icrl": "true", "shuffled": shuffled(pool) if pool else None}.get(arm, arm)
    return create_icrl(model(), grade, rounds=ROUNDS, show=show)


@contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, in this process or in several."""
    if workers == 1:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    pool = ProcessPoolExecutor(workers, spawn, _begin_worker)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that started this one, and end when that one does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
