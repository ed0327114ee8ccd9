"""The public names: sorted, complete, and lazy."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import icrl_graph
import icrl_graph.benchmarks
import icrl_graph.environments
import icrl_graph.evaluators
import icrl_graph.execution
import icrl_graph.models
import icrl_graph.testing
import icrl_graph.topologies

DOORS = [
    icrl_graph,
    icrl_graph.benchmarks,
    icrl_graph.environments,
    icrl_graph.evaluators,
    icrl_graph.execution,
    icrl_graph.models,
    icrl_graph.testing,
    icrl_graph.topologies,
]


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_loads(door: ModuleType) -> None:
    for name in door.__all__:
        assert getattr(door, name) is not None


@pytest.mark.parametrize("door", DOORS)
def test_names_are_few_and_each_stands_there_once(door: ModuleType) -> None:
    assert len(set(door.__all__)) == len(door.__all__) <= 30


@pytest.mark.parametrize("door", DOORS)
def test_type_checkers_see_the_same_names(door: ModuleType) -> None:
    tree = ast.parse(Path(str(door.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef)}
    assert seen == set(door.__all__) - defined


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_name_is_an_attribute_error(door: ModuleType) -> None:
    assert not hasattr(door, "no_such_name")


def _loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = {"openai", "langchain_openai", "sqlite3", "numpy", "langgraph", "langchain_core", "pydantic"}
    assert not _loaded("import icrl_graph") & heavy
    assert not _loaded("import icrl_graph.models") & heavy
    assert not _loaded("import icrl_graph.execution") & heavy
    assert not _loaded("from icrl_graph.evaluators import isolated") & heavy  # as in the worker of an isolated one


def test_building_a_graph_loads_no_client_no_database_and_no_numpy() -> None:
    built = _loaded("from icrl_graph import create_icrl\ncreate_icrl(lambda: 'a', lambda: 1.0)")
    assert not built & {"openai", "langchain_openai", "sqlite3", "numpy", "aiohttp"}


def test_a_groups_function_is_not_hidden_by_a_module_of_its_name() -> None:
    """In any order of imports: a submodule becomes an attribute of its package once it is imported."""
    for group in DOORS:
        modules = {path.stem for path in Path(str(group.__file__)).parent.glob("*.py")}
        folders = {path.name for path in Path(str(group.__file__)).parent.iterdir() if path.is_dir()}
        assert not (modules | folders) & set(group.__all__), group.__name__


def test_environments_give_their_pool_and_rollouts() -> None:
    for name in icrl_graph.environments.__all__:
        assert getattr(icrl_graph.environments, name) is not None
