"""What imports cost, over LangGraph's."""

import subprocess
import sys

from tests.performance.lab import record


def _seconds(statement: str) -> float:
    code = f"import time\nstart = time.process_time()\n{statement}\nprint(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _import_ratio(statement: str, goal: float) -> float:
    """CPU of an import over that of LangGraph's graphs: the fastest of five each, by turns."""
    langgraph = "from langgraph.graph import StateGraph"
    pairs = [(_seconds(statement), _seconds(langgraph)) for _ in range(5)]
    ours, theirs = min(ours for ours, _ in pairs), min(theirs for _, theirs in pairs)
    record(
        f"CPU of `{statement}` over `import StateGraph`", f"<= {goal}x", f"{ours / theirs:.2f}x", ours <= goal * theirs
    )
    return ours / theirs


def test_importing_the_package_costs_at_most_as_much_as_importing_langgraph() -> None:
    assert _import_ratio("import icrl_graph", 1.1) <= 1.1


def test_loading_the_graphs_costs_little_more_than_langgraph_itself() -> None:
    assert _import_ratio("from icrl_graph import create_icrl", 1.5) <= 1.5
