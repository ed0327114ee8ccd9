"""A stranger's folder is looked at without running what is in it."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from icrl_graph.benchmarks import compare
from icrl_graph.execution.langgraph_internals import PlainSerializer
from tests.command_line import icrl, process

CHILD = """
import asyncio, sys
from icrl_graph import aimprove, improve
from icrl_graph.cli import main
task, model, score = "t", "tests.test_trust:model", lambda response: len(response) / 9
how, path = sys.argv[1:]
if how == "improve":
    improve(task, score, model=model, rounds=3, path=path)
elif how == "aimprove":
    asyncio.run(aimprove(task, score, model=model, rounds=3, path=path))
elif how == "studio":
    import os
    os.chdir(path)
    from icrl_graph.execution.studio_checkpoints import sqlite
    async def read():
        async with sqlite() as saver:
            return [each async for each in saver.alist(None)]
    assert asyncio.run(read())
else:
    sys.argv = ["icrl", "show" if how == "show" else "resume", path]
    main()
"""


def model(messages: list[Any]) -> str:
    """Answers, and ends the process where it is told to."""
    if "DIE" in os.environ and len(messages) > 1:
        os._exit(9)
    return "abc"


def _child(how: str, path: Path, **environment: str) -> Any:
    """Without the strictness that the tests ask of LangGraph: as a user has it."""
    env = {
        **os.environ,
        "LANGGRAPH_STRICT_MSGPACK": "false",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **environment,
    }
    return subprocess.run([sys.executable, "-c", CHILD, how, str(path)], env=env, capture_output=True, text=True)


class Hostile:
    """Is saved as a call of a function."""

    def __init__(self, arguments: dict[str, str]) -> None:
        self.arguments = arguments

    def _asdict(self) -> dict[str, str]:
        return self.arguments


Hostile.__module__, Hostile.__name__ = "builtins", "open"


def _poison(file: Path, marker: Path) -> None:
    """Have every value in a file call `open(marker, "w")` when it is loaded; not the task, which a resume compares."""
    serializer, evil = JsonPlusSerializer(), Hostile({"file": str(marker), "mode": "w"})
    with sqlite3.connect(file) as connection:
        for id, kind, value in connection.execute("SELECT rowid, type, checkpoint FROM checkpoints").fetchall():
            checkpoint = serializer.loads_typed((kind, value))
            checkpoint["channel_values"]["evil"] = evil
            blob = serializer.dumps_typed(checkpoint)[1]
            connection.execute("UPDATE checkpoints SET checkpoint = ? WHERE rowid = ?", (blob, id))
        for id, kind, value in connection.execute(
            "SELECT rowid, type, value FROM writes WHERE channel NOT IN ('usage', 'inputs')"
        ).fetchall():
            written = serializer.loads_typed((kind, value))
            if isinstance(written, dict):
                blob = serializer.dumps_typed({**written, "evil": evil})[1]
                connection.execute("UPDATE writes SET value = ? WHERE rowid = ?", (blob, id))
    connection.close()
    assert not marker.exists()


COMMANDS = {"run": ("run", "hidden-color:#3b9"), "bench": ("bench", "hidden-color", "--limit", "1")}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a killed run of improve, run or bench."""

    @cache
    def kill(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        if kind == "improve":
            code = _child(kind, folder / "run.sqlite", DIE="1").returncode
        else:
            named = ("--model", "tests.test_trust:model", "--rounds", "3", "--out", "x")
            code = process(*COMMANDS[kind], *named, cwd=folder, DIE="1").returncode
        assert code == 9
        return folder

    return kill


def _begun(how: str, folder: Path, killed: Callable[[str], Path]) -> Path:
    """What a killed run has left; returns what is to be resumed."""
    kind = {"aimprove": "improve", "studio": "improve", "show": "run"}.get(how, how)
    shutil.copytree(killed(kind), folder, dirs_exist_ok=True)
    if how == "studio":
        (folder / ".langgraph_api").mkdir()
        for file in folder.glob("run.sqlite*"):
            shutil.move(file, folder / ".langgraph_api" / file.name.replace("run", "checkpoints"))
        return folder
    return folder / ("run.sqlite" if kind == "improve" else "x")


@pytest.mark.parametrize("how", ["improve", "aimprove", "run", "show", "bench", "studio"])
def test_a_strangers_checkpoints_run_no_code(how: str, tmp_path: Path, killed: Callable[[str], Path]) -> None:
    resumed, marker = _begun(how, tmp_path, killed), tmp_path / "marker"
    files = [resumed] if resumed.is_file() else list(resumed.rglob("*.sqlite"))
    assert files
    for file in files:
        _poison(file, marker)
    done = _child(how, resumed)
    assert not marker.exists(), done.stderr
    assert done.returncode == 0, done.stderr


def test_every_database_of_checkpoints_is_opened_with_the_strict_reader() -> None:
    root = Path(__file__).parents[1]
    opened = [
        line
        for path in (root / "icrl_graph").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"SqliteSaver(\.from_\w+)?\(", line)
    ]
    assert len(opened) >= 4
    assert all("serde=PlainSerializer()" in line for line in opened)


def test_a_checkpoint_in_a_form_that_names_classes_is_not_read() -> None:
    named = {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"], "kwargs": {}}
    for kind in ("json", "pickle"):
        with pytest.raises(ValueError, match=f"kind '{kind}' is not read"):
            PlainSerializer().loads_typed((kind, json.dumps(named).encode()))


CODE = """
from pathlib import Path
Path({marker!r}).touch()
from icrl_graph.topologies.methods import create_icrl as create
def part(*arguments): ...
"""
LOOKS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda folder: ["report", "x"],
    **{
        f"rejudge --select {by}": lambda folder, by=by: ["rejudge", "x", "--select", by, "--out", "again"]  # type: ignore[misc]
        for by in ("reward", "majority", "last")
    },
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_strangers_comparison_is_looked_at_and_no_code_is_imported(look: str, here: Path) -> None:
    compare("hidden-color", "icrl", limit=2, rounds=2, folder=here / "x")
    evil, marker = here / "x" / "evil.py", here / "marker"
    evil.write_text(CODE.format(marker=str(marker)))
    plan = json.loads((here / "x" / "bench.json").read_text())
    arms = {"icrl": f"{evil}:create", "more": f"icrl+memory={evil}:part"}
    names = dict.fromkeys(("benchmark", "model", "evaluator", "metric"), f"{evil}:part")
    options = {"layout": f"{evil}:part", "schedule": f"{evil}:part"}
    (here / "x" / "bench.json").write_text(
        json.dumps({**plan, **names, "arms": list(arms.values()), "options": options})
    )
    rows = [json.loads(line) for line in (here / "x" / "results.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "arm": arm}) for arm in arms.values() for row in rows]
    (here / "x" / "results.jsonl").write_text("\n".join(lines) + "\n")
    done = icrl(*LOOKS[look](here))
    assert done.returncode == 0, done.stderr
    assert not marker.exists()
    if look == "report":
        assert "need code that x names. If you trust it: icrl report x --trust\n" in done.stderr
        assert "made by code that the folder names" in (here / "x" / "report.html").read_text()


def test_a_report_of_a_trusted_folder_shows_the_prompts_of_custom_parts(here: Path) -> None:
    (here / "mine.py").write_text("def newest(episodes, *rest):\n    return list(range(len(episodes)))[-1:]\n")
    found = compare("hidden-color", "icrl", limit=1, rounds=2, memory=f"{here}/mine.py:newest", folder=here / "x")
    for write in (lambda: icrl("report", "x", "--trust"), found.report):
        (here / "x" / "report.html").unlink(missing_ok=True)
        write()
        page = (here / "x" / "report.html").read_text()
        assert "made by code that the folder names" not in page
