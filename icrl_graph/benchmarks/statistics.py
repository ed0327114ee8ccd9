"""How sure one can be of means over tasks, and of differences between methods.

Results are arrays of shape (tasks, seeds), or (tasks, seeds, points) for curves, with NaN where nothing was scored.
Tasks are the clusters: the seeds of one task share its difficulty, so they never count as tasks of their own. All
intervals are 95 % intervals, and the same data always give the same numbers. SciPy comes with the extra "report".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from importlib import import_module
from itertools import combinations
from typing import Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from icrl_graph.errors import missing_extra

Z = 1.96
"""Standard errors on either side of a 95 % interval."""

FLIPS = 9999
"""Random sign flips of a permutation test, where there are more than can be tried. Its p is never below 2 / 10000."""

Array = NDArray[np.float64]


class Estimate(TypedDict):
    """A mean over tasks with its interval; None where it is not known. Rounded to 6 digits."""

    mean: float | None
    """None if nothing is scored."""
    low: float | None
    """None if fewer than two tasks are scored, or all alike but for shares; and so is high."""
    high: float | None
    tasks: int
    """Tasks with any score."""
    unscored: int
    """Cells without a score."""


class Bracket(Estimate):
    """An estimate that does not pass what is scored for all; the further fields are there where not all is.

    Where scores have bounds, what is unscored counts as either. Then there is no `mean`, and the interval is from the
    low end of the lowest to the high end of the highest.
    """

    scored: NotRequired[int]
    """Cells with a score."""
    of: NotRequired[int]
    """Cells that could have one: without those that were not played, or lost to a provider that is down."""
    lowest: NotRequired[float | None]
    """The mean with all that is unscored at the lowest score possible; None if bounds are unknown."""
    highest: NotRequired[float | None]
    """The same at the highest."""


class Difference(TypedDict):
    """What one method has more than another over the same tasks; None where it is not known. p to 6 figures."""

    difference: float | None
    low: float | None
    """None if fewer than two tasks are scored in both, or all differ alike but for shares; and so is high."""
    high: float | None
    p: float | None
    """Of a two-sided permutation test, in (0, 1]."""
    mcnemar: float | None
    """Of McNemar's exact test, in (0, 1]; only with 1 seed of 0 or 1 per task."""
    tasks: int
    """Tasks scored in both."""
    adjusted: float | None
    """p after Holm's correction, in (0, 1]; `corrected` fills it in."""
    lowest: NotRequired[float]
    """The lowest that the difference can be, where some is unscored and scores have bounds. `difference` is None then,
    the interval is that of all it can be, and p the largest."""
    highest: NotRequired[float]
    """The highest."""


def estimate(values: Any, *, share: bool = False) -> Estimate:
    """Mean over tasks of the mean over each task's scored seeds, with its interval.

    Without `share` it is Student's t interval on the tasks' means. Where all of them are the same nothing is known of
    their spread, so there is no interval. A mean of bounded values may have an end outside of the bounds.

    With `share` it is Wilson's score interval on the effective number of tasks, p(1 - p) over the variance of the mean,
    made smaller for Student's t (E. L. Korn and B. I. Graubard, Survey Methodology 24, 1998), and never fewer than
    there are tasks. With 1 seed that is Wilson's interval on the tasks.

    How often, in per cent of 4000 samples, the interval held the truth (with `share` / without; the seeds of one task
    correlated by 0.3):

        share  10 tasks, 1 seed  10 tasks, 3 seeds  40 tasks, 1 seed  40 tasks, 3 seeds
        0.05     91.8 / 39.6        97.4 / 69.0       95.1 / 87.4       93.6 / 90.4
        0.5      98.0 / 98.0        96.2 / 94.3       96.1 / 96.1       95.6 / 95.2
        0.95     91.0 / 39.6        97.8 / 67.9       95.3 / 86.9       93.6 / 90.0

    So Student's t is no good for shares near 0 or 1 over few tasks: often all it sees is the same. Of other values:

        tasks           2     3     5    10    40
        normal       95.2  94.9  94.6  95.5  94.9
        uniform      92.7  91.6  93.5  95.0  95.8
        exponential  90.5  87.9  88.5  90.0  92.4

    Args:
        values: shape (tasks, seeds); NaN is unscored.
        share: values lie in [0, 1], as marks or shares do.

    Raises:
        ValueError: the shape is another, a value is infinite, or `share` and a value is outside [0, 1].
        MissingExtra: SciPy is not installed.
    """
    return _estimates(checked(values, 2, share)[..., np.newaxis], share)[0]


def curve(values: Any, *, share: bool = False) -> list[Estimate]:
    """The `estimate` at each point of a curve; intervals hold point by point, not for the curve as a whole.

    Args:
        values: shape (tasks, seeds, points); NaN is unscored.
        share: values lie in [0, 1].

    Raises:
        ValueError: as in `estimate`.
        MissingExtra: SciPy is not installed.
    """
    return _estimates(checked(values, 3, share), share)


def bracketed(
    values: Any,
    lowest: Any,
    highest: Any,
    *,
    share: bool = False,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> list[Bracket]:
    """The `curve` of values of which some are unscored: its points are told as the lowest and highest they can be.

    A mean over what happens to be scored says nothing of the rest: of 30 answers of which 8 are scored, all of them
    right, the share that is right is from .27 to 1.

    Args:
        values: shape (tasks, seeds, points); NaN is unscored.
        lowest: the same, with the lowest possible score in place of what is unscored; NaN is what can have no score.
        highest: the same with the highest.
        share: values lie in [0, 1].
        bounds: the lowest and the highest score, within which intervals end; None where they are not known, and only
            what is scored is counted.

    Raises:
        ValueError: as in `estimate`.
        MissingExtra: SciPy is not installed.
    """
    plain, made = curve(values, share=share), ~np.isnan(np.asarray(lowest, dtype=float))
    cells = made.shape[0] * made.shape[1]
    is_open = made & (np.isnan(values) | (np.asarray(lowest) != np.asarray(highest)))
    ends = [curve(end, share=share) for end in (lowest, highest)] if bounds and is_open.any() else [plain, plain]
    points: list[Bracket] = []
    for at, (point, low, high) in enumerate(zip(plain, *ends, strict=True)):
        count = int(made[..., at].sum())
        told: Any = {**point}
        if is_open[..., at].any():
            told |= {"scored": cells - point["unscored"], "of": count, "lowest": None, "highest": None}
            if bounds:
                told |= {"mean": None, "low": low["low"], "high": high["high"]}
                told |= {"lowest": low["mean"], "highest": high["mean"]}
        if bounds and told["low"] is not None:
            told |= {"low": max(told["low"], bounds[0]), "high": min(told["high"], bounds[1])}
        points.append(told)
    return points


def pass_at_k(attempts: int, solved: int, k: int) -> float:
    """Chance that k of the attempts, drawn without replacement, hold one that solved the task; in [0, 1].

    1 - C(n - c, k) / C(n, k), unbiased (M. Chen et al., arXiv 2107.03374, equation 1), in whole numbers up to the one
    division.

    Args:
        attempts: n, from 1.
        solved: c, how many of them solved it, 0 to n.
        k: 1 to n.

    Raises:
        ValueError: a number is out of range.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}, but must be at least 1")
    if not 0 <= solved <= attempts:
        raise ValueError(f"solved is {solved}, but must be from 0 to the {attempts} attempts")
    if not 1 <= k <= attempts:
        raise ValueError(f"k is {k}, but must be from 1 to the {attempts} attempts")
    draws = math.comb(attempts, k)
    return (draws - math.comb(attempts - solved, k)) / draws


ALL_DRAWS, SOME_DRAWS = 20_000, 4_000
"""Of attempts for a vote: up to how many possible ones all are looked at, and else how many random ones."""


def majority_at_k(answers: Sequence[str | None], right: Collection[str], k: int) -> float:
    """Chance that the most frequent answer of k of the attempts, drawn without replacement, is right; in [0, 1].

    Of answers that are as frequent one is drawn. Exact for up to 20 000 ways to draw; else from 4000 random draws,
    always the same, with a standard error of .008 at most.

    Args:
        answers: of each attempt, in a form in which equal ones are the same; None, which never wins, for no answer.
        right: the right ones.
        k: 1 to the number of attempts.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k is {k}, but must be from 1 to the {len(answers)} attempts")
    names = list(dict.fromkeys(answer for answer in answers if answer is not None))
    is_given = np.array([[answer == name for name in names] for answer in answers], dtype=int)  # (attempts, names)
    is_right = np.array([name in right for name in names], dtype=bool)
    if math.comb(len(answers), k) <= ALL_DRAWS:
        draws = np.array(list(combinations(range(len(answers)), k)))
    else:
        draws = np.random.default_rng(0).random((SOME_DRAWS, len(answers))).argpartition(k - 1, axis=1)[:, :k]
    votes = sum(is_given[draws[:, place]] for place in range(k))  # (draws, names)
    leads = (votes == votes.max(axis=1, initial=1, keepdims=True)) if names else np.zeros((len(draws), 0), dtype=bool)
    wins = (leads & is_right).sum(axis=1) / np.maximum(leads.sum(axis=1), 1)
    return float(wins.mean())


def difference(ones: Any, others: Any, *, share: bool = False) -> Difference:
    """Mean over tasks of how much more one method scores than another, with its interval and tests.

    p is of the permutation test that flips the signs of the tasks' differences: exact with up to 13 tasks that differ,
    else from 9999 random flips. Tasks that don't differ change nothing, and p is 1 where none does.

    Without `share` the interval is Student's t on the tasks' differences. With `share` it is the one of Agresti and Min
    (Statistics in Medicine 24, 2005), two tasks added of which one comes out differently, carried over from marks to
    shares. Simulated with 3 seeds, 5 to 40 tasks and shares of .01 to .98 it held the truth in 94 to 100 % of samples.
    The price: it is wider than it need be where many seeds make each task's share sure.

    Args:
        ones: shape (tasks, seeds); NaN is unscored.
        others: the same tasks in the same order, done otherwise; it may have other seeds. A task counts if it has a
            score in both.
        share: values lie in [0, 1].

    Raises:
        ValueError: as in `estimate`, or the tasks are not as many.
        MissingExtra: SciPy is not installed.
    """
    left, right = checked(ones, 2, share), checked(others, 2, share)
    if len(left) != len(right):
        raise ValueError(f"both need the same tasks, but one has {len(left)} and the other {len(right)}")
    apart = task_means(left) - task_means(right)
    both = ~np.isnan(apart)
    # Sorted, so that the random draws fall on the same tasks in whatever order they come.
    scored = np.sort(apart[both])
    low = high = None
    if len(scored) > 1:
        low, high = _agresti_min(scored) if share else map(float, _student(scored[:, np.newaxis])[:, 0])
    marks = left.shape[1] == right.shape[1] == 1 and bool(np.isin([left[both], right[both]], (0, 1)).all())
    return Difference(
        difference=rounded(scored.mean()) if len(scored) else None,
        low=rounded(low),
        high=rounded(high),
        p=_flipped(scored) if len(scored) else None,
        mcnemar=_mcnemar(scored) if marks and len(scored) else None,
        tasks=len(scored),
        adjusted=None,
    )


def ratio(amounts: Any, values: Any) -> Estimate:
    """What is spent for one unit of what is gained, such as dollars for a solved task: a ratio of means over tasks.

    The interval is Fieller's (J. Royal Statist. Soc. B 16, 1954) with Student's t: the ratios r that a t test of
    amount - r * value being 0 does not refute, over tasks. `high` is None where it has no upper end: so little is
    gained that it may be nothing.

    Args:
        amounts: what was spent, shape (tasks, seeds); NaN is not known.
        values: what was gained, at least 0, of the same shape.

    Raises:
        ValueError: as in `estimate`.
        MissingExtra: SciPy is not installed.
    """
    spent, gained = (task_means(checked(each, 2, False)) for each in (amounts, values))
    known = ~np.isnan(spent + gained)
    pairs = np.stack([spent[known], gained[known]])
    count, means = pairs.shape[1], pairs.mean(axis=1) if known.any() else np.zeros(2)
    low = high = None
    if count > 1 and np.ptp(pairs, axis=1).max() > 1e-12:
        spread = np.cov(pairs) * float(_scipy().t.isf(0.025, count - 1)) ** 2 / count
        square, half, free = (
            means[1] ** 2 - spread[1, 1],
            means[0] * means[1] - spread[0, 1],
            means[0] ** 2 - spread[0, 0],
        )
        root = math.sqrt(max(half**2 - square * free, 0.0))
        if square > 0:
            low, high = (half - root) / square, (half + root) / square
        elif square < 0 and free > 0:  # the ratios below the negative of the two ends are refuted, and those between
            low = (half - root) / square
    return Estimate(
        mean=rounded(means[0] / means[1]) if means[1] > 0 else None,
        low=rounded(None if low is None else max(low, 0.0)),
        high=rounded(high),
        tasks=count,
        unscored=int((~known).sum()),
    )


def bracketed_difference(plain: Difference, lowest: Difference, highest: Difference) -> Difference:
    """A difference of which some is unscored, by the lowest and the highest that it can be.

    Args:
        plain: over what is scored in both.
        lowest: with what is unscored at its lowest in the one, at its highest in the other.
        highest: the other way about.
    """
    low, high = lowest["difference"], highest["difference"]
    if low is None or high is None:
        return plain
    told: Difference = {**plain, "difference": None, "lowest": low, "highest": high}
    told["low"], told["high"] = lowest["low"], highest["high"]
    for name in ("p", "mcnemar"):
        ends: list[Any] = [lowest[name], highest[name]]
        told[name] = None if None in ends else 1.0 if low <= 0 <= high else max(ends)
    return told


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences with each p corrected for how many there are (S. Holm, Scand. J. Statist. 6, 1979).

    The i-th smallest of m p's is multiplied by m - i + 1, is at least what the smaller ones came to, and at most 1.
    Those without a p are not counted.
    """
    adjusted = [Difference(**{**difference, "adjusted": None}) for difference in differences]
    tested = sorted((one["p"], place) for place, one in enumerate(adjusted) if one["p"] is not None)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = min(1.0, max(largest, (len(tested) - rank) * p))
        adjusted[place]["adjusted"] = _figures(largest)
    return adjusted


def detectable(
    tasks: int, *, comparisons: int = 1, apart: float = 0.3, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest difference of two shares that the test of `difference` is likely to find, in (0, apart].

    Exact for one seed: how many tasks come out differently is binomial, and so is how many of those the better one
    gains; p is that of flipping their signs, which is the two-sided binomial one.

    Args:
        tasks: from 1.
        comparisons: how many tests share alpha (Bonferroni), from 1.
        apart: share of the tasks that come out differently, in (0, 1].
        power: chance to find the difference, in (alpha, 1).
        alpha: chance to find one where there is none, in (0, 1).

    Returns:
        None where not even a difference as large as `apart` would be found.

    Raises:
        ValueError: a number is out of range.
        MissingExtra: SciPy is not installed.
    """
    for name, count in (("tasks", tasks), ("comparisons", comparisons)):
        if count < 1:
            raise ValueError(f"{name} is {count}, but must be at least 1")
    if not 0 < apart <= 1:
        raise ValueError(f"apart is {apart}, but must be above 0 and at most 1")
    if not 0 < alpha < power < 1:
        raise ValueError(f"alpha is {alpha} and power {power}, but must be 0 < alpha < power < 1")
    stats = _scipy()
    likely = stats.binom.ppf([1e-9, 1 - 1e-9], tasks, apart)
    differ = np.arange(likely[0], likely[1] + 1)
    chance = stats.binom.pmf(differ, tasks, apart)
    critical = stats.binom.isf(alpha / comparisons / 2, differ, 0.5)  # more gains than these are significant

    def found(size: float) -> float:
        return float(chance @ stats.binom.sf(critical, differ, (apart + size) / (2 * apart)))

    if found(apart) < power:
        return None
    low, high = 0.0, apart
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def of_scipy(module: str) -> Any:
    """A module of SciPy.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    try:
        import scipy  # noqa: F401 - where it is gone, its modules may still be loaded
    except ImportError as missing:
        raise missing_extra("scipy", "report") from missing
    return import_module(f"scipy.{module}")


def _scipy() -> Any:
    return of_scipy("stats")


def checked(values: Any, dimensions: int, share: bool) -> Array:
    """Values as an array.

    Raises:
        ValueError: it has other dimensions, a value is infinite, or a share is outside [0, 1].
    """
    scores = np.asarray(values, dtype=float)
    if scores.ndim != dimensions:
        axes = ("tasks", "seeds", "points")[:dimensions]
        raise ValueError(f"the values have the shape {scores.shape}, but need ({', '.join(axes)})")
    if np.isinf(scores).any():
        raise ValueError("a value is infinite, but each must be a finite number or NaN")
    if share and ((scores < 0) | (scores > 1)).any():
        raise ValueError(f"shares lie in [0, 1], but the values in [{np.nanmin(scores)}, {np.nanmax(scores)}]")
    return scores


def task_means(scores: Array) -> Array:
    """Mean over the scored of axis 1; NaN where there is none (numpy's nanmean would warn)."""
    scored = ~np.isnan(scores)
    total, count = np.where(scored, scores, 0.0).sum(axis=1), scored.sum(axis=1)
    means: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _estimates(scores: Array, share: bool) -> list[Estimate]:
    # Each point's tasks are sorted, NaN last: their order can't matter, and all points with as many tasks are computed
    # together, whichever tasks they miss.
    means = np.sort(task_means(scores), axis=0)
    tasks = (~np.isnan(means)).sum(axis=0)
    bounds = np.full((3, len(tasks)), np.nan)
    for count in np.unique(tasks[tasks > 0]):
        at = tasks == count
        scored = means[:count, at]
        bounds[0, at] = scored.mean(axis=0)
        if count > 1:
            bounds[1:, at] = _wilson(scored) if share else _student(scored)
    return [
        Estimate(mean=rounded(mean), low=rounded(low), high=rounded(high), tasks=int(count), unscored=int(unscored))
        for mean, low, high, count, unscored in zip(*bounds, tasks, np.isnan(scores).sum(axis=(0, 1)), strict=True)
    ]


def _student(means: Array) -> Array:
    """Student's t interval of each column: shape (tasks, points) to (2, points); NaN where all are alike."""
    count, middle = len(means), means.mean(axis=0)
    half = _scipy().t.isf(0.025, count - 1) * means.std(axis=0, ddof=1) / math.sqrt(count)
    bounds: Array = np.where(half.round(6) > 0, np.stack([middle - half, middle + half]), np.nan)
    return bounds


def _wilson(means: Array) -> Array:
    """Wilson's interval of each column on its effective number of tasks: shape (tasks, points) to (2, points)."""
    count, share, variance = len(means), means.mean(axis=0), means.var(axis=0, ddof=1)
    shrink = (Z / float(_scipy().t.isf(0.025, count - 1))) ** 2
    ratio = np.divide(share * (1 - share), variance, out=np.ones_like(share), where=variance > 1e-15)
    size = count * np.maximum(1.0, ratio * shrink)
    middle = share + Z**2 / (2 * size)
    half = Z * np.sqrt(np.maximum(share * (1 - share), 0.0) / size + Z**2 / (4 * size**2))
    bounds: Array = np.clip(np.stack([middle - half, middle + half]) / (1 + Z**2 / size), 0.0, 1.0)
    return bounds


def _agresti_min(apart: Array) -> tuple[float, float]:
    count = len(apart) + 2
    middle = float(apart.sum()) / count
    half = Z * math.sqrt((float((apart**2).sum()) + 1) / count - middle**2) / math.sqrt(count)
    return max(-1.0, middle - half), min(1.0, middle + half)


def _flipped(apart: Array) -> float:
    moved = apart[apart != 0]
    if len(moved) < 2:  # one sign or the other is all there is, and SciPy wants two values
        return 1.0
    scaled = moved / np.abs(moved).max()

    def mean(values: Array, axis: int) -> Any:
        return np.round(values.mean(axis=axis), 10)  # sums that are equal but for the order of their terms are equal

    if 2 ** len(moved) <= FLIPS:
        test = _scipy().permutation_test(
            (scaled,), mean, permutation_type="samples", vectorized=True, n_resamples=FLIPS
        )
    else:  # the same draws as that one would make, which goes through the tasks one by one for each batch of them
        rng = np.random.default_rng(0)

        def flipped(size: tuple[int, ...]) -> Any:
            is_turned = rng.permuted(np.tile([0, 1], (*size, 1)), axis=-1)[..., 0]
            return np.where(is_turned, -scaled, scaled)

        batch = max(1, 1_000_000 // len(moved))
        test = _scipy().monte_carlo_test(scaled, flipped, mean, vectorized=True, n_resamples=FLIPS, batch=batch)
    return _figures(float(test.pvalue))


def _mcnemar(apart: Array) -> float:
    gained, lost = int((apart > 0).sum()), int((apart < 0).sum())
    return _figures(float(_scipy().binomtest(gained, gained + lost).pvalue)) if gained + lost else 1.0


def rounded(value: Any) -> float | None:
    """To 6 digits; None for NaN."""
    return None if value is None or np.isnan(value) else round(float(value), 6) + 0.0  # + 0.0 makes -0.0 a plain 0


def _figures(p: float) -> float:
    """To 6 significant figures: a small p mustn't become 0."""
    return float(f"{p:.6g}")
