"""Human labels of a few dozen answers, and judged scores corrected by them: prediction-powered inference.

A judge scores every answer, people some of them, drawn at random. The mean human score of all is then that of the judge
plus the mean of how far people are from it where both have scored (A. N. Angelopoulos et al., "Prediction-Powered
Inference", Science 382, 2023, arXiv 2301.09633, section 2.1; weighted as in PPI++, arXiv 2311.01453, section 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from icrl_graph.benchmarks.datasets import rows_of
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.statistics import Estimate, estimate, of_scipy, rounded, task_means
from icrl_graph.benchmarks.summary import tables_of

FEWEST = 10
"""Labelled tasks of an arm below which nothing is corrected: the interval would not hold what it says."""


class Corrected(TypedDict):
    """What the answers of an arm, or the difference of two arms, come to by a judge, by people and by both."""

    arm: str
    against: str | None
    """The arm it is the difference from; None of the arm itself."""
    labels: int
    """Tasks with labels."""
    judged: Estimate
    """Of all answers, by the judge."""
    labelled: Estimate
    """Of the labelled answers, by people."""
    corrected: Estimate
    """Of all answers, as people would score them; unknown with fewer than `FEWEST` labelled tasks."""


def read_labels(path: Path) -> dict[Cell, float]:
    """The labels of a file: JSON lines, or CSV with a heading, of arm, item, seed (default 0) and label.

    Several labels of one answer, as of several people, are averaged.

    Raises:
        ValueError: the file can't be read, or a line has not what it needs; says which.
    """
    try:
        rows = list(rows_of(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"the labels of {path} can't be read: {error}") from None
    found: dict[Cell, list[float]] = {}
    for where, row in rows:
        if isinstance(row, Mapping) and row.get("label", "") in (None, ""):
            continue  # a sheet that is not filled in to its end
        try:
            seed = int(str(row.get("seed") or 0))  # 1.5 is none
            cell, label = Cell(str(row["arm"]), str(row["item"]), seed), float(row["label"])
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise ValueError(f"{path}, {where}: it needs arm, item and label, a number; got {row!r:.200}") from None
        if not np.isfinite(label):
            raise ValueError(f"{path}, {where}: label must be a finite number, got {row['label']!r}")
        found.setdefault(cell, []).append(label)
    if not found:
        raise ValueError(f"{path} holds no label")
    return {cell: sum(labels) / len(labels) for cell, labels in found.items()}


def corrected_by(labels: Mapping[Cell, float], plan: Plan, rows: Mapping[Cell, Row]) -> list[Corrected]:
    """What each arm comes to, and how each differs from the first, corrected by labels of some answers.

    Args:
        labels: of the answers of runs, drawn at random. For a difference, of the same tasks in both arms.
        plan: of the comparison.
        rows: its runs. The judge's word is the metric of their answers; the reward where there is none.

    Raises:
        ValueError: a label is of a run that is not there.
        MissingExtra: scipy is not installed.
    """
    tables = tables_of(plan, rows)
    judged = {arm: table.answered("metric")[:, :, -1] for arm, table in tables.items()}
    human = {arm: np.full(scores.shape, np.nan) for arm, scores in judged.items()}
    places = {item: at for at, item in enumerate(next(iter(tables.values())).items)}  # the same of all arms
    for cell, label in labels.items():
        if cell.arm not in tables or cell.item not in places or not 0 <= cell.seed < human[cell.arm].shape[1]:
            raise ValueError(f"a label is of {cell.arm!r} on {cell.item!r}, seed {cell.seed}, which has no result here")
        human[cell.arm][places[cell.item], cell.seed] = label
    first, *others = tables
    alone = [_corrected(arm, None, human[arm], judged[arm]) for arm in tables]
    return alone + [
        _corrected(arm, first, _less(human[arm], human[first]), _less(judged[arm], judged[first])) for arm in others
    ]


def _less(ones: Any, others: Any) -> Any:
    """The difference of two arrays (tasks, seeds), (tasks, 1)."""
    return (task_means(ones) - task_means(others))[:, None]


def _corrected(arm: str, against: str | None, human: Any, judged: Any) -> Corrected:
    known = prediction_powered(human, judged)
    return Corrected(
        arm=arm,
        against=against,
        labels=int((~np.isnan(task_means(human))).sum()),
        judged=estimate(judged),
        labelled=estimate(human),
        corrected=known,
    )


def prediction_powered(labels: Any, predictions: Any) -> Estimate:
    """The mean of what only some tasks are labelled with, by the labels and by predictions of all.

    mean(w f) over the other tasks + mean(y - w f) over the labelled ones, y the labels and f the predictions. The
    weight w in [0, 1] makes its variance smallest (PPI++, section 6): a judge that says nothing gets 0, and the
    estimate is that of the labels alone. The interval is Welch's, of two independent means.

    Args:
        labels: shape (tasks, seeds); NaN is not labelled.
        predictions: the same tasks; NaN is not predicted, and left out.

    Raises:
        ValueError: a shape is another, or a value is infinite.
        MissingExtra: SciPy is not installed.
    """
    both = np.where(np.isnan(labels), np.nan, predictions)  # of a labelled task, the runs that are labelled
    y, seen, every = task_means(labels), task_means(both), task_means(predictions)
    is_labelled = ~np.isnan(y) & ~np.isnan(seen)
    rest = every[np.isnan(y) & ~np.isnan(every)]
    y, seen = y[is_labelled], seen[is_labelled]
    count, unscored = len(y) + len(rest), int(np.isnan(predictions).sum())
    if len(y) < FEWEST:
        return Estimate(mean=None, low=None, high=None, tasks=count, unscored=unscored)
    if len(rest) < 2:
        return estimate(y[:, None])
    spread = float(np.var(np.concatenate([seen, rest]), ddof=1))
    weight = 0.0 if spread == 0 else float(np.cov(y, seen)[0, 1]) / ((1 + len(y) / len(rest)) * spread)
    ones, others = (min(1.0, max(0.0, weight)) * each for each in (rest, seen))
    apart = others - y
    low = high = None
    if np.ptp(ones) + np.ptp(apart) > 1e-12:
        low, high = of_scipy("stats").ttest_ind(ones, apart, equal_var=False).confidence_interval(0.95)
    mean = rounded(ones.mean() - apart.mean())
    return Estimate(mean=mean, low=rounded(low), high=rounded(high), tasks=count, unscored=unscored)
