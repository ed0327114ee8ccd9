"""The public door: sorted, complete, and lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import icrl_graph


def test_every_public_name_loads() -> None:
    for name in icrl_graph.__all__:
        assert getattr(icrl_graph, name) is not None


def test_names_are_sorted_and_few() -> None:
    assert list(icrl_graph.__all__) == sorted(icrl_graph.__all__)
    assert len(icrl_graph.__all__) <= 30


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(icrl_graph.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(icrl_graph.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(icrl_graph, "no_such_name")


def _loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = {"openai", "langchain_openai", "sqlite3", "numpy", "langgraph", "langchain_core", "pydantic"}
    assert not _loaded("import icrl_graph") & heavy


def test_building_a_graph_loads_no_client_no_database_and_no_numpy() -> None:
    built = _loaded("from icrl_graph import create_icrl\ncreate_icrl(lambda: 'a', lambda: 1.0)")
    assert not built & {"openai", "langchain_openai", "sqlite3", "numpy", "aiohttp"}
