from pathlib import Path

import pytest

from icrl_graph.state.choices import load


def test_an_object_of_a_file_or_of_a_module(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 3\nanswer = A().x\n")
    assert load(f"{path}:answer") == 3
    assert load("json:dumps")(1) == "1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "named 'path.py:name'"),
        ("a.py:", "named 'path.py:name'"),
        ("missing.py:x", "no file missing.py"),
        ("no_such_module:x", "no_such_module"),
        ("json:no_such_name", "has no 'no_such_name'.*dumps"),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(spec)


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("x = 7")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import x")
    assert load(f"{tmp_path}/mine.py:x") == 7


def test_a_file_that_ends_the_process_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text("raise SystemExit(0)")
    with pytest.raises(ValueError, match="SystemExit"):
        load(f"{tmp_path}/exits.py:x")


def test_a_file_that_fails_says_how(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load(f"{path}:x")
