"""`icrl show` and `icrl report` of one run: what is saved, as it is, and nothing paid, written or imported for it."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import improve
from icrl_graph.benchmarks.results import read_results
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.command_line import ROOT, Done, icrl, process

SCORE = """
import os, subprocess, sys

def score(response):
    return {"value": len(response) / 100, "feedback": "of <so> many letters"}

def deadly(response):
    if len(response) == 3 and not os.path.exists("mended"):
        os._exit(9)
    return len(response) / 100

def nosy(response):
    if len(response) == 3:
        with open("seen.json", "w") as file:
            subprocess.run([sys.executable, "-m", "icrl_graph", "show", "out", "--json"], stdout=file, check=True)
    return len(response) / 100

def say(messages):
    return "x" * (1 + sum(message["role"] == "assistant" for message in messages))

def thinker(messages):
    return "<think>" + "SECRET " * 500 + "</think>x"

def rude(messages):
    return "\\x1b[31mred\\x00 \\ud800 end"
"""
METHOD = """
from pathlib import Path
from icrl_graph import create_icrl

Path("imported").touch()


def create_mine(model, evaluator, *, rounds=2, **options):
    return create_icrl(model, evaluator, schedule="plain", rounds=rounds, **options)


def layout(preamble, task, episodes, instruction, style):
    return [{"role": "user", "content": f"mine: {len(episodes)}"}]
"""
BASE = ("run", "Say x.", "--model", "parts.py:say", "--out", "out")
LOOK = """
import sys
from icrl_graph.cli import app
for command in sys.argv[1:]:
    assert not app(command.split(), prog_name="icrl", standalone_mode=False)
"""


@pytest.fixture
def folder(here: Path) -> Path:
    (here / "parts.py").write_text(SCORE)
    (here / "method.py").write_text(METHOD)
    return here


def _run(*arguments: str, evaluator: str = "score") -> None:
    done = icrl(*BASE, "--evaluator", f"parts.py:{evaluator}", *arguments)
    assert done.returncode == 0, done.stderr


def _shown(*arguments: str) -> Any:
    done = icrl("show", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _looked(folder: Path, *commands: str) -> Done:
    """The commands, one after another, in a process that has imported nothing before."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    looking = [sys.executable, "-c", LOOK, *commands]
    return subprocess.run(looking, capture_output=True, text=True, cwd=folder, env=environment, check=True)


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All that is in a folder, and when it was written."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("topology", "layout"), [*product(["icrl", "reflexion", "self_refine"], ["turns", "transcript"])]
)
def test_the_prompts_shown_are_those_that_were_sent(folder: Path, topology: str, layout: str) -> None:
    with OpenAIServer(lambda messages: f"said {len(messages)}") as server:
        asked = ("--topology", topology, "--layout", layout, "--rounds", "3", "--base-url", server.base_url)
        _run("--model", "openai:any", *asked)
    shown = [attempt["prompt"] for attempt in _shown("out", "--prompts")["attempts"]]
    sent = [[{"role": m["role"], "content": m["content"]} for m in prompt] for prompt in server.prompts]
    assert len(shown) == 3
    assert all(prompt in sent for prompt in shown)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_run_is_shown_and_its_folder_is_left_as_it_was(folder: Path, topology: str) -> None:
    size = ("--n" if topology == "best_of_n" else "--rounds", "3")
    _run("--topology", topology, *size)
    before = _files(folder / "out")
    (folder / "out").chmod(0o555)
    shown, words = _shown("out"), icrl("show", "out").stdout
    result = json.loads((folder / "out" / "result.json").read_text())
    assert [attempt["response"] for attempt in shown["attempts"]] == [e["response"] for e in result["episodes"]]
    assert {name: shown[name] for name in ("answer", "reward", "stopped", "rewarded_by")}.items() <= result.items()
    assert sum(attempt["chosen"] for attempt in shown["attempts"]) == 1
    assert "feedback: of <so> many letters" in words
    assert f"stopped by {result['stopped']}" in words
    assert icrl("show", "out", "--prompts").returncode == icrl("show", "out", "--round", "1").returncode == 0
    assert _files(folder / "out") == before


def test_one_round_is_shown_in_full(folder: Path) -> None:
    _run("--rounds", "4")
    words = icrl("show", "out", "--round", "2").stdout
    assert "round 2, exploit" in words
    assert words.count("----- user") == 2
    assert "<feedback>\nof <so> many letters\n</feedback>" in words
    assert "----- response\nxx\n" in words
    assert "round 3" not in words
    done = icrl("show", "out", "--round", "9")
    assert (done.returncode, done.stderr) == (2, "error: there is no round 9; the run has 4 so far\n")


def test_the_candidates_of_a_round_are_all_shown(folder: Path) -> None:
    _run("--topology", "best_of_n", "--n", "3")
    words = icrl("show", "out", "--round", "1").stdout
    assert [f"round 1.{k}" in words for k in (1, 2, 3)] == [True] * 3


def test_a_killed_run_is_shown_and_can_still_be_resumed(folder: Path) -> None:
    killed = process(*BASE, "--evaluator", "parts.py:deadly", "--rounds", "5", cwd=folder)
    assert killed.returncode == 9
    before = _files(folder / "out")
    shown = _shown("out")
    assert [attempt["response"] for attempt in shown["attempts"]] == ["x", "xx", "xxx"]
    assert [attempt["reward"] for attempt in shown["attempts"]] == [0.01, 0.02, None]
    assert not shown["ended"]
    assert "It has not ended: 3 attempts so far, best reward 0.02" in icrl("show", "out").stdout
    assert _files(folder / "out") == before
    (folder / "mended").touch()
    assert icrl("resume", "out").returncode == 0
    assert _shown("out")["ended"]


def test_a_run_that_is_under_way_is_shown(folder: Path) -> None:
    done = process(*BASE, "--evaluator", "parts.py:nosy", "--rounds", "5", cwd=folder)
    assert done.returncode == 0, done.stderr
    seen = json.loads((folder / "seen.json").read_text())
    assert [attempt["response"] for attempt in seen["attempts"]] == ["x", "xx", "xxx"]
    assert not seen["ended"]
    assert _shown("out")["ended"]


def test_a_run_that_has_not_begun_is_shown(folder: Path) -> None:
    _run("--rounds", "2")
    (folder / "out" / "run.sqlite").unlink()
    assert "It has not ended: 0 attempts so far" in icrl("show", "out").stdout
    assert "rounds 2" in icrl("show", "out").stdout
    assert icrl("report", "out").returncode == 0


@pytest.mark.parametrize("custom", [("--topology", "method.py:create_mine"), ("--layout", "method.py:layout")])
def test_code_that_the_folder_names_is_imported_for_its_prompts_alone(folder: Path, custom: tuple[str, str]) -> None:
    _run("--rounds", "2", *custom)
    (folder / "imported").unlink()
    (folder / "parts.py").write_text("raise SystemExit('imported')")
    _looked(folder, "show out", "show out --json", "report out")
    assert not (folder / "imported").exists()
    assert "icrl show --prompts" in (folder / "out" / "report.html").read_text()
    done = _looked(folder, "show out --prompts --json")
    assert "method.py" in done.stderr
    assert (folder / "imported").exists()
    assert len(json.loads(done.stdout)["attempts"][1]["prompt"]) > 0


@pytest.mark.parametrize("option", ["layout", "reward_label", "anything"])
def test_code_that_run_json_alone_names_is_not_imported_for_a_report_and_told_before_it_is_for_prompts(
    option: str, folder: Path
) -> None:
    """The state of the run names none: a stranger has edited the folder."""
    _run("--rounds", "2")
    (folder / "evil.py").write_text(f"open({str(folder / 'imported')!r}, 'w').close()\n\ndef lay(*parts): return []\n")
    about = json.loads((folder / "out" / "run.json").read_text())
    about["options"][option] = "evil.py:lay"
    (folder / "out" / "run.json").write_text(json.dumps(about))
    (folder / "imported").unlink(missing_ok=True)
    icrl("report", "out")
    icrl("show", "out")
    assert not (folder / "imported").exists()
    done = icrl("show", "out", "--round", "1")
    assert "evil.py:lay" in done.stderr


def test_what_a_model_says_does_not_steer_the_terminal(folder: Path) -> None:
    _run("--model", "parts.py:rude", "--rounds", "2")
    shown = icrl("show", "out").stdout, process("show", "out", "--prompts", cwd=folder).stdout
    for words in shown:
        assert "red" in words
        assert not {"\x1b", "\x00"} & set(words)


def test_a_folder_that_holds_no_run_or_a_broken_one_is_a_clear_error(folder: Path) -> None:
    assert "nowhere holds no run" in icrl("show", "nowhere").stderr
    _run("--rounds", "2")
    (folder / "out" / "run.sqlite").write_bytes(b"no database" * 1000)
    for command in ("show", "report"):
        done = icrl(command, "out")
        assert done.returncode == 2
        assert done.stderr.startswith("error: out/run.sqlite can't be read")


def test_a_run_of_a_comparison_is_shown_by_its_arm_task_and_seed(folder: Path) -> None:
    asked = ("bench", "hidden-color", "--limit", "2", "--rounds", "2", "--out", "colors")
    assert icrl(*asked, "--topologies", "icrl,method.py:create_mine").returncode == 0
    for cell, row in read_results(folder / "colors").rows.items():
        name = f"{'icrl' if cell.arm == 'icrl' else 'method.py:create_mine'}/{cell.item}/0"
        shown = _shown("colors", "--run", name, "--prompts")
        assert [attempt["response"] for attempt in shown["attempts"]] == [e["response"] for e in row["episodes"]]
        assert all(attempt["prompt"] for attempt in shown["attempts"])
    for arguments in ((), ("--run", "icrl/#000/7")):
        done = icrl("show", "colors", *arguments)
        assert done.returncode == 2
        assert "name one as ARM/TASK/SEED, such as --run '" in done.stderr


def test_looking_calls_no_model_and_no_evaluator(folder: Path) -> None:
    with OpenAIServer(lambda: "x") as server:
        _run("--model", "openai:any", "--base-url", server.base_url, "--rounds", "3")
        before = len(server.prompts)
        for command in (("show", "out"), ("show", "out", "--prompts"), ("report", "out")):
            assert icrl(*command).returncode == 0
        assert len(server.prompts) == before == 3


def test_a_run_of_improve_is_no_folder_of_a_run(folder: Path) -> None:
    improve("?", lambda: 1.0, model=lambda: "x", rounds=1, path=folder / "mine" / "run.sqlite")
    assert "mine holds no run" in icrl("show", "mine").stderr


def test_reasoning_is_shown_shortened_and_whole_as_json(folder: Path) -> None:
    _run("--model", "parts.py:thinker", "--rounds", "2")
    assert "SECRET" not in icrl("show", "out").stdout
    shown = icrl("show", "out", "--round", "2").stdout
    assert "----- reasoning, 3,499 characters\nSECRET SECRET" in shown
    assert shown.count("SECRET") < 50
    (attempt, _) = _shown("out")["attempts"]
    assert (attempt["response"], attempt["reasoning"]) == ("x", ("SECRET " * 500).strip())


def test_the_command_line_takes_tags_of_reasoning(folder: Path) -> None:
    _run("--model", "parts.py:thinker", "--rounds", "1", "--set", "reasoning_tags=off")
    assert _shown("out")["attempts"][0]["response"].startswith("<think>SECRET")
    wrong = icrl(*BASE, "--set", "reasoning_tags=plan")
    assert (wrong.returncode, "OPENING...CLOSING" in wrong.stderr) == (2, True)
