"""The tables of papers as data: what each row plays, what was published for it, and where this package differs.

Published figures are in the unit of their table, each with its place; what is known from a plot or from somebody
else's account says so, and what is not known is left out. `{rounds}`, `{samples}` and `{matched}` in an arm are the
rounds that are played, the samples of Best-of-N at as many rounds, and those that take as many tokens as the first row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from icrl_graph.benchmarks.statistics import task_means
from icrl_graph.benchmarks.summary import Table

ICRL_PAPER, ORBIT_PAPER = "arXiv 2506.06303", "arXiv 2602.04089"
SAME = "same"
"""As a judge: the model that is judged."""
PAPER_ORDER = "{} of three groups (order of curves, Figure 3)"


class Reading(NamedTuple):
    """What of the runs of an arm is held against a published figure."""

    measure: str
    """success, metric or reward; it says whether the values are shares."""
    read: Callable[[Table], Any]
    """An array (tasks, seeds)."""
    scale: float = 100.0
    """Of a table in per cent or points, in which scores are shares."""


SOLVED = Reading("success", lambda table: table.answered("success")[..., -1])
"""Whether the answer solves the task: what the method itself has selected."""
ANY = Reading("success", lambda table: np.fmax.accumulate(table.success, axis=2)[..., -1])
"""Whether any attempt does: selected by the true outcome."""
EACH = Reading("success", lambda table: _mean_of_attempts(table.success))
"""The share of attempts that do."""
HIGHEST_METRIC = Reading("metric", lambda table: np.fmax.accumulate(table.metric, axis=2)[..., -1])
HIGHEST_REWARD = Reading("reward", lambda table: table.best[..., -1], scale=1.0)
METRIC_OF_ANSWER = Reading("metric", lambda table: table.answered("metric")[..., -1], scale=1.0)


def _mean_of_attempts(values: Any) -> Any:
    tasks, seeds, rounds = values.shape
    return task_means(values.reshape(tasks * seeds, rounds, 1)).reshape(tasks, seeds)


def _at(table: Table, measure: str, episode: int, *, after_failure: bool = False) -> Any:
    values = getattr(table, measure)
    values = np.where(table.had_success, np.nan, values) if after_failure else values
    return values[..., episode - 1] if episode <= values.shape[2] else np.full(values.shape[:2], np.nan)


class Published(NamedTuple):
    """A figure as it was published, in the unit of its table; a text where only an order is known."""

    value: float | str
    source: str
    model: str = ""
    """What the name of its model holds, where a table has several."""
    error: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as the paper calls the method.
        arm: what plays it.
        reading: what of it is told; None for how often the answers of the first row are better than its own.
        published: the figures that are known.
        note: how it is read or played.
    """

    name: str
    arm: str
    reading: Reading | None
    published: Sequence[Published] = ()
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A comparison that a table is made from.

    Attributes:
        benchmark: its tasks.
        rows: the first is ICRL's.
        rounds: of the paper.
        tasks: of the paper.
        model: of the paper.
        judge: gives the rewards; None for the exact verifier or the environment, SAME for the model.
        pair_judge: compares answers in pairs, where the table has win rates.
        data: the published file that has the tasks, where they are not this package's own.
        where: where that file is from.
        own: the benchmark of this package's own tasks, where that is another one.
        options: that all arms share.
        fair: the rows that --fair adds.
        samples: of Best-of-N, at the rounds of the paper; 0 for one each round.
        differs: where it is played otherwise than in the paper.
    """

    benchmark: str
    rows: Sequence[Row]
    rounds: int
    tasks: int
    model: str
    judge: str | None = None
    pair_judge: str | None = None
    data: str = ""
    where: str = ""
    own: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: {"layout": "transcript"})
    fair: Sequence[Row] = ()
    samples: int = 0
    differs: Sequence[str] = ()


@dataclass(frozen=True)
class Preset:
    """A table of a paper.

    Attributes:
        title: what it shows, and in which unit.
        source: paper and table.
        parts: the comparisons, each in a folder of its own.
        notes: what else was published.
    """

    title: str
    source: str
    parts: Sequence[Part]
    notes: Sequence[str] = ()


def _in(place: str, value: float | str, model: str = "", error: float | None = None) -> tuple[Published, ...]:
    return (Published(value, place, model, error),)


def _tuned(reading: Reading | None) -> tuple[Row, ...]:
    """Equal tokens, and each baseline in several settings."""
    return (
        Row("Best-of-N, as many tokens as ICRL", "best_of_n+n={matched}", reading, note="N by what was spent"),
        Row("ICRL without its history", "icrl+memory=none", reading),
        Row("Reflexion, last 3 plans", "reflexion", reading),
        Row("Reflexion, last plan", "reflexion+memory=reflections:1", reading),
        Row("Self-Refine, last 3 answers", "self_refine+memory=last:3", reading),
        Row("Self-Refine, last answer", "self_refine+memory=last:1", reading),
    )


REFLEXION = "reflexion+memory=reflections:{rounds}"
AUTONOMOUS = "icrl+schedule=autonomous"
LONG_COT, COT = "best_of_n+n=1+schedule=long_cot", "best_of_n+n=1+schedule=cot"
TOT = "src/tot/data/{} of github.com/princeton-nlp/tree-of-thought-llm"
_WORDS = "the instructions are worded by this package, in the sense of the paper's three"
_NO_EXAMPLES = "no few-shot examples; the paper's code has five in Game of 24 and one in ScienceWorld"
_SELF_REFINE = "Self-Refine asks for its feedback in a call of its own"
_STEPS = "rewards of steps stand on one line after the attempt, not each after its step"

GAME24 = Part(
    "game24",
    (
        Row("ICRL Preset", "icrl", SOLVED, _in("Table 1", 90)),
        Row("ICRL Autonomous", AUTONOMOUS, SOLVED, _in("Table 1", 84)),
        Row("Best-of-N", "best_of_n", ANY, _in("Table 1", 49), "selected by the true outcome, as in the paper"),
        Row("Self-Refine", "self_refine", SOLVED, _in("Table 1", 47)),
        Row("Long-CoT", LONG_COT, SOLVED, _in("Table 1", 47)),
        Row("Reflexion", REFLEXION, SOLVED, _in("Table 1", 44)),
        Row("CoT", COT, SOLVED, _in("Table 1", 6)),
    ),
    rounds=50,
    tasks=100,
    model="openai:gpt-4.1",
    judge=SAME,
    data="24.csv",
    where=TOT.format("24"),
    fair=(
        Row("Best-of-N, by its reward", "best_of_n", SOLVED, note="selected by what the methods see"),
        Row("ICRL Preset, by the outcome", "icrl", ANY, note="selected as Best-of-N is in the paper"),
        Row("Self-Refine, by the outcome", "self_refine", ANY),
        *_tuned(SOLVED),
    ),
    differs=(
        "the answer of ICRL and Reflexion is the attempt with the highest reward, that of Self-Refine its last one; "
        "which one counts in the paper is not known here",
        "steps are judged 3, 1 or 0 and the answer 10 or 0, as in the paper's code; the paper says 0 to 3 for each",
        _STEPS,
        _WORDS,
        _NO_EXAMPLES,
        _SELF_REFINE,
    ),
)

WRITING = Part(
    "writing-relative",
    (
        Row("ICRL Preset", "icrl", HIGHEST_REWARD, note="its mean coherence, from 1 to 10; no figure is known"),
        Row("Reflexion", REFLEXION, None, _in("Table 2", 59.48)),
        Row("Long-CoT", LONG_COT, None, _in("Table 2", 78.36)),
        Row("Self-Refine", "self_refine", None, _in("Table 2", 86.32)),
        Row("Best-of-N", "best_of_n", None, _in("Table 2", 93.81)),
    ),
    rounds=50,
    tasks=100,
    model="openai:gpt-4.1",
    judge=SAME,
    pair_judge="openai:gpt-4-turbo",
    data="data_100_random_text.txt",
    where=TOT.format("text"),
    fair=_tuned(None),
    differs=(
        "win rates at equal length are AlpacaEval 2's in their minimal form, without the difficulty of its own "
        "instructions; each pair is judged in both orders",
        "the passage that scores are relative to is this package's; the first attempt is judged, too",
        "all attempts are shown; the paper's code shows the last 25",
        "the lines of the published file that don't split into four sentences are left out",
        _WORDS,
        _SELF_REFINE,
    ),
)

SCIENCEWORLD = Part(
    "scienceworld",
    (
        Row("ICRL Preset", "icrl", HIGHEST_METRIC, _in("a survey's account, not the paper", 88, error=0.7)),
        Row("ICRL Autonomous", AUTONOMOUS, HIGHEST_METRIC),
        Row("Reflexion", REFLEXION, HIGHEST_METRIC),
        Row("Self-Refine", "self_refine", HIGHEST_METRIC),
        Row("Best-of-N", "best_of_n", HIGHEST_METRIC),
        Row("ReAct", "react", HIGHEST_METRIC, note="one episode"),
    ),
    rounds=40,
    tasks=29,
    model="openai:gpt-4.1-mini",
    fair=_tuned(HIGHEST_METRIC),
    differs=(
        "29 tasks, variation 0, as in the paper's code; the paper says 30",
        "the model sees the rewards of the current episode, which the paper shows to Reflexion and Self-Refine alone",
        "free text is matched to actions by its letters; in the paper by embeddings",
        "a wrong focus makes the return -100, which counts as 0 here",
        _WORDS,
        _NO_EXAMPLES,
    ),
)


def _olympiad(benchmark: str, base: Sequence[Published], icrl: Sequence[Published]) -> Part:
    return Part(
        benchmark,
        (
            Row("ICRL Preset", "icrl", ANY, icrl, "selected by the right answer, as in the paper"),
            Row("Reflexion", REFLEXION, ANY),
            Row("Self-Refine", "self_refine", ANY),
            Row("Base", "best_of_n", EACH, base, "the mean of single attempts"),
            Row("Best-of-N", "best_of_n", ANY, note="pass@N; not in the paper"),
        ),
        rounds=40,
        tasks=30,
        model="openai:Qwen/Qwen3-32B",
        judge="openai:virtuoussy/Qwen2.5-7B-Instruct-RLVR",
        own="math-demo",
        fair=(
            Row("ICRL Preset, by its reward", "icrl", SOLVED),
            Row("Best-of-N, by its reward", "best_of_n", SOLVED),
            Row("Best-of-N, by the majority", "best_of_n+select=majority", SOLVED, note="needs no right answer"),
            *_tuned(ANY),
        ),
        differs=(
            "an answer is right by exact comparison; in the paper above .9 of the judge's p(YES)",
            "all attempts are shown, in order; the paper's code shows the best first, each cut to 512 tokens",
            "Qwen3-32B is without thinking in these rows of the paper: serve it so",
            "a context of 32k tokens in these rows of the paper; here that of the server",
            _WORDS,
        ),
    )


QWEN, LLAMA = "qwen3-32b", "maverick"
MATH = (
    _olympiad(
        "aime",
        (*_in("Table 4", 22.54, QWEN), *_in("Table 4", 17.58, LLAMA)),
        (*_in("Table 4", 46.66, QWEN), *_in("Table 4", 35.00, LLAMA)),
    ),
    _olympiad(
        "hmmt",
        (*_in("Table 4", 9.14, QWEN), *_in("Table 4", 8.50, LLAMA)),
        (*_in("Table 4", 33.33, QWEN), *_in("Table 4", 20.00, LLAMA)),
    ),
)

_FIGURE_17 = "appendix C, Figure 17"
ABSTRACTS = Part(
    "abstracts",
    (
        Row("ICRL Preset", "icrl", HIGHEST_REWARD, _in(_FIGURE_17, 0.59)),
        Row("Reflexion", REFLEXION, HIGHEST_REWARD, _in(_FIGURE_17, 0.46)),
        Row("Self-Refine", "self_refine", HIGHEST_REWARD, _in(_FIGURE_17, 0.45)),
        Row("Best-of-1024", "best_of_n+n={samples}", HIGHEST_REWARD, _in(_FIGURE_17, 0.44)),
    ),
    rounds=200,
    tasks=30,
    model="openai:gpt-4.1-mini",
    data="papers.jsonl",
    where='a line {"title": "...", "abstract": "..."} for each of 30 papers newer than the model',
    samples=1024,
    fair=(
        Row("ICRL Preset, F1", "icrl", METRIC_OF_ANSWER, note="recall rewards length"),
        Row("Best-of-N, F1", "best_of_n+n={samples}", METRIC_OF_ANSWER),
        *_tuned(HIGHEST_REWARD),
    ),
    differs=("other papers than the paper's 30, which are newer than its model", _WORDS, _SELF_REFINE),
)


def _ablations(part: Part, reading: Reading) -> Part:
    """Those of Figure 3, of which the curves alone are known."""

    def row(group: int, name: str, arm: str) -> Row:
        return Row(name, arm, reading, _in("Figure 3", PAPER_ORDER.format(("best", "middle", "lowest")[group])))

    rows = (
        row(0, "ICRL Preset", "icrl"),
        row(0, "ICRL Autonomous", AUTONOMOUS),
        row(0, "Exploitation Only", "icrl+schedule=exploit"),
        row(1, "No ICRL Instruction", "icrl+schedule=plain"),
        row(2, "Zero Rewards", "icrl+show=zero"),
        row(2, "Short Context", "icrl+memory=last:3"),
        row(2, "Exploration Only", "icrl+schedule=explore+show=hidden"),
    )
    fair = (
        Row("Shuffled rewards", "icrl+show=shuffled", reading, note="each is one of another task"),
        Row("Random rewards", "icrl+show=random", reading),
        Row("Best-of-N", "best_of_n", reading),
        Row("Best-of-N, as many tokens as ICRL", "best_of_n+n={matched}", reading),
    )
    zero = "Zero Rewards: every number is 0; the paper's code leaves those of steps visible in Game of 24"
    shared = [each for each in part.differs if each in (_STEPS, _WORDS, _NO_EXAMPLES)]
    return Part(
        part.benchmark, rows, part.rounds, part.tasks, part.model, part.judge,
        data=part.data, where=part.where, options=part.options, fair=fair,
        differs=("highest so far of all attempts, as in the figure", zero, *shared),
    )  # fmt: skip


def _by_episode(name: str, arm: str, note: str = "") -> tuple[Row, ...]:
    """What an arm comes to at each of ORBIT's three episodes."""
    ways = (
        ("return", "metric", range(1, 4), False),
        ("success", "success", range(1, 4), False),
        ("success after failures", "success", range(2, 4), True),
    )
    return tuple(
        Row(
            f"{name}, {told} at episode {k}",
            arm,
            Reading(measure, partial(_at, measure=measure, episode=k, after_failure=after)),
            note=note,
        )
        for told, measure, episodes, after in ways
        for k in episodes
    )


ORBIT = Part(
    "scienceworld-orbit",
    (
        *_by_episode("ReAct", "icrl+thoughts=true", "all earlier episodes in the prompt"),
        *_by_episode("Reflexion", "reflexion+thoughts=true", "reflections in place of the earlier episodes"),
    ),
    rounds=3,
    tasks=251,
    model="openai:Qwen/Qwen3-8B",
    options={},
    fair=_by_episode("ReAct without memory", "icrl+thoughts=true+memory=none", "has nothing to learn from"),
    differs=(
        "the six tasks that the script's header names; the configuration beside it has find-animal, find-living-thing, "
        "power-component-renewable-vs-nonrenewable-energy and identify-life-stages-2 in place of the lifespans and "
        "find-non-living-thing: --item takes them",
        "3 episodes of 15 actions each; there 45 actions in all, so that whoever succeeds early plays more episodes",
        "Reflexion shows its reflections alone; there they stand beside the earlier episodes",
        "what of the goal is missing is not told at the end of an episode, the score is",
        "earlier episodes are shown with a line for each action, without the thoughts",
        "a return is the final score, from 0 to 100; a success is 100",
    ),
)

TABLES: Mapping[str, Preset] = {
    "game24": Preset("Game of 24, success rate in %", f"{ICRL_PAPER}, Table 1", (GAME24,)),
    "writing": Preset(
        "Creative writing, length-controlled win rate of ICRL Preset against each in %",
        f"{ICRL_PAPER}, Table 2",
        (WRITING,),
    ),
    "scienceworld": Preset(
        "ScienceWorld, highest return so far in points",
        f"{ICRL_PAPER}, Figure 2",
        (SCIENCEWORLD,),
        ("The paper has curves only: ICRL about 20 % above the baselines after enough rounds.",),
    ),
    "math": Preset("Competition mathematics, solved by any attempt in %", f"{ICRL_PAPER}, Table 4", MATH),
    "abstracts": Preset("Abstracts from titles, ROUGE-1 recall", f"{ICRL_PAPER}, {_FIGURE_17}", (ABSTRACTS,)),
    "ablations": Preset(
        "Ablations, highest so far (% solved; coherence from 1 to 10; points)",
        f"{ICRL_PAPER}, Figure 3",
        (_ablations(GAME24, ANY), _ablations(WRITING, HIGHEST_REWARD), _ablations(SCIENCEWORLD, HIGHEST_METRIC)),
        ("The paper has curves only, so their order is told and no figure.",),
    ),
    "orbit-scienceworld": Preset(
        "ORBIT's evaluation in ScienceWorld, by episode, in points and %",
        f"{ORBIT_PAPER}, scripts/eval/sciworld_benchmark.sh of its code",
        (ORBIT,),
        ("No published figures of it are known here.",),
    ),
}
"""By the name of `icrl reproduce`."""
