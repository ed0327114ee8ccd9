"""The table of docs/performance.md is written by `make perf` alone."""

import ast
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.performance import lab
from tests.performance.table import (
    PACKAGES,
    PAGE,
    Load,
    circumstances,
    ends,
    has_fallen_behind,
    merged,
    rows,
    with_table,
)

HERE = Path(__file__).parent


def test_rows_are_what_the_tests_say() -> None:
    said = ["...", "PERF | round | <= 1x | 0.5x", "it said PERF | x", "PERF | more | stated | 3 (**missed**)\n"]
    assert rows(said) == {"round": ("<= 1x", "0.5x"), "more": ("stated", "3 (**missed**)")}


def test_of_several_repeats_the_table_has_the_middle_one_and_both_ends() -> None:
    repeats = [{"round": ("<= 1x", said)} for said in ("0.9x (3 ms)", "1.20x (4 ms) (**missed**)", "0.80x (2 ms)")]
    assert merged(repeats) == ["| round | <= 1x | 0.9x (3 ms) | 0.8, 1.2 |"]


def test_a_page_tells_the_ends_of_each_row_that_has_been_repeated() -> None:
    page = with_table("<!-- measured: begin --><!-- measured: end -->", "", ["| a | <= 1x | 0.9x | 0.8, 1.2 |"])
    assert ends(page + "\n| b | <= 1x | 0.9x (3 ms) | – |\n") == {"a": (0.8, 1.2)}
    assert ends(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("what", "goal", "measured", "is_behind"),
    [
        ("CPU", "<= 1x", "4.7x (3 ms) (**missed**)", False),
        ("CPU", "<= 1x", "4.9x", True),  # three times the highest, 1.2, and what they lie apart, 0.4
        ("CPU", "<= 1x", "0.1x", False),
        ("CPU", ">= 2x", "0.14x", False),
        ("CPU", ">= 2x", "0.13x", True),
        ("CPU", ">= 2x", "9x", False),
        ("tokens", "<= 1x", "1.7x", False),
        ("tokens", "<= 1x", "1.8x", True),
        ("CPU", "stated", "9x", False),
        ("KB", "<= 100", "900", False),  # no ratio: another machine has another figure
    ],
)
def test_a_ratio_falls_behind_by_more_than_noise_and_margin(
    what: str, goal: str, measured: str, is_behind: bool
) -> None:
    assert has_fallen_behind(what, goal, measured, 0.8, 1.2) is is_behind


@pytest.mark.parametrize("full", [False, True])
def test_a_short_form_fails_where_it_has_fallen_behind(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # captured, else these lines would be rows of `make perf`
    page = tmp_path / "page.md"
    page.write_text("| round | <= 1x | 0.9x | 0.8, 1.2 |\n")
    monkeypatch.setattr(lab, "PAGE", page)
    monkeypatch.setattr(lab, "FULL", full)
    lab.record("another row", "<= 1x", "9x", False)
    with nullcontext() if full else pytest.raises(AssertionError, match="round: 9x, recorded"):
        lab.record("round", "<= 1x", "9x", False)


def test_the_page_has_a_place_for_the_table_and_nothing_in_it_by_hand() -> None:
    page = PAGE.read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- measured: begin -->")
    table, _, _ = rest.partition("<!-- measured: end -->")
    first, *written = [line for line in table.splitlines() if line]
    assert with_table(page, first, written[2:]) == page
    assert all(line.count("|") == 5 for line in written)


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        with_table("a page", "", [])


def test_a_table_says_when_where_and_with_what_it_was_measured() -> None:
    told = circumstances(0.04)
    assert "other programs used 4%" in told
    assert f"{os.cpu_count()} processors" in told
    assert all(f"{name} " in told for name in PACKAGES)


def test_what_children_use_is_not_taken_for_the_load_of_others() -> None:
    load = Load()
    before = os.times()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    after = os.times()
    busy, own, whole = (now - then for now, then in zip(load._used(), load._start, strict=True))
    assert own > 0.99 * (after.children_user - before.children_user) > 0
    assert load.of_others() <= max(0.0, (busy - own) / whole) + 0.05


def test_every_file_here_has_something_for_the_table() -> None:
    for path in HERE.glob("test_*.py"):
        if path.name != Path(__file__).name:
            source = path.read_text(encoding="utf-8")
            named = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
            assert "record" in named, path
