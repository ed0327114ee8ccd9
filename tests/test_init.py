"""`icrl init`: a folder in which everything runs as it stands."""

import json
import re
from pathlib import Path

import openai
import pytest

from icrl_graph.cli import init
from icrl_graph.models.learners import LEARNERS
from icrl_graph.testing import OpenAIServer
from tests.command_line import icrl, started
from tests.test_docs import _commands

RUN = ("run", "tasks.jsonl:1", "--model", "graph.py:model", "--evaluator", "score.py:score")


def readme_commands(readme: Path) -> list[list[str]]:
    """The commands that a README shows."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.M | re.S)
    return [command for block in blocks for command in _commands(block, alone=True)]


def test_the_files_are_written_and_the_next_commands_told(here: Path) -> None:
    done = icrl("init", "a new/folder")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (here / "a new" / "folder").iterdir()} == set(init.FILES)
    assert done.stdout.splitlines()[2:] == ["  cd 'a new/folder'", f"  icrl {' '.join(RUN)}"]


def test_json_has_the_folder_and_the_files(here: Path) -> None:
    assert json.loads(icrl("init", "mine", "--json").stdout) == {"folder": str(here / "mine"), "files": [*init.FILES]}


def test_every_command_of_its_readme_runs_without_a_key(starter: Path) -> None:
    commands = readme_commands(starter / "README.md")
    assert [command[0] for command in commands] == ["run", "show", "bench", "bench", "report", "studio", "serve"]
    for command in commands[:-2]:  # studio is started in test_studio.py, serve below
        done = icrl(*command)
        assert done.returncode == 0, (command, done.stderr)
    results, tasks = starter / "runs" / "compared" / "results.jsonl", starter / "tasks.jsonl"
    assert len(results.read_text().splitlines()) == 3 * len(tasks.read_text().splitlines())
    assert results.with_name("report.html").exists()


def test_its_graph_is_served_as_its_readme_says(starter: Path) -> None:
    *_, command = readme_commands(starter / "README.md")
    task = json.loads((starter / "tasks.jsonl").read_text().splitlines()[0])
    with started(*command, "--port", "0", "--json", cwd=starter) as server:
        with openai.OpenAI(base_url=json.loads(server.stdout.readline())["base_url"], api_key="none") as client:
            reply = client.chat.completions.create(
                model="graph",
                messages=[{"role": "user", "content": task["task"]}],
                extra_body={"task_data": task["task_data"], "icrl": {"rounds": 2}},
            )
        server.kill()
        server.communicate(timeout=60)
    assert reply.model_extra
    assert reply.model_extra["icrl"]["usage"]["calls"] == 2


def test_one_line_changes_the_model(starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (starter / "graph.py").read_text()
    assert text.count('"learner:hidden-color"') == 1
    (starter / "graph.py").write_text(text.replace('"learner:hidden-color"', '"openai:any-model"'))
    with OpenAIServer(LEARNERS["hidden-color"]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        done = icrl(*RUN, "--rounds", "3", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["usage"]["calls"] == server.counts["calls"] == 3


@pytest.mark.parametrize("name", init.FILES)
def test_where_one_file_is_there_none_is_written(name: str, here: Path) -> None:
    (here / name).write_text("mine")
    done = icrl("init")
    assert done.returncode == 2
    assert f". has {name}, and nothing is overwritten; name another folder" in done.stderr
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [(name, "mine")]


def test_a_link_that_leads_nowhere_is_a_file_that_is_there(here: Path) -> None:
    (here / "score.py").symlink_to(here / "elsewhere.py")
    assert icrl("init").returncode == 2
    assert [path.name for path in here.iterdir()] == ["score.py"]


def test_a_file_in_place_of_the_folder_is_a_wrong_argument(here: Path) -> None:
    (here / "mine").write_text("a file")
    done = icrl("init", "mine")
    assert (done.returncode, done.stderr) == (2, "error: mine is a file; name a folder\n")


def test_where_one_file_can_not_be_written_none_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "FILES", (*init.FILES, "not packaged"))
    (here / "other").write_text("stays")
    for folder in (".", "a/b"):
        assert icrl("init", folder).returncode == 1
    assert [path.name for path in here.iterdir()] == ["other"]
