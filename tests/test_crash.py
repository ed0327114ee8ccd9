"""What a crash costs: real processes, killed at random points, and resumed. `make soak` kills more of them."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.crash_child import play

CHILD = Path(__file__).parent / "crash_child.py"
CASES = [  # (topology, size, database, embedded in a larger graph, judged by a model)
    ("icrl", 12, "sqlite", False, False),
    ("icrl", 12, "async sqlite", False, True),
    ("icrl", 12, "postgres", True, False),
    ("icrl", 12, "async postgres pool", False, False),
    ("reflexion", 6, "async sqlite", True, False),
    ("reflexion", 6, "postgres pool", False, True),
    ("self_refine", 6, "sqlite", False, True),
    ("self_refine", 6, "async postgres", True, False),
    ("best_of_n", 16, "sqlite", False, False),
    ("best_of_n", 16, "async postgres", False, True),
    ("best_of_n", 16, "async sqlite", True, True),
    ("best_of_n", 16, "postgres", False, False),
]


class Killed:
    """A child that is started again and again, and what has become of its calls."""

    def __init__(self, folder: Path, databases: Any, case: Any) -> None:
        topology, size, kind, embedded, judged = case
        url = databases() if "postgres" in kind else ""
        folder.mkdir(exist_ok=True)
        self.folder, self.url, self.kind = folder, url, kind
        self.spec = {"folder": str(folder), "url": url, "topology": topology, "size": size, "kind": kind}
        self.spec.update(embedded=embedded, judged=judged)

    def run(self, kill_after: int | None) -> str | None:
        """Start the child; kill it after so many lines of its output. Gives its last line, or None if it was killed."""
        command = [sys.executable, str(CHILD), json.dumps(self.spec)]
        environment = {**os.environ, "PYTHONPATH": str(CHILD.parents[1]), "PYTHONWARNINGS": "ignore"}
        last = ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            for number, line in enumerate(child.stdout, 1):
                last = line
                if number == kill_after:
                    child.kill()
                    return None
            errors = child.stderr.read()
        assert child.returncode == 0, errors
        return last

    def paid(self) -> int:
        log = self.folder / "paid.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def kept(self) -> int:
        """Paid replies in the journal, once the database has noticed that the child is gone."""
        if "postgres" not in self.kind:
            with closing(sqlite3.connect(self.folder / "run.sqlite")) as file:
                made = file.execute("SELECT count(*) FROM sqlite_master WHERE name = 'icrl_replies'").fetchone()[0]
                return int(file.execute("SELECT count(*) FROM icrl_replies").fetchone()[0]) if made else 0
        import psycopg

        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(self.url, autocommit=True) as connection:
            while _first(connection, others):
                pass
            made = _first(connection, "SELECT count(*) FROM pg_tables WHERE tablename = 'icrl_replies'")
            return _first(connection, "SELECT count(*) FROM icrl_replies") if made else 0


def _first(connection: Any, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often each case is killed."""
    return 9 if request.config.getoption("--soak") else 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_killed_run_pays_for_nothing_twice_but_the_calls_in_flight_and_ends_the_same(
    case: Any, kills: int, tmp_path: Path, databases: Any
) -> None:
    if kills == 1 and CASES.index(case) % 2:
        pytest.skip("every other case: make soak has them all")
    whole = Killed(tmp_path / "whole", databases, case)
    wanted = play(whole.spec)  # within this process: it is not killed
    calls = whole.paid()
    rng, done = Random(str(case)), 0
    for run in count():
        if done >= kills:
            break
        killed = Killed(tmp_path / f"killed {run}", databases, case)
        lost, ended = 0, None
        while ended is None:
            kill_after = rng.randint(1, calls) if done < kills else None
            ended = killed.run(kill_after)
            if ended is None:
                done += 1
                in_flight = killed.paid() - killed.kept() - lost
                assert 0 <= in_flight <= (case[1] if case[0] == "best_of_n" else 1)
                lost += in_flight
        assert ended == wanted
        assert killed.kept() == calls
        assert killed.paid() == calls + lost
