"""Results and comparisons as a notebook shows them: HTML that holds no markup of a model, data frames, plots."""

import re
import sys
import types
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from icrl_graph import MissingExtra, compare, improve
from icrl_graph.api import Result
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.helpers import GAME, climber, nearness

HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "an end of the table": "</td></tr></table><img src=x onerror=alert(1)>",
    "unclosed tags": "<b><i><table><td",
    "entities": "&lt;script&gt; &amp; \" ' `",
    "control characters": "a\0b\x1b[31mc\x85d",
    "half a character": "a\ud800b\udfffc",
    "marks of direction": "\u202egnorw\u202c \u200f\u2067x",
    "a megabyte": "<b>" * 350_000,
    "blanks": " \n\t " * 1000,
}
ALLOWED = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "title", "polyline"}


class Tags(HTMLParser):
    """The tags of a text, each closed where it should be, and what the cells say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag != "polyline":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "polyline":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _result(**options: Any) -> Result:
    return improve(**GAME, score=nearness, model=climber, **options)


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["response", "error", "instruction"])
def test_whatever_is_said_is_text_in_the_html_of_a_result(said: str, where: str) -> None:
    model = ScriptedModel(["1", ValueError(said) if where == "error" else said])
    options: Any = {"schedule": lambda round, past: said} if where == "instruction" else {}
    result = improve("?", lambda response: len(response), model=model, rounds=2, **options)
    shown = Tags(result._repr_html_())
    assert shown.seen <= ALLOWED
    text = result._repr_html_()
    assert len(text) < 10_000
    text.encode()
    assert not {"\0", "\x1b", "\x85"} & set(text)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_result_has_a_table_and_a_curve_of_its_attempts_whatever_the_method(topology: str) -> None:
    result = _result(topology=topology, **({"n": 3} if topology == "best_of_n" else {"rounds": 3}))
    shown = Tags(result._repr_html_())
    assert {"table", "svg", "polyline"} <= shown.seen
    assert result._repr_html_().count("<tr>") == 1 + 3
    assert result.answer in "".join(shown.words)


def test_without_a_score_there_is_no_curve() -> None:
    def fails() -> float:
        raise RuntimeError("no judge")

    result = improve("?", fails, model=lambda: "x", rounds=2)
    assert "svg" not in Tags(result._repr_html_()).seen


@pytest.mark.parametrize(
    ("shown", "of_a_round"),
    [(repr, r"^ +(\d+) (?:explore|exploit)"), (Result._repr_html_, r"<tr><td[^>]*>(\d+)</td>")],
)
def test_of_300_rounds_the_first_and_the_last_are_shown(shown: Callable[[Result], str], of_a_round: str) -> None:
    model = ScriptedModel(lambda messages: "x")
    text = shown(improve("?", lambda: 0.5, model=model, rounds=300, memory="none"))
    assert "... 290 more ..." in text
    rounds = [int(number) for number in re.findall(of_a_round, text, re.M)]
    assert rounds == [1, 2, 3, 4, 5, 296, 297, 298, 299, 300]
    short = improve("?", lambda: 0.5, model=model, rounds=16, memory="none")
    assert "more" not in shown(short)


def _pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = types.ModuleType("pandas")
    fake.DataFrame = lambda rows: rows
    monkeypatch.setitem(sys.modules, "pandas", fake)


def test_the_frame_of_a_result_has_a_row_for_each_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    named = AIMessage("42", response_metadata={"model_name": "scripted"})
    model = ScriptedModel(["10", RuntimeError("down"), "word", named], usage=usage)
    prices = {"scripted": {"input": 1.0, "output": 2.0}}
    result = improve(**GAME, score=nearness, model=model, rounds=4, prices=prices)
    _pandas(monkeypatch)
    rows = result.to_pandas()
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert [row["candidate"] for row in rows] == [1] * 4
    assert [row["response"] for row in rows] == ["10", None, "word", "42"]
    assert [row["reward"] for row in rows] == [pytest.approx(0.68), None, None, 1.0]
    assert "down" in rows[1]["error"]
    assert "invalid literal" in rows[2]["error"]
    assert [row["tokens"] for row in rows] == [12, None, 12, 12]
    assert rows[3]["usd"] == pytest.approx(14e-6)
    names = {"instruction", "answer", "metric", "seconds", "calls"}
    assert all(names <= row.keys() for row in rows)


def test_the_candidates_of_a_round_are_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _pandas(monkeypatch)
    rows = _result(topology="best_of_n", n=3).to_pandas()
    assert [(row["round"], row["candidate"]) for row in rows] == [(1, 1), (1, 2), (1, 3)]


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result: Any = _result(rounds=1)
    compared: Any = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "x")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for each in (result, compared):
        with pytest.raises(MissingExtra, match=r"icrl-graph\[pandas\]"):
            each.to_pandas()
        with pytest.raises(MissingExtra, match=r"icrl-graph\[report\]"):
            each.plot()


def test_a_plot_has_the_reward_by_round_and_the_best_so_far() -> None:
    from matplotlib.figure import Figure

    model = ScriptedModel(["10", "50", "word", "30"])
    result = improve(**GAME, score=nearness, model=model, rounds=4)
    given: Any = Figure().subplots()
    axes = result.plot(given)
    assert axes is given
    reward, best = axes.get_lines()
    assert list(reward.get_xdata()) == list(best.get_xdata()) == [1, 2, 4]
    assert list(reward.get_ydata()) == pytest.approx([0.68, 0.92, 0.88])
    assert list(best.get_ydata()) == pytest.approx([0.68, 0.92, 0.92])
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["round", "reward"]


def test_by_itself_a_plot_is_a_figure_that_a_notebook_shows() -> None:
    from matplotlib import pyplot

    axes = _result(rounds=2).plot()
    assert pyplot.fignum_exists(axes.figure.number)
    pyplot.close(axes.figure)


def test_a_comparison_has_the_same_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    compared = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "<b>x")
    shown = Tags(compared._repr_html_())
    assert shown.seen <= ALLOWED
    assert {"table", "svg"} <= shown.seen
    for words in ("icrl", "best_of_n", "Against icrl, over the same tasks", "p (Holm)"):
        assert words in "".join(shown.words)
    axes = compared.plot(Figure().subplots())
    assert [line.get_label() for line in axes.get_lines()] == ["icrl", "best_of_n"]
    _pandas(monkeypatch)
    assert [row["arm"] for row in compared.to_pandas()] == ["icrl", "best_of_n"]
    assert len(compared.to_pandas("attempts")) == 8
    assert compared.frame("attempts") == compared.to_pandas("attempts")


def test_a_comparison_without_scipy_or_without_a_result_still_shows_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = compare("hidden-color", "icrl,best_of_n", limit=2, rounds=2, folder=tmp_path / "x")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    shown = "".join(Tags(compared._repr_html_()).words)
    assert "No table" in shown
    assert f"Saved in {tmp_path / 'x'}" in shown
