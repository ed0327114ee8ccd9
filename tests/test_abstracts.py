"""Abstracts: the papers that ship, custom ones, and the reward by ROUGE-1."""

import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icrl_graph.benchmarks.api import compare
from icrl_graph.benchmarks.experiment import make_plan, prepare
from icrl_graph.errors import MissingExtra
from icrl_graph.tasks.abstracts import overlap
from icrl_graph.tasks.abstracts.items import load, read_item, task
from icrl_graph.tasks.abstracts.overlap import f1, recall
from icrl_graph.tasks.abstracts.texts import PAPERS, Paper
from icrl_graph.testing import ScriptedModel

if not os.environ.get("CI"):
    pytest.importorskip("rouge_score", reason="needs rouge-score: pip install 'icrl-graph[abstracts]'")

DATA = {"abstract": "The cat sat on the mat, and the dog did not."}


# ------------------------------------------------------------------------------------------------------------ the items


def test_there_are_12_papers_of_different_titles_with_abstracts_of_80_to_160_words() -> None:
    assert len({paper.title for paper in PAPERS}) == len(PAPERS) == 12
    assert all(80 <= len(paper.abstract.split()) <= 160 for paper in PAPERS)


def test_a_paper_is_the_same_for_ever() -> None:
    """If this fails, results that name a paper's number are no longer comparable with earlier ones."""
    assert hashlib.sha256(json.dumps(PAPERS).encode()).hexdigest()[:16] == "ab47f3b2fed593be"


def test_a_task_names_the_title_and_never_the_abstract() -> None:
    made = task(PAPERS[3])
    assert PAPERS[3].title in made["task"]
    assert not [sentence for sentence in PAPERS[3].abstract.split(". ") if sentence in made["task"]]
    assert made["task_data"] == {"abstract": PAPERS[3].abstract}


@pytest.mark.parametrize("text", ["", "12", "-1", "+1", "01", "one", "٧"])
def test_another_item_than_0_to_11_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="a number from 0 to 11, like '7', got"):
        read_item(text)
    assert read_item(" 11 ") == PAPERS[11]


# ------------------------------------------------------------------------------------------------------- custom papers


def test_papers_are_read_from_a_file_with_other_fields_ignored(tmp_path: Path) -> None:
    path = tmp_path / "papers.jsonl"
    lines = [{"title": "A", "abstract": "We\u2028do it.", "year": 2025}, {"abstract": "Two.", "title": "B"}]
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8-sig")
    assert load(path) == [Paper("A", "We\u2028do it."), Paper("B", "Two.")]


@pytest.mark.parametrize(
    "line",
    ["no", "[]", '"text"', '{"title": "A"}', '{"title": 3, "abstract": "A"}', '{"title": " ", "abstract": "A"}',
     '{"title": "A", "abstract": null}', '{"title": "A", "abstract": "…"}', '{"title": "A", "abstract": "日本"}'],
)  # fmt: skip
def test_a_line_that_is_no_paper_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "papers.jsonl"
    path.write_text(f'{{"title": "A", "abstract": "B"}}\n{line}\n')
    with pytest.raises(
        ValueError, match=r'papers\.jsonl, line 2: a line is \{"title": "\.\.\.", "abstract": "\.\.\."\}'
    ):
        load(path)


def test_a_file_without_papers_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "papers.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no papers"):
        load(tmp_path / "papers.jsonl")


# ----------------------------------------------------------------------------------------------------------- the reward


def test_the_reward_is_the_share_of_the_abstracts_words_and_the_metric_also_counts_the_answers() -> None:
    """10 words, of which the answer has "the" twice of three times, cat and dog; and 2 of its own."""
    reward: Any = recall("The cat! The dog: so what", DATA)
    assert reward == {"value": pytest.approx(4 / 11), "metric": pytest.approx(2 * 4 / (11 + 6))}
    assert f1("The cat! The dog: so what", DATA) == {"value": reward["metric"], "metric": reward["value"]}


WORDS = st.lists(st.sampled_from(["the", "cat", "dog", "42", "we"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_it_is_what_lin_2004_defines(wanted: list[str], given_: list[str]) -> None:
    shared = (Counter(wanted) & Counter(given_)).total()
    reward = recall(" ".join(given_), {"abstract": " ".join(wanted)})
    assert reward["value"] == pytest.approx(shared / len(wanted))
    assert reward["metric"] == pytest.approx(2 * shared / (len(wanted) + len(given_)))


def test_recall_rewards_length_and_f1_does_not() -> None:
    padded = DATA["abstract"] + " word" * 90
    assert recall(padded, DATA)["value"] == 1.0
    assert f1(padded, DATA)["value"] == pytest.approx(2 * 11 / 112)


def test_an_answer_without_words_earns_0() -> None:
    assert recall("…", DATA) == {"value": 0.0, "metric": 0.0}


# ----------------------------------------------------------------------------------------------------- the benchmark


def test_the_benchmark_reports_recall_and_f1_beside_each_other(tmp_path: Path) -> None:
    model = ScriptedModel([PAPERS[0].abstract + " word" * 300, PAPERS[0].abstract])
    result = compare("abstracts", "icrl", model=model, items=["0"], rounds=2, folder=tmp_path / "x")
    (row,) = result.rows.values()
    assert [episode["reward"]["value"] for episode in row["episodes"]] == [1.0, 1.0]
    padded, exact = (episode["reward"]["metric"] for episode in row["episodes"])
    assert padded == pytest.approx(2 / 4, abs=0.02)
    assert exact == 1.0
    assert result.summary["measures"] == ["metric", "reward"]
    assert PAPERS[0].abstract not in str(model.prompts[0])


def test_without_the_package_the_extra_is_named_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    overlap._scorer.cache_clear()
    model = ScriptedModel(["An abstract."])
    plan, objects = make_plan("abstracts", "icrl", model=model)
    with pytest.raises(MissingExtra, match=r"pip install 'icrl-graph\[abstracts\]'"):
        prepare(plan, objects).preview()
    assert model.prompts == []
    overlap._scorer.cache_clear()
