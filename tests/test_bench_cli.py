"""`icrl bench`, `icrl benchmarks` and `icrl resume`, as a user meets them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from icrl_graph.benchmarks.registry import BENCHMARKS
from icrl_graph.testing import OpenAIServer
from tests.bench_child import player, rows_of
from tests.command_line import icrl, process

MINE = """
def score(response):
    print("noise")
    return len(response) / 10

def model(messages, rng):
    print("noise")
    if "Broken." in str(messages):
        raise RuntimeError("\\x1b[31mno \\n luck")
    return "a" * rng.randint(1, 9)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(player) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


GAME = ("bench", "game24", "--model", "openai:policy", "--limit", "2", "--rounds", "2", "--concurrency", "4")


def test_methods_are_compared_out_of_the_box_and_the_same_command_again_does_nothing_more(tmp_path: Path) -> None:
    command = ("bench", "hidden_color", "--topologies", "icrl,best_of_n", "--limit", "3", "--rounds", "4")
    done = process(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"^6 runs: 2 methods x 3 tasks x 1 seeds\..* 24 calls", done.stdout)
    methods, against = done.stdout.split("Against icrl, over the same tasks")
    assert "hidden-color, 3 tasks x 1 seeds, within 4 calls, learner:hidden-color" in " ".join(methods.split())
    assert re.findall(r"^ *(icrl|best_of_n) .* 4\.0 *$", methods, re.M) == ["icrl", "best_of_n"]
    assert re.search(r"^ *best_of_n +reward +[-+]0\.\d\d +[-+]\S+ to [-+]\S+ +\d\.\d{4} *$", against, re.M)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name in done.stdout
    kept = (folder / "results.jsonl").read_bytes()
    assert kept.count(b"\n") == 6
    again = icrl(*command, "--out", str(folder), "--json")
    assert again.returncode == 0, again.stderr
    assert [method["runs"] for method in json.loads(again.stdout)["methods"]] == [3, 3]
    assert (folder / "results.jsonl").read_bytes() == kept


def test_json_is_one_value_on_stdout_whatever_a_model_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.jsonl").write_text('{"task": "Be long."}\n{"task": "Be longer."}\n')
    mine = ("--model", "mine.py:model", "--evaluator", "mine.py:score", "--rounds", "2")
    done = process("bench", "mine.jsonl", *mine, "--out", "x", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["measures"] == ["reward"]
    assert "noise" in done.stderr
    (tmp_path / "elsewhere").mkdir()  # whatever was named, is found from anywhere
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = icrl("resume", "../x", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == summary


def test_a_preview_pays_nothing_and_writes_nothing(here: Path, server: OpenAIServer) -> None:
    prices = '{"policy": {"input": 1000, "output": 1000}}'
    done = icrl(*GAME, "--topologies", "icrl,reflexion", "--prices", prices, "--preview", "--response-tokens", "50")
    assert done.returncode == 0
    assert "4 runs: 2 methods x 2 tasks x 1 seeds" in done.stdout
    assert re.search(r"^  reflexion +6 calls, [\d,]+ tokens, \d+\.\d\d USD$", done.stdout, re.M)
    assert server.counts["calls"] == 0
    assert not list(here.iterdir())
    more = icrl(*GAME, "--topologies", "icrl,reflexion", "--prices", prices, "--preview", "--response-tokens", "500")
    assert more.stdout != done.stdout


def test_a_preview_with_json_is_json(here: Path, server: OpenAIServer) -> None:
    done = icrl(*GAME, "--preview", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)


def test_tasks_are_added_to_a_folder_and_what_is_there_is_not_paid_again(here: Path, server: OpenAIServer) -> None:
    assert icrl(*GAME, "--out", "x").returncode == 0
    assert server.counts["calls"] == 8
    more = icrl(*GAME, "--out", "x", "--limit", "3", "--topologies", "reflexion", "--json")
    assert more.returncode == 0, more.stderr
    assert server.counts["calls"] == 8 + 2 * 2 + 3 * 3
    assert [method["arm"] for method in json.loads(more.stdout)["methods"]] == ["icrl", "best_of_n", "reflexion"]


PLAY = ("bench", "game24", "--model", "learner:game24")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "chess"), "unknown benchmark 'chess'; choose one of hidden-color, game24, writing"),
        (("bench", "writing"), "name the model, such as openai:gpt-4.1-mini"),
        (("bench", "writing", "--model", ""), "a model is named 'provider:name'"),
        (("bench", "mine.csv", "--map", ""), "fields are named like task=problem,target=answer"),
        (("bench", "mine.jsonl"), "can't be read: [Errno 2] No such file or directory: 'mine.jsonl'"),
        (("bench", "game24", "--model", "openai:gpt-4.1"), "set OPENAI_API_KEY"),
        ((*PLAY, "--topologies", "icrl,tree"), "unknown topology 'tree'; choose one of icrl, reflexion"),
        ((*PLAY, "--topologies", " "), "name at least one topology"),
        ((*PLAY, "--topologies", "icrl,icrl"), "duplicate arm: icrl"),
        ((*PLAY, "--topologies", "icrl+memory=some"), "the arm 'icrl+memory=some': memory='some'"),
        ((*PLAY, "--topologies", "icrl+show=shuffled"), "draws from the rewards of 'icrl'"),
        ((*PLAY, "--limit", "0"), "limit must be 1 or more, got 0"),
        ((*PLAY, "--rounds", "-1"), "rounds must be 1 or more, got -1"),
        ((*PLAY, "--max-calls", "-1"), "max_calls=-1"),
        ((*PLAY, "--max-usd", "-1"), "max_usd=-1"),
        ((*PLAY, "--attempts", "0"), "attempts must be above 0"),
        ((*PLAY, "--prices", "cheap"), "--prices is JSON, got 'cheap'"),
        ((*PLAY, "--prices", '{"a": 1}'), "prices is US dollars for a million tokens by model"),
        ((*PLAY, "--judge", "learner:game24", "--evaluator", "json:dumps"), "give one of the two"),
        ((*PLAY, "--rubric", "Good?"), "name the judge"),
        ((*PLAY, "--evaluator", "json:dumps"), "the evaluator asks for 'obj'"),
        ((*PLAY, "--response-tokens", "0", "--preview"), "response-tokens"),
        (
            ("bench", "game24", "--model", "openai:mystery", "--base-url", "http://127.0.0.1:1/v1", "--max-usd", "1"),
            "max_usd needs the price of 'mystery', and it is unknown: give prices={'mystery': {'input': ...",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, here: Path
) -> None:
    done = icrl(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split()), done.stderr
    assert done.stdout == ""
    assert not list(here.iterdir())


def test_a_folder_that_can_not_be_made_is_one_line_with_exit_code_1(here: Path) -> None:
    done = icrl(*PLAY, "--limit", "1", "--rounds", "1", "--topologies", "icrl", "--out", "x" * 300)
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno")
    assert "File name too long" in done.stderr


def test_another_comparison_in_the_folder_is_exit_code_2_and_says_what_is_other(
    here: Path, server: OpenAIServer
) -> None:
    assert icrl(*GAME, "--out", "x").returncode == 0
    other = icrl(*GAME, "--out", "x", "--rounds", "5")
    assert other.returncode == 2
    assert "x holds another comparison (rounds 2 -> 5)" in other.stderr
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("precious")
    foreign = icrl(*GAME, "--out", "mine")
    assert (foreign.returncode, foreign.stderr) == (2, "error: mine is not an empty folder; give another one\n")
    stored = json.loads((here / "x" / "bench.json").read_text())
    (here / "x" / "bench.json").write_text(json.dumps({**stored, "form": 99}))
    for old in (icrl("resume", "x"), icrl(*GAME, "--out", "x")):
        assert old.returncode == 2
        assert "schema version 99" in old.stderr
    assert server.counts["calls"] == 8


def test_failed_runs_are_exit_code_1_and_say_how_to_repeat_them(here: Path) -> None:
    Path("mine.py").write_text(MINE)
    Path("mine.jsonl").write_text('{"task": "Be long."}\n{"task": "Broken."}\n')
    mine = ("--model", "mine.py:model", "--evaluator", "mine.py:score", "--rounds", "2", "--topologies", "icrl")
    done = icrl("bench", "mine.jsonl", *mine, "--out", "x", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["methods"][0]["failed"] == 1  # what has ended is printed all the same
    assert "error: 1 of 2 runs failed, such as icrl on 2: the model failed too often in a row: " in done.stderr
    assert "Repeat them with: icrl resume x" in done.stderr
    assert "\x1b[31mno" not in done.stderr
    assert icrl("resume", "x").returncode == 1
    Path("mine.py").write_text(MINE.replace("Broken.", "Mended."))
    mended = icrl("resume", "x", "--json")
    assert mended.returncode == 0, mended.stderr
    assert (json.loads(mended.stdout)["tasks"], len(rows_of(here / "x"))) == (2, 2)


def test_a_wrong_key_is_exit_code_1_and_says_how_to_resume(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(player, faults=dict.fromkeys(range(1, 99), "401")) as refusing:
        monkeypatch.setenv("OPENAI_BASE_URL", refusing.base_url)
        done = icrl(*GAME, "--out", "x")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "Progress is saved. Resume with: icrl resume x" in done.stderr
    with OpenAIServer(player) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert icrl("resume", "x").returncode == 0


def test_a_damaged_line_is_reported_and_its_run_repeated(here: Path, server: OpenAIServer) -> None:
    assert icrl(*GAME, "--out", "x").returncode == 0
    path = here / "x" / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", *lines[2:]]))
    done = icrl("resume", "x", "--json")
    assert done.returncode == 0
    assert "Line 2 of x/results.jsonl could not be read; its run was repeated." in done.stderr
    assert [method["runs"] for method in json.loads(done.stdout)["methods"]] == [2, 2]
    assert server.counts["calls"] == 8 + 2


def test_resume_of_a_folder_without_a_comparison_is_an_error(here: Path) -> None:
    done = icrl("resume", "nowhere")
    assert done.returncode == 2
    assert "nowhere holds no run" in done.stderr


def test_the_benchmarks_are_listed() -> None:
    assert json.loads(icrl("benchmarks", "--json").stdout).keys() == BENCHMARKS.keys()
    plain = icrl("benchmarks").stdout
    assert all(name in plain and found.about in plain for name, found in BENCHMARKS.items())


@pytest.mark.parametrize("command", ["bench", "benchmarks"])
def test_the_commands_have_help_with_an_example_and_json(command: str) -> None:
    text = icrl(command, "--help").stdout
    assert all(words in text for words in (f"icrl {command}", "Example", "--json"))
