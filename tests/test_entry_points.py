"""graphs/ and tools/ are opened by path, as `langgraph dev` and the command line open them."""

import json
import runpy
from pathlib import Path

import pytest

from icrl_graph.evaluators.evaluator import bind_evaluator
from icrl_graph.state.loading import load

ROOT = Path(__file__).parents[1]
CONFIG = json.loads((ROOT / "langgraph.json").read_text())
GRAPHS = CONFIG["graphs"]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_listed_graph_loads_under_its_name_and_without_a_saver(name: str) -> None:
    path, attribute = GRAPHS[name].split(":")
    graph = runpy.run_path(str(ROOT / path))[attribute]
    assert graph.name == name
    assert graph.checkpointer is None


def test_every_graph_file_is_listed() -> None:
    listed = [*GRAPHS.values(), CONFIG["checkpointer"]["path"]]
    assert {Path(spec.split(":")[0]).name for spec in listed} == {p.name for p in (ROOT / "graphs").glob("*.py")}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_listed_graph_runs_at_once_without_any_input(name: str) -> None:
    path, attribute = GRAPHS[name].split(":")
    output = runpy.run_path(str(ROOT / path))[attribute].invoke({}, context={"seed": 1})
    assert output["answer"] is not None
    assert output["reward"] is not None


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_file_is_an_evaluator(path: Path) -> None:
    assert bind_evaluator(load(f"{path}:tool")).names == ("response", "task_data")


@pytest.mark.parametrize(
    "path", [*(ROOT / "graphs").glob("*"), *(ROOT / "tools").glob("*")], ids=lambda path: path.name
)
def test_entry_points_are_thin(path: Path) -> None:
    if path.name != "__pycache__":
        assert path.name != "__init__.py"
        assert len(path.read_text().splitlines()) <= 30
