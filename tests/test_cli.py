"""The command line, as a user meets it; as a process of its own wherever that makes a difference."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import icrl_graph
from icrl_graph.cli.shared import app
from icrl_graph.prompts.layouts import parse
from icrl_graph.tasks.game24.game import split
from icrl_graph.tasks.game24.puzzles import puzzles
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import TOPOLOGIES
from icrl_graph.topologies.settings import Settings
from tests.command_line import ROOT, Done, icrl, process, started

CHECKER = f"{ROOT}/tools/check_game24.py:tool"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(solver) as started_server:
        monkeypatch.setenv("OPENAI_BASE_URL", started_server.base_url)
        yield started_server


def failed(done: Done, code: int, message: str) -> None:
    """It ended with this code, says what is wrong in a line, and shows no traceback."""
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


ATTEMPTS = [
    "10 - 4 = 6 (left: 5 6 6)\n5 + 6 = 11 (left: 6 11)\n11 + 6 = 17 (left: 17)\nAnswer: 5 + (10 - 4) + 6",
    "I can't do this.",
    "4 + 5 = 9 (left: 6 9 10)\n9 + 6 = 15 (left: 10 15)\n15 + 10 = 25 (left: 25)\nAnswer: 4 + 5 + 6 + 10",
    "Answer: 4 * 6",
    "10 - 4 = 6 (left: 5 6 6)\n5 * 6 = 30 (left: 6 30)\n30 - 6 = 24 (left: 24)\nAnswer: 5 * (10 - 4) - 6",
    "Answer: 10 + 4",
]


def solver(messages: list[dict[str, Any]]) -> str:
    """A policy that is computed from its prompt: another attempt for another history."""
    seen = parse(messages).attempts
    total = sum(round(10 * (attempt.value or 0.0)) for attempt in seen)
    return f"{ATTEMPTS[len(seen) % len(ATTEMPTS)]}\n" if len(seen) % 2 else f"({total})\n{ATTEMPTS[len(seen) % 6]}"


def _outcome(done: Done) -> Any:
    result = json.loads(done.stdout)
    return result["answer"], [episode["reward"] for episode in result["episodes"]]


RUN = (
    "run",
    "game24:4,5,6,10",
    "--topology",
    "icrl",
    "--model",
    "openai:any",
    "--evaluator",
    CHECKER,
    "--rounds",
    "10",
)


def test_a_run_over_http_killed_half_way_is_resumed_to_the_same_answer_and_rewards(
    here: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer
) -> None:
    whole = icrl(*RUN, "--out", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    assert server.counts["calls"] == 10

    child: Any = None

    def deadly(messages: list[dict[str, Any]]) -> str:
        if len(parse(messages).attempts) == 5 and child.poll() is None:
            child.kill()
        return solver(messages)

    with OpenAIServer(deadly) as another:
        monkeypatch.setenv("OPENAI_BASE_URL", another.base_url)
        with started(*RUN, "--out", "killed", cwd=here) as child:
            child.communicate(timeout=120)
        assert child.returncode == -signal.SIGKILL
        assert not (here / "killed" / "result.json").exists()
        resumed = icrl("resume", "killed", "--json")
        assert resumed.returncode == 0, resumed.stderr
        assert another.counts["calls"] == 11  # the one that was in flight is asked again, no other
    assert _outcome(resumed) == _outcome(whole)
    assert _outcome(whole)[1][4]["value"] == 1.0
    assert json.loads((here / "killed" / "result.json").read_text()) == json.loads(resumed.stdout)


def test_ctrl_c_interrupts_a_run_and_says_how_to_resume_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child: Any = None

    def interrupting(messages: list[dict[str, Any]]) -> str:
        if len(parse(messages).attempts) == 2 and child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(60)  # so that it gets no answer before it has noticed
        return solver(messages)

    with OpenAIServer(interrupting) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        child = started(*RUN, "--out", "stopped", cwd=here)
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 1
        assert "Interrupted. Progress is saved. Resume with: icrl resume stopped" in " ".join(errors.split())
        assert "Traceback" not in errors
        resumed = icrl("resume", "stopped")
    assert resumed.returncode == 0, resumed.stderr
    assert "5 * (10 - 4) - 6" in resumed.stdout
    assert resumed.stdout.count("round ") == 8  # two were done and saved before the interrupt


def test_a_run_prints_each_round_from_1_and_where_it_is_saved(here: Path) -> None:
    done = process(
        "run", "hidden-color:#3b9", "--model", "learner:hidden-color", "--seed", "1", "--rounds", "5", cwd=here
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^round (\d) +(?:explore|exploit) +reward", done.stdout, re.M) == list("12345")
    (folder,) = (here / "runs").iterdir()
    assert folder.name in done.stdout
    assert {path.name for path in folder.iterdir()} >= {"run.json", "run.sqlite", "result.json"}
    again = icrl("resume", str(folder), "--json")
    assert json.loads(again.stdout) == json.loads((folder / "result.json").read_text())


def test_a_custom_evaluator_and_model_and_best_of_n(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mine.py").write_text(
        "def score(response):\n    return len(response)\n\ndef model(rng):\n    return 'a' * rng.randrange(1, 30)\n"
    )
    done = icrl(
        *("run", "Be long.", "--model", "mine.py:model", "--evaluator", "mine.py:score", "--topology", "best_of_n"),
        *("--n", "5", "--seed", "1", "--out", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["reward"] == max(len(episode["response"]) for episode in result["episodes"])
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert icrl("resume", "../out").returncode == 0


LEARN = ("--model", "learner:hidden-color")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "hello", *LEARN), "an evaluator is needed"),
        (("run", "hello", *LEARN, "--evaluator", "json:dumps"), "the evaluator asks for 'obj'"),
        (("run", "hello", *LEARN, "--evaluator", "missing.py:score"), "no file"),
        (("run", "game24:4,5,6,10", *LEARN), "plays one game only"),
        (("run", "game24:1,1,1,1", *LEARN), "can't make 24"),
        (("run", "game24:1,2", *LEARN), "four integers"),
        (("run", "hidden-color:blue", *LEARN), "a color is written like '#3b9'"),
        (("run", "hidden-color:#3b9", "--model", "gpt"), "provider:name"),
        (("run", "hidden-color:#3b9", *LEARN, "--base-url", "http://127.0.0.1:1/v1"), "no other option, got base_url"),
        (("run", "hidden-color:#3b9", "--model", "openai:gpt-4.1"), "set OPENAI_API_KEY"),
        (("run", "hidden-color:#3b9", *LEARN, "--rounds", "0"), "rounds=0"),
        (("run", "hidden-color:#3b9", *LEARN, "--temperature", "nan"), "temperature must be 0 or more, got nan"),
        (("run", "hidden-color:#3b9", *LEARN, "--rounds", "x"), "valid integer"),
        (("run", "hidden-color:#3b9", *LEARN, "--memory", "some"), "unknown memory 'some'"),
        (("run", "hidden-color:#3b9", *LEARN, "--topology", "tree"), "unknown topology 'tree'"),
        (("run", "hidden-color:#3b9", *LEARN, "--n", "3"), "unknown argument 'n'"),
        (("run", "x", *LEARN, "--evaluator", "no_such:x"), "can't be loaded"),
        (("run", " ", *LEARN, "--evaluator", CHECKER), "the task must be a text"),
        (("resume", "nowhere"), "nowhere holds no run"),
        (("draw", "tree"), "unknown topology 'tree'"),
        (("demo", "--tasks", "0"), "greater than or equal to 2"),
        (("demo", "--tasks", "1001"), "there are 1000 held-out games"),
        (("demo", "game24", "--tasks", "401"), "there are 400 held-out games"),
        (("demo", "chess"), "unknown game 'chess'"),
        (("demo", "--ranked", "24.csv"), "icrl demo game24 --ranked"),
        (("demo", "--workers", "2"), "icrl demo game24 --workers 2"),
        (("demo", "game24", "--ranked", "x", "--tasks", "3"), "can't be combined"),
        (("demo", "words", "--tasks", "513"), "there are 512 held-out games"),
        (("demo", "words", "--workers", "2"), "icrl demo game24 --workers 2"),
        (("serve", "chess"), "unknown learner or topology 'chess'"),
        (("train", "chess"), "unknown learner 'chess'"),
        (("run", "hidden-color:#3b9", *LEARN, "--set", "warm=2"), "unknown setting 'warm'; choose among max_calls,"),
        (("run", "hidden-color:#3b9", *LEARN, "--set", "warmup"), "--set is written NAME=VALUE, got 'warmup'"),
        (
            ("run", "hidden-color:#3b9", *LEARN, "--set", "warmup=some"),
            "warmup='some': Input should be a valid integer",
        ),
        (("run", "hidden-color:#3b9", *LEARN, "--set", "max_failures=0"), "greater than or equal to 1"),
        (("run", "hidden-color:#3b9", *LEARN, "--rounds", "2", "--set", "rounds=3"), "rounds is set twice"),
        (("run", "hidden-color:#3b9", *LEARN, "--set", "model=x"), "unknown setting 'model'"),
        (("run", "hidden-color:#3b9", *LEARN, "--topology", "best_of_n", "--set", "warmup=2"), "unknown setting"),
        (("run", "hidden-color:#3b9", *LEARN, "--topology", "missing.py:create"), "no file"),
        (("bench", "hidden-color", "--set", "seed=1"), "unknown setting 'seed'; choose among"),
        (("bench", "hidden-color", "--set", "warmup=x"), "warmup='x': Input should be a valid integer"),
        (("no-such-command",), "No such command"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else None,
)
def test_a_wrong_argument_is_one_line_with_exit_code_2_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, here: Path
) -> None:
    failed(icrl(*arguments), 2, message)
    assert not list(here.iterdir())


def test_other_files_in_a_folder_are_never_touched(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("precious")
    (here / "file").write_text("precious")
    for folder in ("mine", "file", "."):
        failed(icrl("run", "game24:4,5,6,10", *LEARN, "--out", folder), 2, "not an empty folder")
    assert (here / "mine" / "thesis.txt").read_text() == (here / "file").read_text() == "precious"


def test_what_a_score_prints_does_not_disturb_json(here: Path) -> None:
    (here / "mine.py").write_text("def score():\n    print('noise')\n    return 1\n\ndef model():\n    return 'a'\n")
    done = process("run", "x", "--model", "mine.py:model", "--evaluator", "mine.py:score", "--json", cwd=here)
    assert json.loads(done.stdout)["reward"] == 1
    assert "noise" in done.stderr


def test_control_characters_of_a_model_do_not_reach_the_terminal(here: Path) -> None:
    (here / "mine.py").write_text("def score():\n    return 1\n\ndef model():\n    return 'a\\x1b[31mb'\n")
    done = icrl("run", "x", "--model", "mine.py:model", "--evaluator", "mine.py:score")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_a_run_without_any_score_ends_with_1(here: Path) -> None:
    (here / "mine.py").write_text("def score():\n    1 / 0\n\ndef model():\n    return 'a'\n")
    done = icrl("run", "x", "--model", "mine.py:model", "--evaluator", "mine.py:score")
    failed(done, 1, "the evaluator failed too often in a row: ZeroDivisionError")


def test_a_folder_that_holds_a_run_is_not_overwritten(here: Path) -> None:
    first = ("run", "hidden-color:#3b9", *LEARN, "--rounds", "1", "--out", "out")
    assert icrl(*first).returncode == 0
    failed(icrl(*first), 2, "out holds a run already; resume it by 'icrl resume out'")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"task": "x"}', '{"form": 99}', '{"form": 1, "tusk": "x"}'])
def test_a_run_that_cannot_be_read_is_a_clear_error(text: str, here: Path) -> None:
    (here / "run.json").write_text(text)
    failed(icrl("resume", "."), 2, "run.json can't be read" if "99" not in text else "schema version 99")


@pytest.mark.parametrize("code", ["401", "malformed"])
def test_a_run_whose_model_fails_ends_with_1_and_says_why(
    code: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer(solver, faults=dict.fromkeys(range(1, 20), code)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        done = icrl(*RUN, "--out", "out", "--attempts", "2")
    failed(done, 1, "icrl resume out")
    assert ("retry in" in done.stderr) == (code == "malformed")
    assert ("too often" in done.stderr) == (code == "malformed")


def test_a_server_that_is_not_there_ends_with_1(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    done = icrl(*RUN, "--out", "out", "--attempts", "1")
    failed(done, 1, "icrl resume out")
    assert "Connection" in done.stdout
    with OpenAIServer(solver) as server:  # by now there is one; where it is stands in the environment
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        resumed = icrl("resume", "out")
    assert resumed.returncode == 0, resumed.stderr
    assert "5 * (10 - 4) - 6" in resumed.stdout


def test_a_key_is_never_written_down(here: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert icrl(*RUN, "--out", "out").returncode == 0
    assert not any(b"sk-very-secret" in path.read_bytes() for path in (here / "out").iterdir())


def test_the_package_runs_as_a_module_and_tells_a_mistake_apart(tmp_path: Path) -> None:
    def module(*arguments: str) -> Done:
        command = [sys.executable, "-m", "icrl_graph", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    listed = module("topologies", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "icrl" in json.loads(listed.stdout)
    mistaken = module("draw", "tree")
    failed(mistaken, 2, "unknown topology 'tree'")
    assert mistaken.stdout == ""


def test_topologies_are_listed_and_drawn() -> None:
    listed = json.loads(icrl("topologies", "--json").stdout)
    arena = ["deepagents_rubric", "dspy_best_of_n", "dspy_refine", "gepa", "langgraph_reflection"]  # by entry point
    assert list(listed)[:4] == ["icrl", "reflexion", "self_refine", "best_of_n"]
    assert sorted(list(listed)[4:]) == arena
    assert "evaluate -.-> build_context" in icrl("draw", "icrl").stdout
    assert len(json.loads(icrl("draw", "best_of_n", "--json").stdout)["nodes"]) == 7


TOPOLOGY = '''
from typing import ClassVar
from pydantic import Field
from icrl_graph.topologies import Graph, Settings

class WideSettings(Settings):
    namespace: ClassVar[str] = "wide"
    width: int = Field(default=2, ge=1, description="Attempts a round, side by side.")

def create_wide(model, evaluator, *, width=2, rounds=8, **options):
    """Several attempts a round."""
    graph = Graph(model, evaluator, base=WideSettings, width=width, rounds=rounds, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_fan_out("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph
'''


def test_a_custom_topology_is_drawn_run_with_its_own_setting_resumed_elsewhere_and_extended(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mine.py").write_text(TOPOLOGY)
    assert "build_context -.-> generate" in icrl("draw", "mine.py:create_wide").stdout
    wide = ("--topology", "mine.py:create_wide", "--rounds", "2", "--set", "width=3", "--out", "out", "--json")
    done = icrl("run", "hidden-color:#3b9", *LEARN, "--seed", "1", *wide)
    assert done.returncode == 0, done.stderr
    assert [episode["round"] for episode in json.loads(done.stdout)["episodes"]] == [0, 0, 0, 1, 1, 1]
    assert json.loads((here / "out" / "run.json").read_text())["options"] == {"rounds": 2, "seed": 1, "width": 3}
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    longer = icrl("resume", "../out", "--more", "1", "--json")
    assert longer.returncode == 0, longer.stderr
    assert [episode["round"] for episode in json.loads(longer.stdout)["episodes"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_parts_of_installed_packages_are_listed_and_one_that_is_broken_hides_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "plugin").mkdir()
    (here / "plugin" / "mine_plugin.py").write_text(TOPOLOGY)
    (here / "plugin" / "mine-1.dist-info").mkdir()
    (here / "plugin" / "mine-1.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (here / "plugin" / "mine-1.dist-info" / "entry_points.txt").write_text(
        "[icrl_graph.topologies]\nwide = mine_plugin:create_wide\nbroken = no_such_module:create\n"
        "[icrl_graph.benchmarks]\nbroken = no_such_module:BENCHMARK\n"
    )
    monkeypatch.syspath_prepend(here / "plugin")
    listed = json.loads(icrl("topologies", "--json").stdout)
    assert listed["wide"] == "Several attempts a round."
    assert "No module named 'no_such_module'" in listed["broken"]
    assert re.search(r"^wide +Several attempts a round\.$", icrl("topologies").stdout, re.M)
    assert "build_context -.-> generate" in icrl("draw", "wide").stdout
    listed = json.loads(icrl("benchmarks", "--json").stdout)
    assert "game24" in listed
    assert "No module named 'no_such_module'" in listed["broken"]
    failed(icrl("draw", "broken"), 2, "the topology 'broken' of an installed package can't be loaded")


def test_a_module_of_the_current_folder_is_found_by_its_name(here: Path) -> None:
    (here / "my_scores.py").write_text("def score(response):\n    return 1.0\n")
    arguments = ("run", "x", *LEARN, "--evaluator", "my_scores:score", "--preview")
    command = [str(Path(sys.executable).with_name("icrl")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
    assert done.returncode == 0, done.stderr


def test_a_terminal_without_the_characters_of_a_table_ends_no_command(here: Path) -> None:
    arguments = ("bench", "hidden-color", "--limit", "2", "--rounds", "2", "--out", "o")
    done = process(*arguments, cwd=here, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "best_of_n" in done.stdout


def test_a_memory_by_path_is_found_again_when_the_run_is_resumed_elsewhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mine.py").write_text("def latest(past):\n    return [len(past) - 1] if past else []\n")
    memory = ("--memory", "mine.py:latest", "--rounds", "2", "--out", "out")
    assert icrl("run", "hidden-color:#3b9", *LEARN, *memory).returncode == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    longer = icrl("resume", "../out", "--more", "1", "--json")
    assert len(json.loads(longer.stdout)["episodes"]) == 3, longer.stderr


def test_the_readme_shows_what_the_command_draws() -> None:
    shown = (ROOT / "README.md").read_text()
    for name, create in TOPOLOGIES.items():
        drawn = create(lambda: "", lambda: 0.0).compile(name=name).get_graph().draw_mermaid()
        assert f"```mermaid\n{drawn.strip()}\n```" in shown, f"icrl draw {name}"


COMMANDS = (
    *("init", "run", "resume", "show", "bench", "reproduce", "report", "rejudge", "export"),
    *("benchmarks", "topologies", "draw", "demo", "train", "serve", "mcp", "studio"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(command: str) -> None:
    done = icrl(command, "-h")
    assert done.returncode == 0
    assert done.stdout == icrl(command, "--help").stdout
    assert f"icrl {command}" in done.stdout
    assert "Example" in done.stdout
    assert "--json" in done.stdout or command in ("mcp", "studio")
    assert "<bool>" not in done.stdout
    assert "None" not in done.stdout


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    shown = icrl("-h").stdout
    assert re.findall(r"^│ ([a-z]+) ", shown, re.M) == list(COMMANDS)
    assert "<bool>" not in shown


def test_the_version_is_printed() -> None:
    assert icrl("--version").stdout == f"icrl-graph {icrl_graph.__version__}\n"


@pytest.mark.parametrize("command", ["run", "bench"])
def test_options_of_settings_have_the_names_and_the_help_of_the_fields(command: str) -> None:
    shown = " ".join(re.sub(r"[│╭╰─]", " ", icrl(command, "--help").stdout).split())
    names = {"target", "patience", "stop", "confirmations", "max_calls", "max_tokens", "max_usd", "max_seconds"}
    names |= {"memory", "schedule", "layout", "show", "retests", "seed"} if command == "run" else set()
    for name in names:
        assert f"--{name.replace('_', '-')} <" in shown
        assert str(Settings.model_fields[name].description) in shown


def test_any_setting_is_reached_by_set_and_saved_as_what_it_is(here: Path) -> None:
    chosen = ("--set", "warmup=2", "--set", "reward_label=Score", "--rounds", "3", "--out", "out", "--json")
    done = icrl("run", "hidden-color:#3b9", *LEARN, *chosen)
    assert done.returncode == 0, done.stderr
    options = json.loads((here / "out" / "run.json").read_text())["options"]
    assert options == {"rounds": 3, "warmup": 2, "reward_label": "Score"}


def test_a_comparison_takes_settings_for_all_its_arms(here: Path) -> None:
    limits = ("--limit", "1", "--rounds", "2", "--max-calls", "1", "--set", "reward_label=Score", "--out", "out")
    done = icrl("bench", "hidden-color", "--topologies", "icrl,icrl+memory=none", *limits)
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "out" / "bench.json").read_text())["options"] == {"max_calls": 1, "reward_label": "Score"}


def test_a_best_of_n_run_is_not_extended(here: Path) -> None:
    wide = ("--topology", "best_of_n", "--n", "2", "--out", "out")
    assert icrl("run", "hidden-color:#3b9", *LEARN, *wide).returncode == 0
    failed(icrl("resume", "out", "--more", "2"), 2, "a Best-of-N run can't be extended; start a new one with a larger")


def test_a_shell_completes_commands_names_and_settings() -> None:
    def completed(line: str) -> str:
        words = {"_ICRL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
        return CliRunner().invoke(app, prog_name="icrl", env=words).stdout

    assert "resume" in completed("icrl re")
    assert "best_of_n" in completed("icrl draw b")
    assert "game24" in completed("icrl bench g")
    assert "hidden-color" in completed("icrl run x --model learner:h")
    assert "long_cot" in completed("icrl run x --schedule l")


def test_listing_the_commands_imports_neither_langgraph_nor_pydantic(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom icrl_graph.cli import main\nsys.argv = ['icrl', '--help']\n"
        "try:\n    main()\nfinally:\n"
        "    print([name for name in ('langgraph', 'langchain_core', 'pydantic', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_serve_serves_until_it_is_stopped(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started("serve", "--port", "0", "--json", cwd=here) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", json.loads(server.stdout.readline())["base_url"])
        run = ("run", "hidden-color:#3b9", "--model", "openai:learner", "--rounds", "2", "--out", "out")
        assert icrl(*run).returncode == 0
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
        assert "Interrupted" in errors
    assert server.returncode == 1


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_serve_refuses_a_port_that_there_is_not(port: str) -> None:
    failed(icrl("serve", "--port", port), 2, "Invalid value for '--port': Input should be")


def test_serve_refuses_a_port_that_is_taken(server: OpenAIServer) -> None:
    port = server.base_url.split(":")[-1].removesuffix("/v1")
    failed(icrl("serve", "--port", port), 1, f"port {port} is unavailable: Address already in use; choose another by")


@pytest.mark.parametrize("command", ["run", "show", "report"])
def test_a_reader_that_has_gone_ends_a_command_and_loses_nothing(command: str, here: Path) -> None:
    kept = ("run", "hidden-color:#3b9", *LEARN, "--rounds", "2", "--out", "my run")
    if command != "run":
        assert icrl(*kept).returncode == 0
    reader, writer = os.pipe()
    os.close(reader)
    done = _ended(kept if command == "run" else (command, "my run"), writer, here)
    assert done.returncode == 1
    hint = "Progress is saved. Resume with: icrl resume 'my run'\n"
    assert done.stderr == (hint if command == "run" else "")
    assert icrl("resume", "my run").returncode == 0


def _ended(arguments: tuple[str, ...], writer: int, folder: Path) -> Done:
    """A command that writes into a pipe which nobody reads."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    program = [sys.executable, "-m", "icrl_graph", *arguments]
    return subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment)


# ---------------------------------------------------------------------------------------------------------------- demo


def test_the_demo_shows_what_its_controls_say(here: Path) -> None:
    """A dozen games, so with wide bars; tests/test_learner.py has the narrow ones."""
    done = icrl("demo", "--tasks", "12", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    arms = {arm["name"]: arm for arm in summary["arms"]}
    assert list(arms) == ["icrl", "best_of_n", "zero", "shuffled", "random"]
    assert {arm["calls"] for arm in arms.values()} == {12 * 8}

    def gain(name: str) -> float:
        curve = arms[name]["reward_by_round"]
        return float(curve[-1]["mean"] - curve[0]["mean"])

    assert gain("icrl") >= 0.4
    assert gain("zero") <= 0.2
    assert gain("shuffled") <= 0.2
    for control in ("best_of_n", "random"):
        assert arms["icrl"]["best_by_round"][-1]["low"] > arms[control]["best_by_round"][-1]["high"]
    folder = here / "runs" / "demo"
    assert json.loads((folder / "demo.json").read_text()) == summary
    assert len((folder / "results.jsonl").read_text().splitlines()) == 5 * 12
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_draws_a_game_and_says_where_its_files_are(here: Path) -> None:
    done = icrl("demo", "--tasks", "3", "--out", "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The hidden color is" in done.stdout
    assert "round 8" in done.stdout
    assert "Written to here/: results.jsonl, demo.json, demo.png" in done.stdout


def test_the_demo_plays_the_held_out_rows_of_a_ranked_file_and_names_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a stand-in whose rows 900 to 999 hold two held-out puzzles; a few of the arms are enough."""
    monkeypatch.setattr("icrl_graph.benchmarks.demos.game24.BASES", dict.fromkeys(("none", "weak"), ("icrl", "zero")))
    test, train, validation = (list(split(name)) for name in ("test", "train", "validation"))
    fractions = [puzzle for puzzle in puzzles() if puzzle not in {*test, *train, *validation}]
    ranking = [*test[2:], *train[:502], *test[:2], *fractions, *train[502:584], *train[584:], *validation]
    stand_in = here / "24.csv"
    stand_in.write_text("Rank,Puzzles\n" + "".join(f"{i},{' '.join(map(str, p))}\n" for i, p in enumerate(ranking)))
    command = ("demo", "game24", "--ranked", "24.csv", "--workers", "1", "--json")
    failed(icrl(*command), 2, "is not the published 24.csv")
    monkeypatch.setattr(
        "icrl_graph.tasks.game24.puzzles.RANKED_SHA256", hashlib.sha256(stand_in.read_bytes()).hexdigest()
    )
    done = icrl(*command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["puzzles"] == 2
    assert len(summary["left_out"]) == 98
    assert [line.split(": ")[1] for line in summary["left_out"][14:18]] == ["needs fractions"] * 2 + [
        "is in the train split"
    ] * 2
    assert summary["left_out"][0].startswith("row 902, ")


def test_without_matplotlib_the_demo_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    done = process("demo", "--tasks", "2", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert "pip install 'icrl-graph[report]'" in done.stderr
    assert "demo.json" in done.stdout


def test_without_scipy_the_demo_keeps_its_results_and_names_the_extra(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    done = icrl("demo", "--tasks", "2")
    assert done.returncode == 0, done.stderr
    assert "The results are in runs/demo. No table" in done.stderr
    assert "pip install 'icrl-graph[report]'" in done.stderr
    assert len((here / "runs" / "demo" / "results.jsonl").read_text().splitlines()) == 5 * 2


def test_a_demo_is_a_comparison_that_bench_reads(here: Path) -> None:
    assert icrl("demo", "--tasks", "2").returncode == 0
    done = icrl("report", "runs/demo")
    assert done.returncode == 0, done.stderr
    assert (here / "runs" / "demo" / "report.html").exists()


def test_training_writes_weights_that_can_be_used(here: Path) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'icrl-graph[train]'")
    done = icrl("train", "hidden-color", "--iterations", "2", "--out", "w", "--json")
    assert done.returncode == 0, done.stderr
    from icrl_graph.models.learners.transformer import Transformer

    assert Transformer(here / json.loads(done.stdout)[0]["weights"]).shape.rounds == 8
