"""The optimisers of other libraries, each by its real package: what they spend is what the server has counted."""

import importlib.util
import json
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import chat_model, compare, improve
from icrl_graph.errors import MissingExtra
from icrl_graph.state.loading import load
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import find_topology

pytestmark = pytest.mark.filterwarnings("ignore")  # what these packages warn of is not ours

ROOT = Path(__file__).parents[1]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["icrl_graph.topologies"]
PACKAGES = {
    "dspy_refine": "dspy",
    "dspy_best_of_n": "dspy",
    "gepa": "gepa",
    "langgraph_reflection": "langgraph",
    "deepagents_rubric": "deepagents",
}
GAME = load(f"{ROOT / 'examples' / 'arena.py'}:benchmark")
PLAYER: Callable[..., str] = load(f"{ROOT / 'examples' / 'arena.py'}:player")
CALLS = {"dspy_refine": 7, "dspy_best_of_n": 4, "gepa": 4, "langgraph_reflection": 7, "deepagents_rubric": 8}
"""Of four attempts."""


def installed(name: str) -> Any:
    missing = not os.environ.get("CI") and importlib.util.find_spec(PACKAGES[name]) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"needs {PACKAGES[name]}: the extra arena"))


ARMS = [installed(name) for name in ENTRY_POINTS]


def play(name: str, server: OpenAIServer, evaluator: Any = GAME.evaluator, **options: Any) -> Any:
    task = GAME.read("629")
    arguments = {"task_data": task["task_data"], "topology": ENTRY_POINTS[name], "rounds": 4, "seed": 1, **options}
    return improve(task["task"], evaluator, model=chat_model("openai:any", base_url=server.base_url), **arguments)


def counted(usage: Any) -> tuple[int, int, int]:
    return usage.get("calls", 0), usage.get("input", 0), usage.get("output", 0)


def spent_at(server: OpenAIServer) -> tuple[int, int, int]:
    tokens = [sum(each[name] for each in server.reported) for name in ("prompt_tokens", "completion_tokens")]
    return server.counts["calls"], tokens[0], tokens[1]


def test_every_optimiser_is_an_entry_point_of_a_short_file() -> None:
    assert ENTRY_POINTS.keys() == PACKAGES.keys()
    files = list((ROOT / "icrl_graph" / "benchmarks" / "arena").glob("*.py"))
    assert len(files) > 4
    assert all(len(path.read_text().splitlines()) <= 120 for path in files)
    for name, where in ENTRY_POINTS.items():
        assert find_topology(where).__name__ == f"create_{name}"


@pytest.mark.parametrize("name", ["dspy_refine", "gepa", "deepagents_rubric"])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (PACKAGES[name], "gepa.optimize_anything", "deepagents.middleware.rubric"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"is not installed; run: pip install 'icrl-graph\[arena\]'"):
        improve("Guess.", GAME.evaluator, model=PLAYER, topology=ENTRY_POINTS[name])


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_spends_what_the_server_has_counted(name: str) -> None:
    with OpenAIServer(PLAYER) as server:
        result = play(name, server)
        assert counted(result.usage) == spent_at(server)
        assert (result.stopped, len(result.episodes), server.counts["calls"]) == ("rounds", 4, CALLS[name])
        answers = [episode["response"] for episode in result.episodes]
        sees_reward = name not in ("langgraph_reflection", "deepagents_rubric")
        assert result.answer == (answers[result.rewards.index(max(result.rewards))] if sees_reward else answers[-1])


@pytest.mark.parametrize("name", ARMS)
def test_no_arm_makes_a_call_beyond_its_cap(name: str) -> None:
    with OpenAIServer(PLAYER) as server:
        result = play(name, server, max_calls=3)
        assert result.stopped == "calls"
        assert counted(result.usage) == spent_at(server)
        assert server.counts["calls"] == 3


@pytest.mark.parametrize("name", ARMS)
def test_replies_that_an_arm_can_not_read_are_data(name: str) -> None:
    with OpenAIServer(lambda: "?") as server:
        result = play(name, server, evaluator=lambda response: 0.5, max_calls=20)
        assert result.episodes
        assert counted(result.usage) == spent_at(server)


@pytest.mark.parametrize("name", ARMS)
def test_a_killed_arm_finds_its_replies_again(name: str, tmp_path: Path) -> None:
    judged = 0

    def dies_once(response: str, task_data: dict[str, int]) -> Any:
        nonlocal judged
        judged += 1
        if judged == 3:
            raise KeyboardInterrupt
        return GAME.evaluator(response, task_data)

    with OpenAIServer(PLAYER) as server:
        with pytest.raises(KeyboardInterrupt):
            play(name, server, dies_once, path=tmp_path / "run.sqlite")
        assert 0 < server.counts["calls"] < CALLS[name]
        result = play(name, server, dies_once, path=tmp_path / "run.sqlite")
        assert server.counts["calls"] == CALLS[name]
        assert counted(result.usage) == spent_at(server)


@pytest.mark.skipif(
    not os.environ.get("CI") and None in map(importlib.util.find_spec, PACKAGES.values()),
    reason="needs pip install 'icrl-graph[arena]'",
)
def test_all_arms_stand_in_one_comparison_which_is_not_paid_twice(tmp_path: Path) -> None:
    with OpenAIServer(PLAYER) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        arms = ["icrl", "best_of_n", *ENTRY_POINTS.values()]
        arguments: Any = {"model": model, "folder": tmp_path / "arena", "rounds": 3, "items": ["629", "74"]}
        comparison = compare(GAME, arms, max_calls=3, **arguments)
        rows = [json.loads(line) for line in (tmp_path / "arena" / "results.jsonl").read_text().splitlines()]
        spent = [sum(row["usage"].get(name, 0) for row in rows) for name in ("calls", "input", "output")]
        assert tuple(spent) == spent_at(server)
        assert all(row["usage"]["calls"] <= 3 for row in rows)
        assert {method["arm"] for method in comparison.summary["methods"]} == set(arms)
        before = server.counts["calls"]
        compare(GAME, arms, max_calls=3, **arguments)
        assert server.counts["calls"] == before
