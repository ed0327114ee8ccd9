"""Judged scores corrected by human labels of some answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icrl_graph.benchmarks.labels import FEWEST, corrected_by, prediction_powered, read_labels
from icrl_graph.benchmarks.results import Cell
from tests.test_summary import plan, played, rows_of

NAN = np.nan


def column(*values: float) -> Any:
    return np.array(values, dtype=float)[:, None]


def test_labels_are_read_from_csv_and_json_lines_and_those_of_several_people_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("arm,item,label\nicrl,a,1\nicrl,a,0\nicrl,b,\n")
    assert read_labels(tmp_path / "some.csv") == {Cell("icrl", "a", 0): 0.5}
    (tmp_path / "some.jsonl").write_text(json.dumps({"arm": "icrl", "item": "a", "seed": 2, "label": 1}) + "\n\n")
    assert read_labels(tmp_path / "some.jsonl") == {Cell("icrl", "a", 2): 1.0}
    (tmp_path / "some.jsonl").write_text(json.dumps({"arm": "icrl", "item": 7, "label": 1}))  # as tasks are numbered
    assert read_labels(tmp_path / "some.jsonl") == {Cell("icrl", "7", 0): 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm,item\nicrl,a\n", "holds no label"),
        ("arm,item,label\nicrl,a,good\n", "line 2: it needs arm, item and label, a number; got .*good"),
        ("item,label\na,1\n", "line 2: it needs arm"),
        ("arm,item,label\nicrl,a,nan\n", "line 2: label must be a finite number"),
    ],
)
def test_a_file_of_labels_that_is_wrong_is_refused_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "some.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "some.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"line 1: it needs arm, item and label, a number; got \[1\]"),
        ('{"arm": "icrl", "item": "a", "seed": 1.5, "label": 1}', "line 1: it needs arm"),
        ('{"arm": "icrl", "item": "a", "label": 1' + "0" * 400 + "}", "line 1: it needs arm"),
        ("[" * 100_000, "can't be read: line 1: not JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_a_line_of_labels_that_is_wrong_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "some.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "some.jsonl")


def test_a_file_of_labels_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        read_labels(tmp_path / "none.csv")


def test_a_label_of_a_run_that_is_not_there_is_refused() -> None:
    rows = rows_of(played("icrl", "a", 0.5))
    with pytest.raises(ValueError, match="a label is of 'icrl' on 'b', seed 0, which has no result here"):
        corrected_by({Cell("icrl", "b", 0): 1.0}, plan("icrl"), rows)


def test_a_judge_that_is_off_by_the_same_everywhere_is_put_right() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((60, 1))
    labels = np.where(np.arange(60)[:, None] < 20, true, NAN)
    found, plain = prediction_powered(labels, true + 0.3), prediction_powered(labels, true)
    assert found["mean"] == pytest.approx(plain["mean"], abs=1e-6)
    assert found["mean"] == pytest.approx(true.mean(), abs=0.05)


def test_a_judge_that_says_nothing_leaves_the_estimate_to_the_labels() -> None:
    labels = np.where(np.arange(60)[:, None] < 20, np.arange(60)[:, None] % 2, NAN)
    found = prediction_powered(labels, np.full((60, 1), 0.7))
    assert found["mean"] == pytest.approx(0.5)
    stats = pytest.importorskip("statsmodels.stats.weightstats")
    wanted = stats.DescrStatsW(np.arange(20) % 2).tconfint_mean()
    assert (found["low"], found["high"]) == pytest.approx(wanted, abs=2e-3)


def test_few_labels_correct_nothing_and_where_all_are_labelled_people_decide() -> None:
    scores = np.linspace(0, 1, 30)[:, None]
    few = np.where(np.arange(30)[:, None] < FEWEST - 1, scores, NAN)
    assert prediction_powered(few, scores)["mean"] is None
    assert prediction_powered(scores, scores + 0.2)["mean"] == pytest.approx(0.5)


def test_the_estimate_and_its_interval_are_those_of_an_independent_library() -> None:
    """With the weight given, a difference of two independent means: Welch's interval of statsmodels."""
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    rng = np.random.default_rng(3)
    y = rng.random(25)
    f, rest = y * 0.6 + rng.random(25) * 0.3, rng.random(50)
    labels = np.concatenate([y, np.full(50, NAN)])[:, None]
    found = prediction_powered(labels, np.concatenate([f, rest])[:, None])
    weight = np.cov(y, f)[0, 1] / ((1 + 25 / 50) * np.var(np.concatenate([f, rest]), ddof=1))
    assert 0 < weight < 1
    parts = (weightstats.DescrStatsW(each) for each in (weight * rest, weight * f - y))
    low, high = weightstats.CompareMeans(*parts).tconfint_diff(usevar="unequal")
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=2e-6)


def test_arms_are_corrected_each_and_in_their_differences() -> None:
    """The judge likes one arm by .4 more than people do, and the other as they do."""
    values = np.linspace(0.1, 0.5, 24)
    rows = rows_of(
        *(played("icrl", f"t{at}", value) for at, value in enumerate(values)),
        *(played("best_of_n", f"t{at}", value + 0.4 + at % 3 / 100) for at, value in enumerate(values)),
    )
    labels = {
        Cell(arm, f"t{at}", 0): values[at] + at % 2 / 100 for arm in ("icrl", "best_of_n") for at in range(0, 24, 2)
    }
    icrl, other, apart = corrected_by(labels, plan("icrl", "best_of_n"), rows)
    assert (icrl["labels"], other["labels"], apart["against"]) == (12, 12, "icrl")
    assert other["judged"]["mean"] == pytest.approx(0.71, abs=0.01)
    assert other["corrected"]["mean"] == pytest.approx(0.3, abs=0.03)
    assert apart["judged"]["mean"] == pytest.approx(0.41, abs=0.01)
    assert apart["corrected"]["mean"] == pytest.approx(0.0, abs=0.02)
