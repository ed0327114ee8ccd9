"""The graphs that the package lists for Studio, and tools/, opened as the server and the command line open them."""

import json
from pathlib import Path

import pytest

from icrl_graph.cli.studio import SHIPPED
from icrl_graph.evaluators.evaluator import bind_evaluator
from icrl_graph.state.loading import load
from icrl_graph.topologies.methods import TOPOLOGIES

ROOT = Path(__file__).parents[1]
SHOWN = json.loads(SHIPPED.read_text())["graphs"]
GRAPHS = {name: graph["path"] for name, graph in SHOWN.items()}
TOOLS = sorted((ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_listed_graph_loads_under_its_name_and_without_a_saver(name: str) -> None:
    graph = load(GRAPHS[name])
    assert graph.name == name
    assert graph.checkpointer is None


def test_a_checkout_lists_the_graphs_of_the_package() -> None:
    listed = json.loads((ROOT / "langgraph.json").read_text())["graphs"]
    assert listed == {name: {**graph, "path": f"./graphs/{name}.py:graph"} for name, graph in SHOWN.items()}
    assert {path.stem for path in (ROOT / "graphs").glob("*.py")} == GRAPHS.keys()
    for name, graph in listed.items():
        assert load(str(ROOT / graph["path"])) is load(GRAPHS[name])


def test_every_method_is_listed() -> None:
    assert TOPOLOGIES.keys() <= GRAPHS.keys()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_listed_graph_runs_at_once_without_any_input(name: str) -> None:
    output = load(GRAPHS[name]).invoke({}, context={"seed": 1})
    assert output["answer"] is not None
    assert output["reward"] is not None


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_file_is_an_evaluator(path: Path) -> None:
    assert bind_evaluator(load(f"{path}:tool")).names == ("response", "task_data")


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_file_is_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30
