"""The table of docs/performance.md is written by `make perf` alone."""

import ast
from pathlib import Path

import pytest

from tests.performance.table import PAGE, rows, with_table

HERE = Path(__file__).parent


def test_rows_are_what_the_tests_say() -> None:
    said = ["...", "PERF | round | <= 1x | 0.5x", "it said PERF | x", "PERF | more | stated | 3 (**missed**)\n"]
    assert rows(said) == ["| round | <= 1x | 0.5x |", "| more | stated | 3 (**missed**) |"]


def test_the_page_has_a_place_for_the_table_and_nothing_in_it_by_hand() -> None:
    page = PAGE.read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- measured: begin -->")
    table, _, _ = rest.partition("<!-- measured: end -->")
    written = [line for line in table.splitlines() if line][2:]
    assert with_table(page, written) == page
    assert all(line.count("|") == 4 for line in written)


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        with_table("a page", [])


def test_every_file_here_has_something_for_the_table() -> None:
    for path in HERE.glob("test_*.py"):
        if path.name != Path(__file__).name:
            source = path.read_text(encoding="utf-8")
            named = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
            assert "record" in named, path
