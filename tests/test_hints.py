"""A command that a message prints is one that the command line takes as it is printed, for paths with spaces, too."""

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from icrl_graph.benchmarks import compare
from icrl_graph.cli.shared import app
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.testing import OpenAIServer
from tests.command_line import icrl, started

PACKAGE = Path(__file__).parents[1] / "icrl_graph"
GROUP: Any = typer.main.get_command(app)
HINT = re.compile(rf"""(?P<quote>['"]?)(?P<hint>icrl (?:{"|".join(GROUP.commands)})\b.*?)(?P=quote)(?=$|, )""", re.M)


def _hints(text: str) -> list[list[str]]:
    return [shlex.split(found["hint"])[1:] for found in HINT.finditer(text)]


def _parsed(hint: list[str]) -> Any:
    """What the command line makes of a hint; raises where it takes it for a mistake."""
    name, *arguments = hint
    if arguments == ["-h"]:
        return {}
    return GROUP.commands[name].make_context(name, list(arguments)).params


PARTS = """
def score(response):
    return 1.0

def broken(response):
    raise RuntimeError("no verdict today")

def model(messages):
    if "Broken." in str(messages):
        raise RuntimeError("no luck")
    return "abc"

def memory(episodes, *rest):
    return []
"""
BENCH = """
from icrl_graph.benchmarks import Benchmark
BENCH = Benchmark("mine", lambda: ["a"], lambda name: {"task": name, "task_data": {}}, broken)
"""
RUN = ("run", "hidden-color:#3b9", "--model", "learner:hidden-color", "--rounds", "1")
OUT = ("--out", "my runs/x")


BROKEN = ("--evaluator", "my parts.py:broken")


def _bench(*more: str) -> Any:
    tasks = Path("my tasks.jsonl")
    tasks.write_text('{"task": "Be long."}\n{"task": "Broken."}\n')
    small = ("--topologies", "icrl", "--rounds", "1", "--model", "my parts.py:model")
    return icrl("bench", str(tasks), *small, *OUT, *more)


def _two_runs_in_a_folder() -> Any:
    icrl(*RUN, *OUT)
    return icrl(*RUN, *OUT)


def _model_error(*how: str) -> Any:
    with OpenAIServer(lambda: "x", faults=dict.fromkeys(range(1, 99), "401")) as server:
        return icrl(*how, "--model", "openai:a", "--base-url", server.base_url, *OUT)


def _dead_model() -> Any:
    return icrl("run", "Broken.", "--model", "my parts.py:model", "--evaluator", "my parts.py:score", *OUT)


def _unscored(*how: str) -> Any:
    return icrl("bench", *how, "--limit", "1", "--topologies", "icrl", "--rounds", "1", *OUT)


def _own_evaluator() -> Any:
    Path("my bench.py").write_text(f"{PARTS}{BENCH}")
    return _unscored("my bench.py:BENCH", "--model", "my bench.py:model")


def _judged_without_a_verdict() -> Any:
    with OpenAIServer(lambda: "No.") as server:
        where = ("--base-url", server.base_url, "--judge", "openai:judge", "--rubric", "Is it 'good'?")
        return _unscored("hidden-color", "--model", "openai:policy", *where)


def _rejudged_without_a_verdict() -> Any:
    icrl("bench", "hidden-color", "--limit", "1", "--topologies", "icrl", "--rounds", "1", *OUT)
    return icrl("rejudge", "my runs/x", "--evaluator", "my parts.py:broken", "--out", "my runs/y")


def _told() -> Any:
    with OpenAIServer(lambda: "No.") as server:
        judge = ("--judge", "openai:judge", "--rubric", "Is it good?", "--judge-base-url", server.base_url)
        _bench(*judge, "--base-url", "http://127.0.0.1:9/v1")
        return icrl("resume", "my runs/x")


def _untrusted() -> Any:
    compare("hidden-color", "icrl", limit=1, rounds=1, memory=f"{Path.cwd()}/my parts.py:memory", folder="my runs/x")
    return icrl("report", "my runs/x")


SITUATIONS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a folder with a run": (_two_runs_in_a_folder, ["resume"]),
    "a wrong key": (lambda: _model_error(*RUN[:2]), ["resume"]),
    "a dead model": (_dead_model, ["resume"]),
    "a failed run of a comparison": (lambda: _bench("--evaluator", "my parts.py:score"), ["report", "resume"]),
    "an evaluator that is broken": (
        lambda: _bench("--evaluator", "my parts.py:broken"),
        ["report", "rejudge", "resume"],
    ),
    "a benchmark's own evaluator that is broken": (_own_evaluator, ["report", "rejudge"]),
    "a judge without a verdict": (_judged_without_a_verdict, ["report", "rejudge"]),
    "judged again without a verdict": (_rejudged_without_a_verdict, ["report", "rejudge"]),
    "an address that a folder names": (_told, ["resume", "resume", "report", "rejudge", "resume"]),
    "a total": (lambda: _unscored("hidden-color", "--seeds", "2", "--total-calls", "1"), ["report", "resume"]),
    "a report of custom parts": (_untrusted, ["report"]),
    "an option of another demo": (lambda: icrl("demo", "--ranked", "my games.csv"), ["demo"]),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_a_message_says_to_run_can_be_run_as_it_is_printed(
    situation: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RateLimit, "_exponential", lambda rate_limit, number: 0.0)  # by then the judge's server is gone
    Path("my parts.py").write_text(PARTS)
    happen, names = SITUATIONS[situation]
    done = happen()
    hints = _hints(done.stdout + "\n" + done.stderr)
    assert sorted(name for name, *_ in hints) == sorted(names), done.stdout + done.stderr
    for hint in hints:
        parsed = _parsed(hint)
        if "folder" in parsed:
            assert parsed["folder"].is_dir()
        if hint[0] == "rejudge" and parsed:
            assert not parsed["out_dir"].exists()
            assert icrl(*hint).returncode == 1  # it runs, and comes to the same
            assert parsed["out_dir"].exists()


def test_the_hint_of_a_server_can_be_run(here: Path) -> None:
    with started("serve", "--port", "0", cwd=here) as server:
        server.stdout.readline()
        (hint,) = _hints(server.stdout.readline())
        server.kill()
    assert _parsed(hint)["task"] == "hidden-color:#b94"


def test_no_message_writes_a_command_by_hand() -> None:
    """They are made by `command`, which quotes paths."""
    written = re.compile(rf"\bicrl ({'|'.join(GROUP.commands)})\b")
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
                assert not written.search(" ".join(map(str, parts))), f"{path}:{node.lineno}"


def test_examples_in_the_help_can_be_run() -> None:
    for name, command in GROUP.commands.items():
        lines = [line.strip() for line in (command.epilog or "").splitlines()]
        examples = [line for line in lines if re.match(r"(\w+=\S+ )*icrl ", line)]
        assert examples, name
        for example in examples:
            words = shlex.split(example.partition(" | ")[0])
            _parsed(words[words.index("icrl") + 1 :])
