"""Where the CPU of a round goes, by library: what is ours, what is LangGraph's, what the client's."""

import pytest

from tests.performance.lab import FULL, child, record, serving
from tests.performance.profiled import LIBRARIES, library

TASKS, ROUNDS = (100, 20) if FULL else (5, 5)


@pytest.mark.parametrize(("file", "counts_as"), [
    ("/repo/icrl_graph/.venv/lib/python3.11/site-packages/langgraph/pregel/main.py", "LangGraph"),
    ("/repo/icrl_graph/.venv/lib/python3.11/site-packages/pydantic/main.py", None),
    ("/repo/icrl_graph/prompts/plan.py", "icrl_graph"),
    ("/usr/lib/python3.11/asyncio/events.py", "the event loop"),
    ("/usr/lib/python3.11/selectors.py", "the event loop"),
    ("/usr/lib/python3.11/json/encoder.py", None),
])  # fmt: skip
def test_a_file_counts_for_the_innermost_library_that_is_known(file: str, counts_as: str | None) -> None:
    assert library(file) == counts_as


def test_the_shares_of_a_round_are_told() -> None:
    with serving() as server:
        shares = child("profiled", "ours", TASKS, ROUNDS, server.base_url)
    for name in dict.fromkeys(LIBRARIES.values()):
        record(f"share of the CPU of a round through HTTP: {name}", "stated", f"{shares.get(name, 0):.0%}", True)
    assert sum(shares.values()) == pytest.approx(1)
    assert {"icrl_graph", "LangGraph", "LangChain"} < shares.keys()
