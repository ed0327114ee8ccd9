"""ScienceWorld through whole graphs: real Java, real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.results import read_results
from icrl_graph.benchmarks.scienceworld import final_score
from icrl_graph.environments.players import explore, follow
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.environments.scienceworld import TASKS, ScienceWorld, gold_path
from icrl_graph.prompts.templates import CRITIQUE, REFLECT
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import create_icrl
from tests.command_line import icrl
from tests.helpers import play

if shutil.which("java") is None and not os.environ.get("CI"):
    pytest.skip("Java is not installed (see docs/scienceworld.md)", allow_module_level=True)

CHILD = Path(__file__).parent / "rollout_child.py"
SHORT = ("find-living-thing", "lifespan-longest-lived")


@pytest.mark.parametrize("task", TASKS)
def test_a_player_with_the_solution_scores_100_through_the_whole_graph(
    task: str, request: pytest.FixtureRequest
) -> None:
    if task not in SHORT and not request.config.getoption("--soak"):
        pytest.skip("takes minutes: pytest tests/test_scienceworld_graph.py --soak")
    policy = rollout(follow(gold_path(task)), lambda: ScienceWorld(max_actions=300), max_steps=300)
    graph = create_icrl(policy, episode_return, metric=final_score, rounds=1)
    _, (episode,) = play(graph, {"task": "Do it.", "task_data": {"task": task}})
    assert (episode["reward"]["value"], episode["reward"]["metric"]) == (100.0, 1.0)


def _run(folder: Path, task: str, actions: list[str], kill_after: int | None, whom: str = "python") -> str | None:
    """Start the child; kill it, or its simulator, after so many actions. Gives its last line; None if it was killed."""
    command = [sys.executable, str(CHILD), str(folder), task, json.dumps(actions)]
    environment = {**os.environ, "PYTHONPATH": str(CHILD.parents[1])}
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for number, line in enumerate(child.stdout, 1):
            last = line
            if number == kill_after and whom == "python":
                child.kill()
                return None
            if number == kill_after:
                for simulator in _children(child.pid):
                    os.kill(simulator, signal.SIGKILL)
        errors = child.stderr.read()
    assert child.returncode == 0, errors
    return last


def _children(parent: int) -> list[int]:
    import psutil

    return [each.pid for each in psutil.Process(parent).children(recursive=True) if "java" in each.name()]


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], str]:
    """A task, what is done in it, and what that comes to."""
    task = "power-component"
    actions = [*gold_path(task), "look around", "wait1", "nonsense"]
    whole = _run(tmp_path_factory.mktemp("whole"), task, actions, None)
    assert whole is not None
    return task, actions, whole


@pytest.mark.parametrize("whom", ["python", "java"])
def test_an_episode_that_is_killed_goes_on_at_the_exact_step(
    whom: str, episode: tuple[str, list[str], str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rng, kills = Random(whom), 10 if request.config.getoption("--soak") else 1
    task, actions, whole = episode
    calls = json.loads(whole.removeprefix("result "))[0]
    for number in range(kills):
        folder = tmp_path / f"killed {number}"
        folder.mkdir()
        ended = _run(folder, task, actions, rng.randint(1, calls), whom)
        if whom == "python":
            assert ended is None
            ended = _run(folder, task, actions, None)
        assert ended == whole
        assert len((folder / "paid.log").read_text().splitlines()) <= calls + (whom == "python")


def test_a_player_that_reads_its_rewards_gets_better_and_one_that_is_shown_none_does_not(
    request: pytest.FixtureRequest,
) -> None:
    rounds, task = (30, "find-living-thing") if request.config.getoption("--soak") else (8, "find-living-thing")
    world: Any = ScienceWorld(max_actions=6, show_valid=True, failure="keep_best")
    late: dict[str, float] = {}
    for show in ("true", "zero"):
        policy = rollout(explore, lambda: world, max_steps=6, max_concurrency=1)
        shown: Any = {"show": show, "seed": 1, "layout": "transcript"}
        graph = create_icrl(policy, episode_return, metric=final_score, rounds=rounds, **shown)
        _, episodes = play(graph, {"task": "Do it.", "task_data": {"task": task}})
        scores = [float(episode["reward"]["metric"] or 0.0) for episode in episodes]
        late[show] = sum(scores[rounds // 2 :]) / (rounds - rounds // 2)
        print(show, [round(score, 2) for score in scores])
    assert late["true"] > late["zero"]


def test_the_benchmark_plays_the_papers_episodes_through_the_command_line(tmp_path: Path) -> None:
    arguments = ["--topologies", "icrl,best_of_n", "--limit", "1", "--rounds", "2", "--concurrency", "1"]
    done = icrl("bench", "scienceworld", *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["item"]) for row in rows] == [
        ("icrl", "change-the-state-of-matter-of:0"),
        ("best_of_n", "change-the-state-of-matter-of:0"),
    ]
    for episode in (episode for row in rows for episode in row["episodes"]):
        assert episode["reward"]["value"] == sum(episode["reward"]["steps"])
        assert episode["reward"]["metric"] == max(0, episode["steps"][-1]["info"]["score"]) / 100
        assert len(episode["steps"]) <= 15


def _student(messages: list[dict[str, Any]]) -> str:
    """A model over HTTP: thinks where it is asked to, reflects where it is asked to, and walks on otherwise."""
    asked = str(messages[-1]["content"])
    if REFLECT in asked or CRITIQUE in asked:
        return "The greenhouse has plants."
    done = sum(message["role"] == "assistant" for message in messages)
    action = ["teleport to greenhouse", "look around", "wait1"][done % 3]
    told = "\n".join(str(message["content"]) for message in messages)
    return f"Plants grow in a greenhouse.\nAction: {action}" if "think first" in told else action


def test_reflexion_and_react_play_the_benchmark_with_a_model_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer(_student) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        plan = Plan("scienceworld", ["reflexion", "react"], "openai:student", items=["find-plant:0"], rounds=2)
        assert not runner.run(plan, tmp_path / "out").failed
    rows = {cell.arm: row for cell, row in read_results(tmp_path / "out").rows.items()}
    reflected, thought = rows["reflexion"]["episodes"], rows["react"]["episodes"]
    assert (len(reflected), len(thought)) == (2, 1)
    assert reflected[0]["reflection"] == "The greenhouse has plants."
    assert [step.get("thought") for step in thought[0]["steps"]] == ["Plants grow in a greenhouse."] * 15
    assert [step["action"] for step in thought[0]["steps"]] == [step["action"] for step in reflected[0]["steps"]]
    assert {arm: row["usage"]["calls"] for arm, row in rows.items()} == {"reflexion": 31, "react": 15}


def test_the_protocols_are_those_of_the_papers() -> None:
    paper, standard = (find_benchmark(name) for name in ("scienceworld", "scienceworld_test"))
    assert len(paper.items()) == 29
    assert (paper.rounds, paper.options) == (40, {"warmup": 2})
    assert "boil:0" not in paper.items()
    assert len({item.partition(":")[0] for item in standard.items()}) == 30
    assert standard.items()[:3] == ["boil:21", "boil:22", "boil:23"]
    assert paper.read("melt:3")["task_data"] == {"task": "melt", "variation": 3, "simplification": "easy"}


@pytest.mark.parametrize("wrong", ["melt", "melt:x", "melt:-1", "melt:30", "smelt:0", ""])
def test_an_episode_that_there_is_not_is_refused_before_java_starts(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"melt|variation|task"):
        find_benchmark("scienceworld").read(wrong)
