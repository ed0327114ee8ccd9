import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from icrl_graph.state.loading import load


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


def test_an_edit_within_one_second_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    values = []
    for value in (10, 11, 12):
        path.write_text(f"x = {value}")
        os.utime(path, ns=(0, 10**18 + value))  # the same second, and the same size
        values.append(load(f"{path}:x"))
    assert values == [10, 11, 12]


def test_what_a_file_defines_can_be_pickled(tmp_path: Path) -> None:
    path = tmp_path / "pickled.py"
    path.write_text("def f():\n    return 3\n")
    f = load(f"{path}:f")
    assert pickle.loads(pickle.dumps(f)) is f


def test_threads_that_load_a_file_at_once_get_the_same_object(tmp_path: Path) -> None:
    path = tmp_path / "raced.py"
    path.write_text("import threading\nthreading.Event().wait(0.2)\nx = object()\n")
    with ThreadPoolExecutor(4) as threads:
        assert len({id(x) for x in threads.map(load, [f"{path}:x"] * 4)}) == 1


@pytest.mark.parametrize("of_file", [True, False], ids=["directly", "through a neighbour"])
def test_a_neighbour_that_another_folder_has_loaded_under_its_name_is_refused(tmp_path: Path, of_file: bool) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"shared_{of_file}.py").write_text(f"x = {folder!r}")
        (tmp_path / folder / f"between_{folder}_{of_file}.py").write_text(f"from shared_{of_file} import x")
        source = f"shared_{of_file}" if of_file else f"between_{folder}_{of_file}"
        (tmp_path / folder / "mine.py").write_text(f"from {source} import x")
    assert load(f"{tmp_path}/one/mine.py:x") == "one"
    with pytest.raises(ValueError, match=f"imports 'shared_{of_file}', which is .*one.* and not .*two.*rename"):
        load(f"{tmp_path}/two/mine.py:x")


def test_a_neighbour_with_the_name_of_an_installed_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("x = 1")
    (tmp_path / "mine.py").write_text("import numpy\nx = 2")
    with pytest.raises(ValueError, match=r"imports 'numpy', which is .*__init__\.py here and not .*numpy\.py: rename"):
        load(f"{tmp_path}/mine.py:x")


def test_a_file_may_have_the_name_of_a_module_that_it_imports(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import numpy\nx = numpy.ones(1)[0]")
    assert load(f"{tmp_path}/numpy.py:x") == 1.0


def test_a_relative_import_in_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "relative.py").write_text("from .other import x")
    with pytest.raises(ValueError, match="relative import with no known parent package"):
        load(f"{tmp_path}/relative.py:x")
