"""The optimisers of other libraries, each by its real package: what they spend is what the server has counted."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

import pytest

from icrl_graph import RateLimit, chat_model, compare, improve
from icrl_graph.errors import MissingExtra
from icrl_graph.execution.prices import cost
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


PRICES: Any = {"any": {"input": 2.0, "output": 8.0}}
FAULTS = ("429", "500", "empty", "refused")


def _cap(draw: Random) -> dict[str, Any]:
    kind = draw.choice(["max_calls", "max_tokens", "max_usd"])
    most: Any = {"max_calls": draw.randint(1, 16), "max_tokens": draw.randint(20, 6000)}
    return {kind: most.get(kind, draw.uniform(1e-5, 0.02))}


def _play_capped(seed: int, arms: list[str]) -> None:
    """A random arm under a random cap, some of whose calls fail."""
    draw = Random(seed)
    name, cap, rounds = draw.choice(arms), _cap(draw), draw.randint(1, 8)
    faults: Any = {call: draw.choice(FAULTS) for call in range(1, 60) if draw.random() < 0.05}
    limit = RateLimit(max_backoff=0.001)
    with OpenAIServer(PLAYER, faults=faults) as server:
        result = play(name, server, rounds=rounds, seed=seed, prices=PRICES, rate_limit=limit, **cap)
    told, usage = server.reported, result.usage
    tokens: list[float] = [each["total_tokens"] for each in told]
    assert usage.get("input", 0) + usage.get("output", 0) == sum(tokens)
    sums: Any = [{"input": each["prompt_tokens"], "output": each["completion_tokens"]} for each in told]
    dollars = [cost("any", each, PRICES) or 0.0 for each in sums]
    assert usage.get("usd", 0.0) == pytest.approx(sum(dollars))
    refused = server.counts["429"] + server.counts["500"]
    made = server.counts["calls"] - refused  # a call that is repeated because its server was busy counts as one
    assert made <= usage["calls"] <= min(server.counts["calls"], cap.get("max_calls", server.counts["calls"]))
    for amounts, most in ((tokens, cap.get("max_tokens")), (dollars, cap.get("max_usd"))):
        assert most is None or sum(amounts) < most + max(amounts, default=0)


def test_over_random_caps_no_arm_passes_one_by_more_than_the_call_in_flight(request: pytest.FixtureRequest) -> None:
    is_soak, there = request.config.getoption("--soak"), importlib.util.find_spec
    arms = [name for name, package in PACKAGES.items() if os.environ.get("CI") or there(package) is not None]
    for seed in range(1000 if is_soak else 25):
        try:
            _play_capped(seed, arms)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


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


CHILD = Path(__file__).parent / "arena_child.py"


def kept(file: Path) -> int:
    """Paid replies in the journal of a run."""
    with closing(sqlite3.connect(file)) as connection:
        made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'icrl_replies'").fetchone()[0]
        return int(connection.execute("SELECT count(*) FROM icrl_replies").fetchone()[0]) if made else 0


@pytest.mark.parametrize("name", ARMS)
def test_a_process_that_is_killed_pays_for_nothing_twice_but_the_call_in_flight(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    is_soak = request.config.getoption("--soak")
    if not is_soak and name not in ("gepa", "langgraph_reflection"):
        pytest.skip("two arms, whose packages are imported fast: make soak has them all, 20 kills each")
    kills, rng, done = 20 if is_soak else 2, Random(name), 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with OpenAIServer(PLAYER) as server:
        result = play(name, server)
        wanted = [result.answer, result.reward, *counted(result.usage)]
    while done < kills:
        file, lost, ended = tmp_path / f"after {done}.sqlite", 0, False
        with OpenAIServer(PLAYER, latency=0.02) as server:
            command = [sys.executable, str(CHILD), name, server.base_url, str(file)]
            while not ended:
                point = server.counts["calls"] + rng.randint(1, 4) if done < kills else sys.maxsize
                with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
                    while child.poll() is None and server.counts["calls"] < point:
                        time.sleep(0.002)
                    child.kill()
                    said, _ = child.communicate()
                ended = bool(said)
                urlopen(f"{server.base_url}/models").close()  # what it had sent before that is counted by now
                in_flight = server.counts["calls"] - kept(file) - lost
                assert 0 <= in_flight <= (not ended)
                lost, done = lost + in_flight, done + (not ended)
            assert json.loads(said) == wanted
            assert kept(file) == CALLS[name]
            assert server.counts["calls"] == CALLS[name] + lost


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
