"""Benchmarks by name: those that this package ships, those of installed packages, and custom ones by path.

An installed package offers its benchmarks as entry points of the group `icrl_graph.benchmarks`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks import games, scienceworld
from icrl_graph.benchmarks.benchmark import Benchmark, Inputs, from_data
from icrl_graph.benchmarks.datasets import HUB, is_data_set, split_name
from icrl_graph.benchmarks.judges import judge_game24, judge_writing, judge_writing_relative
from icrl_graph.benchmarks.mathematics import MATHEMATICS
from icrl_graph.environments.rollouts import episode_return
from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.prompts.templates import WRITING_RUBRIC
from icrl_graph.state.choices import find, installed
from icrl_graph.state.loading import absolute
from icrl_graph.state.reward import UNSCORED
from icrl_graph.tasks import hidden_color
from icrl_graph.tasks.abstracts import items as abstracts
from icrl_graph.tasks.abstracts.overlap import recall
from icrl_graph.tasks.abstracts.texts import PAPERS
from icrl_graph.tasks.game24 import game as puzzles
from icrl_graph.tasks.game24 import puzzles as game24
from icrl_graph.tasks.game24.verifier import grade
from icrl_graph.tasks.word_games import instances as word_games
from icrl_graph.tasks.word_games.answers import earned
from icrl_graph.tasks.writing import items as writing
from icrl_graph.tasks.writing.verifier import endings

logger = logging.getLogger(__name__)

OWN = "@"
"""Between a benchmark and the file of its tasks, as in "game24@24.csv"."""


def _exact(verifier: Evaluator) -> BoundEvaluator:
    """A verifier that judges every answer: what it raises is a fault of the task data, and never a 0."""
    return replace(bind_evaluator(verifier), on_error=UNSCORED)


def _hidden_color(text: str) -> Inputs:
    secret = hidden_color.read_color(text)
    if secret is None:
        raise ValueError(f"a color is written like '#3b9', got {text!r}")
    return hidden_color.task(secret)


def _ranked_puzzles(path: str) -> Mapping[str, Inputs]:
    return {",".join(map(str, puzzle)): game24.task(puzzle) for puzzle in game24.paper_rows(path).values()}


def _published_items(path: str) -> Mapping[str, Inputs]:
    items, left_out = writing.load(path)
    for line in left_out:
        logger.warning("%s, %s; it is left out", path, line)
    return {str(number): writing.task(item) for number, item in enumerate(items)}


def _papers(path: str) -> Mapping[str, Inputs]:
    return {str(number): abstracts.task(paper) for number, paper in enumerate(abstracts.load(path))}


BENCHMARKS: Mapping[str, Benchmark] = {
    "hidden-color": Benchmark(
        about="1000 held-out colors to guess from how close each guess was",
        items=lambda: [hidden_color.write_color(color) for color in hidden_color.colors("test")],
        read=_hidden_color,
        evaluator=_exact(hidden_color.closeness),
        model="learner:hidden-color",
    ),
    "game24": Benchmark(
        about="400 held-out puzzles: make 24 of four numbers; each step is rewarded",
        items=lambda: [",".join(map(str, puzzle)) for puzzle in puzzles.split("test")],
        read=lambda text: game24.task(game24.read_puzzle(text)),
        evaluator=_exact(grade),
        judged=judge_game24,
        model="learner:game24",
        own=_ranked_puzzles,
    ),
    "writing": Benchmark(
        about="100 times four paragraphs that end with given sentences; give a judge for their coherence",
        items=lambda: [str(number) for number in range(writing.ITEMS)],
        read=lambda text: writing.task(writing.read_item(text)),
        evaluator=_exact(endings),
        judged=judge_writing,
        rubric=WRITING_RUBRIC,
        own=_published_items,
    ),
    "writing-relative": Benchmark(
        about="the same, where a judge scores the passage relative to a fixed one, as in arXiv 2506.06303",
        items=lambda: [str(number) for number in range(writing.ITEMS)],
        read=lambda text: writing.task(writing.read_item(text)),
        judged=judge_writing_relative,
        rubric=WRITING_RUBRIC,
        own=_published_items,
    ),
    "abstracts": Benchmark(
        about="12 abstracts to write from their titles, rewarded by the words in common; needs the extra abstracts",
        items=lambda: [str(number) for number in range(len(PAPERS))],
        read=lambda text: abstracts.task(abstracts.read_item(text)),
        evaluator=_exact(recall),
        solved_at=None,
        own=_papers,
    ),
    "words": Benchmark(
        about="3840 games in English with a secret to find by its rewards: other games, new words, new wordings",
        items=word_games.items,
        read=lambda text: word_games.read_item(text).inputs(),
        evaluator=_exact(earned),
        limit=60,
        options={"schedule": "plain"},  # with the layout "turns", the default: a chat of answers and rewards alone
    ),
    **MATHEMATICS,
    "games": Benchmark(
        about="11 games whose attempts are episodes of one hidden instance: ORBIT's seven, and smaller ones",
        items=games.items,
        read=games.read_item,
        evaluator=_exact(episode_return),
        player=games.player,
        rounds=3,
        limit=110,
        options={"schedule": "plain"},
    ),
    "scienceworld": Benchmark(
        about="29 tasks of school science by text, 15 actions an attempt, as in arXiv 2506.06303; needs Java",
        items=scienceworld.paper_items,
        read=lambda text: scienceworld.task(scienceworld.read_item(text)),
        evaluator=_exact(episode_return),
        metric=_exact(scienceworld.final_score),
        player=lambda model: scienceworld.player(model, scienceworld.PAPER_STEPS),
        rounds=scienceworld.PAPER_ROUNDS,
        options={"warmup": scienceworld.PAPER_WARMUP},
        model="icrl_graph.environments.players:explore",
    ),
    "scienceworld-orbit": Benchmark(
        about="251 test variations of 6 tasks, 3 episodes of 15 actions each, as in ORBIT's evaluation; needs Java",
        items=scienceworld.orbit_items,
        limit=None,
        read=lambda text: scienceworld.task(scienceworld.read_item(text, simplification="")),
        evaluator=_exact(episode_return),
        metric=_exact(scienceworld.final_score),
        player=lambda model: scienceworld.player(model, scienceworld.PAPER_STEPS),
        rounds=scienceworld.ORBIT_EPISODES,
        options={"schedule": "plain", "show": "outcome"},
        model="icrl_graph.environments.players:explore",
    ),
    "scienceworld-test": Benchmark(
        about="up to 10 test variations of each of 30 tasks of school science, 100 actions an attempt; needs Java",
        items=scienceworld.test_items,
        limit=None,
        read=lambda text: scienceworld.task(scienceworld.read_item(text)),
        evaluator=_exact(episode_return),
        metric=_exact(scienceworld.final_score),
        player=lambda model: scienceworld.player(model, scienceworld.TEST_STEPS),
        model="icrl_graph.environments.players:explore",
    ),
}
"""The shipped ones, by name."""


def find_benchmark(name: str | Benchmark) -> Benchmark:
    """A benchmark by name.

    Args:
        name: of a shipped benchmark; an entry point of the group `icrl_graph.benchmarks`; "path.py:name" or
            "module:name" of a custom `Benchmark`; a shipped one with the user's copy of the published tasks, such as
            "game24@24.csv", "writing@data_100_random_text.txt" or "abstracts@papers.jsonl"; a data set, such as a
            .jsonl file of tasks or "hf:owner/name?task=problem,target=answer" (see `icrl_graph.benchmarks.datasets`);
            or the `Benchmark` itself.

    Raises:
        ValueError: there is none of that name, it is not a `Benchmark`, or the file can't be read.
    """
    if isinstance(name, str) and (own := _split_own(name)):
        return _with_own_tasks(*own)
    if isinstance(name, str) and is_data_set(name):
        return from_data(*split_name(name))
    try:
        benchmark: Any = find("benchmark", _shipped(name) or name, BENCHMARKS)
    except ValueError as error:
        about_tasks = '; or give tasks as a .jsonl file with a line {"task": "...", "task_data": {...}} for each'
        raise ValueError(f"{error}{'' if ':' in str(name) else about_tasks}") from error
    if not isinstance(benchmark, Benchmark):
        raise ValueError(f"{name!r} is not a Benchmark: {benchmark!r:.80}")
    return benchmark


def _split_own(name: str) -> tuple[str, str] | None:
    """The shipped benchmark and the file that a name such as "game24@24.csv" names; None if it names none."""
    benchmark, mark, path = name.partition(OWN)
    shipped = _shipped(benchmark)
    return (shipped, path) if mark and shipped else None


def _with_own_tasks(name: str, path: str) -> Benchmark:
    shipped = BENCHMARKS[name]
    if shipped.own is None:
        able = ", ".join(other for other, found in BENCHMARKS.items() if found.own is not None)
        raise ValueError(f"{name} takes no file of tasks; {able} do, as in game24{OWN}24.csv")
    try:
        stat = Path(path).stat()
        tasks = _own_tasks(name, str(Path(path).resolve()), (stat.st_mtime_ns, stat.st_size))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the tasks of {name}{OWN}{path} can't be read: {error}") from None

    def read(text: str) -> Inputs:
        if text not in tasks:
            raise ValueError(f"{path} has no task {text!r}; they are {', '.join([*tasks][:5])}, ...")
        return tasks[text]

    return replace(shipped, about=f"{name}, with the tasks of {path}", items=lambda: list(tasks), read=read)


@lru_cache(maxsize=4)
def _own_tasks(name: str, path: str, changed: tuple[int, int]) -> Mapping[str, Inputs]:
    """The tasks of a file, read once for each time that it was changed."""
    own = BENCHMARKS[name].own
    assert own is not None
    return own(path)


def _shipped(name: Any) -> str | None:
    """The name of a shipped benchmark, which may be written with underscores."""
    return dashed if isinstance(name, str) and (dashed := name.replace("_", "-")) in BENCHMARKS else None


def shipped_name(name: str) -> str | None:
    """The shipped benchmark that a name is of, also with a file of its tasks; None if it is of none."""
    return _shipped(name.partition(OWN)[0])


def canonical(name: str) -> str:
    """The name under which a comparison is saved, so that it can be resumed in any folder."""
    if own := _split_own(name):
        return f"{own[0]}{OWN}{Path(own[1]).resolve()}"
    if is_data_set(name):
        source, mark, fields = name.rpartition("?") if "?" in name else (name, "", "")
        return name if source.startswith(HUB) else f"{Path(source).resolve()}{mark}{fields}"
    return _shipped(name) or absolute(name)


_CUSTOM_ITEM = re.compile(
    r"(\S+\.py:\w+|\S+(?i:\.jsonl|\.csv|\.parquet)(?:\?\S+)?|hf:[^\s:/]+/[^\s:]+):(\S.*)", re.DOTALL
)
"""Of a custom benchmark or a data set; no prompt begins like this."""


def canonical_item(text: str) -> str:
    """A text as `find_item` reads it, with the file of its benchmark as an absolute path; all else as it is."""
    custom = _CUSTOM_ITEM.fullmatch(text)
    return f"{canonical(custom[1])}:{custom[2]}" if custom else text


@dataclass(frozen=True)
class Item:
    """One task of a benchmark."""

    inputs: Inputs
    benchmark: Benchmark


def find_item(text: str) -> Item | None:
    """The item that a text names; None if it names no benchmark.

    Args:
        text: such as "game24:4,5,6,10", "mine.py:BENCHMARK:first" or, by its id or the number of its line,
            "tasks.jsonl:3".

    Raises:
        ValueError: the benchmark has no such item, or can't be read.
    """
    custom = _CUSTOM_ITEM.fullmatch(text)
    name, colon, item = (custom[1], ":", custom[2]) if custom else text.partition(":")
    if not custom and not (colon and (_shipped(name) or name in installed("benchmark"))):
        return None
    benchmark = find_benchmark(name)
    return Item(benchmark.inputs(item), benchmark)
