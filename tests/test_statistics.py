"""Means over tasks, differences between methods, and how sure they are."""

import json
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from icrl_graph.benchmarks.statistics import (
    Difference,
    bracketed,
    bracketed_difference,
    corrected,
    curve,
    detectable,
    difference,
    estimate,
    majority_at_k,
    pass_at_k,
    ratio,
)
from icrl_graph.errors import MissingExtra

NAN = np.nan
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 4))
SCORES = arrays.arrays(float, SHAPES, elements=st.sampled_from([-2.5, 0.0, 1 / 3, 0.1, 7.0, NAN]))
SHARES = arrays.arrays(float, SHAPES, elements=st.sampled_from([0.0, 1.0, 1 / 3, 0.7, NAN]))
MARKS = st.lists(st.integers(0, 1), min_size=2, max_size=40)
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40)


def same(found: Any, wanted: Any) -> None:
    """Sums in another order may differ in the last bit, so in the last of 6 digits."""
    assert found.keys() == wanted.keys()
    for name in found:
        assert found[name] == (None if wanted[name] is None else pytest.approx(wanted[name], abs=2e-6)), name


def correlated(rng: Any, share: float, shape: tuple[int, int, int]) -> Any:
    """Marks (tasks, seeds, samples), the seeds of one task correlated by 0.3."""
    tasks, _, samples = shape
    weight = 1 / 0.3 - 1
    return (rng.random(shape) < rng.beta(share * weight, (1 - share) * weight, (tasks, 1, samples))).astype(float)


def difference_of(p: float | None) -> Difference:
    return Difference(difference=0.1, low=None, high=None, p=p, mcnemar=None, tasks=9, adjusted=None)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("tasks", [10, 40])
@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_shares_hold_the_truth_as_often_as_they_say(share: float, tasks: int, seeds: int) -> None:
    samples = correlated(np.random.default_rng(0), share, (tasks, seeds, 2000))
    held = [one["low"] <= share <= one["high"] for one in curve(samples, share=True)]  # type: ignore[operator]
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("tasks", [2, 3, 5, 15])
def test_intervals_of_means_hold_the_truth_as_often_as_they_say_over_few_tasks_too(tasks: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(tasks, 1, 1000)) + rng.normal(size=(tasks, 3, 1000))
    held = [one["low"] <= 0 <= one["high"] for one in curve(samples)]  # type: ignore[operator]
    assert 0.93 <= np.mean(held) <= 0.965


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=12))
def test_intervals_of_means_and_of_differences_are_students(values: list[float]) -> None:
    spread = np.std(values, ddof=1)
    assume(spread > 1e-4)
    wanted = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread / np.sqrt(len(values)))
    column = np.array(values)[:, np.newaxis]
    for found in (estimate(column), difference(column, np.zeros_like(column))):
        assert (found["low"], found["high"]) == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("tasks", [2, 3, 40])
def test_of_tasks_that_are_all_alike_the_mean_has_no_interval(tasks: int) -> None:
    """Three judgements of 7.5 say nothing of how far the next one may be from it."""
    same = [[7.4, 7.6]] * tasks
    assert (estimate(same)["mean"], estimate(same)["low"], estimate(same)["high"]) == (7.5, None, None)
    apart = difference(same, [[7.0]] * tasks)
    assert (apart["difference"], apart["low"], apart["high"]) == (0.5, None, None)


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.3, 0.6), (0.05, 0.95)])
def test_intervals_of_differences_of_shares_hold_the_truth_as_often_as_they_say(shares: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    others, ones = (np.moveaxis(correlated(rng, share, (20, 3, 300)), -1, 0) for share in shares)
    # The interval doesn't need the sign flips, which take most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icrl_graph.benchmarks.statistics._flipped", lambda apart: 1.0)
        found = [difference(one, other, share=True) for one, other in zip(ones, others, strict=True)]
    held = [one["low"] <= shares[1] - shares[0] <= one["high"] for one in found]  # type: ignore[operator]
    assert np.mean(held) >= 0.93


@given(SCORES)
def test_the_mean_is_over_tasks_of_the_mean_over_their_scored_seeds(values: Any) -> None:
    means = [np.mean(row[~np.isnan(row)]) for row in values if not np.isnan(row).all()]
    found = estimate(values)
    assert found["mean"] == (pytest.approx(np.mean(means), abs=1e-6) if means else None)
    assert (found["tasks"], found["unscored"]) == (len(means), np.isnan(values).sum())
    assert (found["low"] is None) == (found["high"] is None) == (len(means) < 2 or np.ptp(means) < 1e-9)


@pytest.mark.parametrize("share", [False, True])
@given(values=SHARES, seed=st.integers(0, 9))
def test_neither_the_order_of_tasks_nor_that_of_seeds_matters(share: bool, values: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    same(estimate(rng.permuted(rng.permutation(values), axis=1), share=share), estimate(values, share=share))
    assert estimate(rng.permutation(values), share=share) == estimate(values, share=share)


@pytest.mark.parametrize("share", [False, True])
@given(values=SHARES, times=st.integers(2, 5))
def test_seeds_that_say_the_same_make_nothing_surer(share: bool, values: Any, times: int) -> None:
    found, wanted = estimate(np.tile(values, times), share=share), estimate(values, share=share)
    assert found.pop("unscored") == times * wanted.pop("unscored")  # type: ignore[misc]
    same(found, wanted)


@given(SHARES)
def test_an_interval_of_shares_is_never_a_point_and_lies_in_0_and_1(values: Any) -> None:
    found = estimate(values, share=True)
    if found["low"] is not None and found["high"] is not None and found["mean"] is not None:
        assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
        assert found["low"] < found["high"]


@given(MARKS)
def test_with_one_seed_a_share_has_wilsons_interval(marks: list[int]) -> None:
    """Written out: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)."""
    found, count, share, z = estimate(np.array(marks)[:, np.newaxis], share=True), len(marks), np.mean(marks), 1.96
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    ends = [(share + z**2 / (2 * count) + sign * half) / (1 + z**2 / count) for sign in (-1, 1)]
    assert [found["mean"], found["low"], found["high"]] == pytest.approx([share, *ends], abs=1e-4)


def test_seeds_that_disagree_make_a_share_surer() -> None:
    """Means .25 .5 .5 .75 have variance 1/24, so 6 times as many tasks count, over (3.182 / 1.96)^2: 9.10 in all."""
    found = estimate([[0, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1]], share=True)
    assert [found["low"], found["high"]] == pytest.approx([0.2277, 0.7723], abs=2e-4)


@given(MARKS, st.lists(st.floats(1e-4, 1), min_size=1, max_size=8))
@settings(max_examples=10)
def test_shares_and_corrected_p_are_those_of_an_independent_library(marks: list[int], ps: list[float]) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    found = estimate(np.array(marks)[:, np.newaxis], share=True)
    wanted = proportion.proportion_confint(sum(marks), len(marks), method="wilson")
    assert (found["low"], found["high"]) == pytest.approx(wanted, abs=1e-4)
    adjusted = [one["adjusted"] for one in corrected([difference_of(p) for p in ps])]
    assert adjusted == pytest.approx(list(multitest.multipletests(ps, method="holm")[1]), rel=1e-4)


def test_a_ratio_has_the_interval_of_fieller_written_out() -> None:
    """The ratios r at which the t test of amount - r * value against 0 is just at its limit."""
    rng = np.random.default_rng(0)
    amounts, values = 5 + rng.random(12), 1 + rng.random(12)
    found = ratio(amounts[:, np.newaxis], values[:, np.newaxis])
    assert found["mean"] == pytest.approx(amounts.mean() / values.mean(), abs=1e-6)
    for end in (found["low"], found["high"]):
        assert end is not None
        assert stats.ttest_1samp(amounts - end * values, 0).pvalue == pytest.approx(0.05, abs=1e-4)


def test_what_nothing_was_gained_by_has_no_price_and_what_may_be_nothing_no_upper_end() -> None:
    assert ratio([[4.0], [5.0]], [[0.0], [0.0]])["mean"] is None
    few = ratio([[8.0]] * 9, [[1.0]] + [[0.0]] * 8)
    assert few["mean"] == 72.0
    assert few["low"] is not None
    assert 8 < few["low"] < 72
    assert few["high"] is None


def test_a_zero_has_no_sign() -> None:
    assert "-0.0" not in json.dumps(estimate([[-1e-9], [-1e-9]]))


@pytest.mark.parametrize("share", [False, True])
@given(values=arrays.arrays(float, (5, 2, 3), elements=st.sampled_from([0.0, 1.0, 0.3, NAN])))
def test_a_curve_is_an_estimate_at_each_point(share: bool, values: Any) -> None:
    for point, found in enumerate(curve(values, share=share)):
        same(found, estimate(values[..., point], share=share))


def test_what_can_not_be_estimated_is_none() -> None:
    assert estimate([[NAN, NAN]]) == {"mean": None, "low": None, "high": None, "tasks": 0, "unscored": 2}
    assert estimate([[0.5, NAN]]) == {"mean": 0.5, "low": None, "high": None, "tasks": 1, "unscored": 1}
    assert estimate(np.empty((0, 3)))["mean"] is None
    assert set(difference([[1.0]], [[NAN]]).values()) == {None, 0}
    single = difference([[1.0]], [[0.0]], share=True)
    assert (single["difference"], single["low"], single["p"], single["mcnemar"]) == (1.0, None, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "share", "message"),
    [
        ([0.0, 1.0], False, r"shape \(2,\), but need \(tasks, seeds\)"),
        ([[np.inf]], False, "infinite"),
        ([[0.0, 2.0]], True, r"\[0, 1\], but the values in \[0.0, 2.0\]"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: Any, share: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(values, share=share)
    with pytest.raises(ValueError, match=message):
        difference(values, values, share=share)


def test_a_curve_needs_points_and_a_comparison_the_same_tasks() -> None:
    with pytest.raises(ValueError, match=r"\(tasks, seeds, points\)"):
        curve([[0.0]])
    with pytest.raises(ValueError, match="one has 1 and the other 2"):
        difference([[0.0]], [[0.0], [1.0]])


def test_pass_at_k_is_the_share_of_draws_that_hold_a_solved_attempt() -> None:
    for attempts in range(1, 8):
        for solved in range(attempts + 1):
            for k in range(1, attempts + 1):
                draws = [min(draw) < solved for draw in combinations(range(attempts), k)]
                assert pass_at_k(attempts, solved, k) == sum(draws) / len(draws)


def test_majority_at_k_is_the_share_of_draws_that_a_right_answer_wins() -> None:
    answers = ["a", "b", "a", None, "c", "b"]
    for k in range(1, 7):
        won = []
        for draw in combinations(answers, k):
            counts = Counter(answer for answer in draw if answer is not None)
            leaders = [answer for answer, count in counts.items() if count == max(counts.values())]
            won.append(sum(answer in ("a", "c") for answer in leaders) / len(leaders) if leaders else 0)
        assert majority_at_k(answers, {"a", "c"}, k) == pytest.approx(sum(won) / len(won))


def test_majority_at_k_of_many_attempts_is_near_the_truth() -> None:
    answers = ["a"] * 600 + ["b"] * 400
    assert majority_at_k(answers, {"a"}, 3) == pytest.approx(0.6**3 + 3 * 0.6**2 * 0.4, abs=0.03)
    assert majority_at_k(answers, {"a"}, 1000) == 1


@pytest.mark.parametrize("answers", [[None, None], ["b", None]])
def test_no_answer_never_wins_a_vote(answers: list[str | None]) -> None:
    assert majority_at_k(answers, {"a"}, 2) == 0


@pytest.mark.parametrize("k", [0, 3])
def test_a_vote_is_of_one_to_all_attempts(k: int) -> None:
    with pytest.raises(ValueError, match="k is"):
        majority_at_k(["a", "b"], {"a"}, k)


def test_pass_at_k_is_exact_for_many_attempts() -> None:
    assert pass_at_k(100_000, 1, 1) == 1e-5
    assert pass_at_k(10_000, 1, 5000) == 0.5


@pytest.mark.parametrize("given_", [(0, 0, 1), (3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_is_out_of_range(given_: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="but must be"):
        pass_at_k(*given_)


def test_few_tasks_have_the_exact_p_of_all_sign_flips() -> None:
    """Of the 8 sums ±1 ±2 ±3 only 6 is as large as 6: p is 2 / 8; the sum 4 (-1 + 2 + 3) or more has 2: 4 / 8."""
    assert difference([[1], [2], [3]], [[0], [0], [0]])["p"] == 0.25
    assert difference([[0], [2], [3]], [[1], [0], [0]])["p"] == 0.5


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_sums_that_are_equal_but_for_rounding_count_as_equal_at_any_scale(scale: float) -> None:
    """-.7 -.1 +.1 +.7 is 0, in the middle of what the flips give; in floats it is 1e-17 off."""
    assert difference(np.array([[-0.7], [-0.1], [0.1], [0.7]]) * scale, np.zeros((4, 1)))["p"] == 1.0
    assert difference(np.array([[1], [2], [3]]) * scale, np.zeros((3, 1)))["p"] == 0.25


def test_under_no_difference_p_is_as_small_as_it_says_about_as_often() -> None:
    rng = np.random.default_rng(0)
    p = np.array([difference(*rng.normal(size=(2, 9, 1)))["p"] for _ in range(400)])
    for level in (0.1, 0.25, 0.5, 0.75):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.06)


def test_what_is_the_same_has_p_1() -> None:
    found = difference([[0.3], [0.7], [1.0]], [[0.3], [0.7], [1.0]])
    assert (found["difference"], found["p"]) == (0.0, 1.0)
    assert difference([[1], [0]], [[1], [0]])["mcnemar"] == 1.0


def test_many_tasks_get_a_p_from_random_flips_that_is_never_0() -> None:
    found = difference(np.ones((50, 1)), np.zeros((50, 1)))
    assert found["p"] == 2 / 10_000
    assert found["mcnemar"] == pytest.approx(2 / 2**50, rel=1e-5, abs=0)


def test_the_random_flips_are_those_of_scipys_permutation_test() -> None:
    apart = np.sort(np.random.default_rng(3).choice([-1.0, -0.5, 0.25, 0.5, 1.0], 150))
    theirs = stats.permutation_test(
        (apart,),
        lambda values, axis: np.round(values.mean(axis=axis), 10),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    assert difference(apart[:, None], np.zeros((150, 1)))["p"] == pytest.approx(theirs.pvalue)


def test_mcnemars_p_is_that_of_a_coin_over_the_tasks_that_differ() -> None:
    """1 of 6 heads or fewer, on either side: 2 (1 + 6) / 64."""
    ones, others = [[1], [1], [1], [1], [1], [0], [1], [0]], [[0], [0], [0], [0], [0], [1], [1], [0]]
    assert difference(ones, others)["mcnemar"] == pytest.approx(14 / 64)
    assert difference(ones, others)["p"] == pytest.approx(14 / 64)


def test_mcnemar_needs_marks_and_one_seed() -> None:
    assert difference([[0.5], [1]], [[0], [0]])["mcnemar"] is None
    assert difference([[1, 1], [1, 1]], [[0], [0]])["mcnemar"] is None
    assert difference([[1], [1], [0.5]], [[0], [0], [NAN]])["mcnemar"] == 0.5


@given(PAIRS)
@settings(max_examples=30)
def test_with_one_seed_a_difference_of_shares_has_the_interval_of_agresti_and_min(pairs: Any) -> None:
    """Written out: half a task is added to each of the four outcomes."""
    ones, others = (np.array(side)[:, np.newaxis] for side in zip(*pairs, strict=True))
    found, count = difference(ones, others, share=True), len(ones) + 2
    gained, lost = (ones > others).sum() + 0.5, (ones < others).sum() + 0.5
    middle = (gained - lost) / count
    half = 1.96 * np.sqrt((gained + lost) / count - middle**2) / np.sqrt(count)
    assert found["difference"] == pytest.approx((gained - lost) / len(ones), abs=1e-4)
    assert [found["low"], found["high"]] == pytest.approx(np.clip([middle - half, middle + half], -1, 1), abs=1e-4)


@given(PAIRS)
@settings(max_examples=30)
def test_a_difference_is_the_opposite_of_its_opposite_and_never_certain(pairs: Any) -> None:
    ones, others = (np.array(side)[:, np.newaxis] for side in zip(*pairs, strict=True))
    found, opposite = difference(ones, others, share=True), difference(others, ones, share=True)
    for one, other in (("difference", "difference"), ("low", "high"), ("high", "low")):
        assert found[one] == pytest.approx(-opposite[other])  # type: ignore[literal-required]
    assert found["low"] < found["high"]  # type: ignore[operator]


def test_what_is_the_same_does_not_differ_and_two_tasks_prove_nothing() -> None:
    all_solved, none_solved = np.ones((20, 1)), np.zeros((20, 1))
    alike = difference(all_solved, all_solved, share=True)
    assert alike["low"] < 0 < alike["high"]  # type: ignore[operator]
    assert difference(all_solved[:2], none_solved[:2], share=True)["low"] < 0  # type: ignore[operator]
    assert difference(all_solved, none_solved, share=True)["low"] > 0.5  # type: ignore[operator]


@pytest.mark.parametrize("share", [False, True])
@given(values=SHARES, seed=st.integers(0, 9))
@settings(max_examples=30)
def test_a_comparison_is_over_tasks_scored_in_both_in_any_order(share: bool, values: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    others = rng.permuted(values, axis=0)
    scored = ~(np.isnan(values).all(axis=1) | np.isnan(others).all(axis=1))
    order = rng.permutation(np.flatnonzero(scored))
    found = difference(values, others, share=share)
    assert found["tasks"] == scored.sum()
    assert difference(values[order], others[order], share=share) == found


@pytest.mark.parametrize("share", [False, True])
def test_a_difference_is_paired_and_its_seeds_make_nothing_surer(share: bool) -> None:
    rng = np.random.default_rng(0)
    others = rng.random((30, 2)) * 0.8
    ones = others + 0.1 + rng.normal(size=(30, 2)) * 0.01
    found = difference(ones, others, share=share)
    assert found["p"] is not None
    assert found["p"] < 0.001
    assert found["difference"] == pytest.approx(0.1, abs=0.01)
    same(difference(np.tile(ones, 3), others, share=share), found)
    if not share:  # tasks differ by up to 0.8, but each from itself by 0.1
        assert found["high"] - found["low"] < 0.02  # type: ignore[operator]


def test_holms_correction_on_an_example() -> None:
    """4 × .005, 3 × .01, 2 × .03, and .04 raised to that."""
    found = corrected([difference_of(p) for p in (0.03, 0.005, None, 0.04, 0.01)])
    assert [one["adjusted"] for one in found] == [0.06, 0.02, None, 0.06, 0.03]


@given(st.lists(st.none() | st.floats(1e-6, 1), max_size=12))
def test_corrected_ps_keep_their_order_and_lie_between_p_and_1(given_: list[float | None]) -> None:
    before = [difference_of(p) for p in given_]
    found = corrected(before)
    pairs = sorted((p, one["adjusted"] or 0.0) for p, one in zip(given_, found, strict=True) if p is not None)
    adjusted = [high for _, high in pairs]
    assert adjusted == sorted(adjusted)
    assert all(p <= high * (1 + 1e-5) and high <= 1 for p, high in pairs)
    assert [one["adjusted"] is None for one in found] == [p is None for p in given_]
    assert all(one["adjusted"] is None for one in before)


@cache
def p_of(gained: int, lost: int) -> float:
    """Of the test that comparisons use, on tasks of which so many come out differently."""
    found = difference([[1.0]] * gained + [[0.0]] * lost, [[0.0]] * gained + [[1.0]] * lost, share=True)["p"]
    return 1.0 if found is None else found


def binomial_p(gained: int, lost: int) -> float:
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


@pytest.mark.parametrize(
    ("tasks", "comparisons", "p"), [(30, 1, p_of), (40, 2, p_of), (100, 1, binomial_p), (200, 5, binomial_p)]
)
def test_a_detectable_difference_is_found_as_often_as_asked_by_the_test_that_is_used(
    tasks: int, comparisons: int, p: Any
) -> None:
    """Among so many tasks that not all flips can be tried, by the binomial test that the flips approach."""
    least = detectable(tasks, comparisons=comparisons)
    assert least is not None
    sides = [(0.3 + least) / 2, (0.3 - least) / 2, 0.7]
    samples = np.random.default_rng(0).multinomial(tasks, sides, size=2000)
    found = [p(int(gained), int(lost)) <= 0.05 / comparisons for gained, lost, _ in samples]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


@given(st.integers(1, 5000), st.floats(0.01, 1), st.integers(1, 50))
@settings(deadline=None)
def test_more_tasks_find_less_and_nothing_beyond_what_is_apart_is_promised(
    tasks: int, apart: float, comparisons: int
) -> None:
    least, less = (detectable(count, apart=apart, comparisons=comparisons) for count in (tasks, 2 * tasks))
    assert least is None or (less is not None and 0 < less < least <= apart)


def test_too_few_tasks_find_nothing() -> None:
    """Of 20 tasks 6 come out differently; all of them must be gained for p to be below .05, so chance alone is less."""
    assert detectable(10, apart=0.3) is None
    assert detectable(20, apart=0.3) is None


def test_a_mean_of_which_some_is_unscored_is_told_as_the_lowest_and_the_highest_that_it_can_be() -> None:
    values = np.array([[1.0]] * 8 + [[NAN]] * 22)[:, :, np.newaxis]
    ends = [np.where(np.isnan(values), end, values) for end in (0.0, 1.0)]
    (told,) = bracketed(values, *ends, share=True)
    assert (told["mean"], told["scored"], told["of"]) == (None, 8, 30)
    assert [told["lowest"], told["highest"]] == pytest.approx([8 / 30, 1.0], abs=1e-6)
    assert told["low"] == estimate(ends[0][:, :, 0], share=True)["low"]
    assert told["high"] == estimate(ends[1][:, :, 0], share=True)["high"]


def test_of_scores_without_bounds_what_is_unscored_is_counted() -> None:
    values = np.array([[3.0], [NAN], [5.0]])[:, :, np.newaxis]
    made = np.zeros_like(values)
    (told,) = bracketed(values, made, made, bounds=None)
    assert (told["mean"], told["scored"], told["of"], told["lowest"]) == (4.0, 2, 3, None)


def test_where_all_is_scored_an_estimate_is_what_it_is_and_nothing_more() -> None:
    values = np.array([[0.0], [NAN], [1.0]])[:, :, np.newaxis]  # one was never played
    assert bracketed(values, values, values, share=True) == curve(values, share=True)


def test_the_interval_of_a_mean_ends_within_the_bounds_of_its_values() -> None:
    values = np.array([1.0, 1.0, 0.1])[:, np.newaxis, np.newaxis]
    free, bounded = (bracketed(values, values, values, bounds=bounds)[0] for bounds in (None, (0.0, 1.0)))
    assert free["high"] > 1  # type: ignore[operator]
    assert (bounded["low"], bounded["high"]) == (0.0, 1.0)


@given(arrays.arrays(float, (6, 2), elements=st.sampled_from([0.0, 1.0, NAN])), st.integers(0, 2**12 - 1))
@settings(deadline=None)
def test_whatever_the_unscored_would_have_been_lies_within_the_bracket(values: Any, bits: int) -> None:
    whole = np.where(np.isnan(values), [[bits >> (2 * i + j) & 1 for j in range(2)] for i in range(6)], values)
    ends = [np.where(np.isnan(values), end, values) for end in (0.0, 1.0)]
    (told,) = bracketed(*(each[:, :, np.newaxis] for each in (values, *ends)), share=True)
    true = estimate(whole, share=True)["mean"]
    assert true is not None
    if np.isnan(values).any():
        assert (told["lowest"] or 0.0) - 1e-6 <= true <= (told["highest"] or 0.0) + 1e-6
    else:
        assert told["mean"] == true


def test_a_difference_that_could_be_either_way_is_not_significant() -> None:
    ones, others = np.array([[1.0]] * 8 + [[NAN]] * 22), np.array([[0.0]] * 30)
    plain = difference(ones, others, share=True)
    low, high = (difference(np.where(np.isnan(ones), end, ones), others, share=True) for end in (0.0, 1.0))
    told = bracketed_difference(plain, low, high)
    assert plain["difference"] == 1.0
    assert (told["difference"], told["lowest"], told["highest"]) == (None, low["difference"], 1.0)
    assert (told["p"], told["low"], told["high"]) == (low["p"], low["low"], high["high"])
    either = bracketed_difference(plain, difference(others, ones, share=True), high)
    assert either["p"] == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"tasks": 0}, {"comparisons": 0}, {"apart": 0.0}, {"apart": 1.1}, {"power": 1.0}, {"power": 0.01}, {"alpha": 0.0}],
)
def test_detectable_refuses_what_is_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* {next(iter(wrong.values()))}.*but must be"):
        detectable(**{"tasks": 100, **wrong})


def test_all_of_it_is_plain_json() -> None:
    values = np.random.default_rng(0).random((6, 2))
    found = [estimate(values), *curve(values[..., np.newaxis]), *corrected([difference(values, values[::-1])])]
    assert json.loads(json.dumps(found)) == found


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"scipy is not installed.*\[report\]"):
        detectable(100)
