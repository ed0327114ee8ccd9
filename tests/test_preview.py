"""What a comparison is said to cost, held against what it then costs over real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icrl_graph.benchmarks import runner
from icrl_graph.benchmarks.experiment import prepare
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.execution.prices import cost
from icrl_graph.state.episode import Usage, add_usage
from icrl_graph.testing import OpenAIServer
from tests.bench_child import METHODS, plan_of, rows_of

PRICES: Any = {"policy": {"input": 2.0, "output": 8.0}, "judge": {"input": 1.0, "output": 3.0}}
TOKENS = 200


def talker(messages: list[dict[str, Any]]) -> str:
    """Says as many tokens as the preview is told, whatever it is asked."""
    if str(messages[0]["content"]).startswith("Judge the answer"):
        frame = json.dumps({"reasons": "", "score": 5})
        return frame.replace('""', f'"{"a" * (4 * TOKENS - len(frame))}"')
    return ("word " * TOKENS)[: 4 * TOKENS]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(talker) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


def previewed(plan: Plan) -> dict[str, Usage]:
    return prepare(plan).preview(TOKENS)


def spent_on(server: OpenAIServer) -> dict[str, float]:
    """What the server has reported."""
    told = server.reported
    usd = [
        cost(each["model"], {"input": each["prompt_tokens"], "output": each["completion_tokens"]}, PRICES)
        for each in told
    ]
    return {
        "calls": len(told),
        "input": sum(each["prompt_tokens"] for each in told),
        "output": sum(each["completion_tokens"] for each in told),
        "usd": sum(paid or 0.0 for paid in usd),
    }


JUDGED: list[dict[str, Any]] = [
    {},
    {"judge": "openai:judge", "benchmark": "writing"},
    {"judge": "openai:judge", "rubric": "Is it short? " * 300},
]


@pytest.mark.parametrize("judged", JUDGED, ids=["exact", "judged", "rubric"])
def test_a_comparison_costs_about_what_the_preview_says(judged: Any, tmp_path: Path, server: OpenAIServer) -> None:
    """A token is four characters, for the server and for the preview."""
    plan = plan_of(*METHODS, options={"prices": PRICES, "system": "You are brief. " * 20}, limit=1, **judged)
    said = previewed(plan)
    assert server.counts["calls"] == 0
    runner.run(plan, tmp_path / "x")
    rows = rows_of(tmp_path / "x")
    for arm in METHODS:
        paid: Any = add_usage(*(row["usage"] for cell, row in rows.items() if cell.arm == arm))
        told: Any = said[arm]
        assert told["calls"] == paid["calls"], arm
        for unit in ("input", "output", "usd"):
            assert 0.93 * paid[unit] <= told[unit] <= 1.35 * paid[unit], (arm, unit, paid[unit], told[unit])
    whole: Any = add_usage(*said.values())
    real = spent_on(server)
    assert whole["calls"] == real["calls"]
    assert 0.97 * real["usd"] <= whole["usd"] <= 1.3 * real["usd"]


def test_the_cost_of_all_runs_is_that_of_one_times_tasks_and_seeds(server: OpenAIServer) -> None:
    one: Any = previewed(plan_of("reflexion", limit=1, options={"prices": PRICES}))["reflexion"]
    all_ = previewed(plan_of("reflexion", limit=5, seeds=3, options={"prices": PRICES}))["reflexion"]
    assert all_ == pytest.approx({name: 15 * amount for name, amount in one.items()}, rel=0.01)
    assert one["calls"] == 5


def test_longer_responses_and_more_memory_cost_more(server: OpenAIServer) -> None:
    plan = plan_of("icrl", "icrl+memory=none", "icrl+memory=last:1", rounds=6)
    said = previewed(plan)
    assert said["icrl"]["input"] > said["icrl+memory=last:1"]["input"] > said["icrl+memory=none"]["input"]
    longer = prepare(plan).preview(2 * TOKENS)
    assert longer["icrl+memory=none"]["output"] == 2 * said["icrl+memory=none"]["output"] == 2 * 2 * 6 * TOKENS
    assert longer["icrl"]["input"] > said["icrl"]["input"]


def test_a_preview_takes_all_rounds_but_not_more_than_the_budget(server: OpenAIServer) -> None:
    early = previewed(plan_of("icrl", "best_of_n", options={"target": 0.0, "patience": 1}, rounds=6, limit=1))
    assert [usage["calls"] for usage in early.values()] == [6, 6]
    capped = previewed(plan_of("icrl", "best_of_n", options={"max_calls": 4}, rounds=6, limit=1))
    assert [usage["calls"] for usage in capped.values()] == [4, 4]


def test_a_learner_costs_calls_but_no_tokens_and_no_dollars() -> None:
    plan = plan_of("icrl", "reflexion", benchmark="hidden-color", model="learner:hidden-color", limit=4)
    assert previewed(plan) == {"icrl": {"calls": 12}, "reflexion": {"calls": 20}}


def test_replies_without_a_known_price_are_counted_as_unpriced(server: OpenAIServer) -> None:
    said = previewed(plan_of("icrl", model="openai:mystery"))["icrl"]
    assert said["unpriced"] == said["calls"] == 6
    assert "usd" not in said


def test_tasks_that_are_longer_than_the_first_are_counted(tmp_path: Path, server: OpenAIServer) -> None:
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps({"task": "long " * size}) for size in (1, 2000, 100)))
    mine = plan_of("best_of_n", benchmark=str(tmp_path / "mine.jsonl"), evaluator=f"{__file__}:score", limit=3)
    runner.run(mine, tmp_path / "x")
    assert previewed(mine)["best_of_n"]["input"] >= 0.9 * spent_on(server)["input"]


def score() -> float:
    """An evaluator that is free."""
    return 0.5


def test_a_metric_that_asks_a_model_is_counted(tmp_path: Path, server: OpenAIServer) -> None:
    (tmp_path / "mine.py").write_text(
        "from icrl_graph.evaluators.judge import llm_judge\nfrom icrl_graph.models.registry import chat_model\n\n"
        "metric = llm_judge(chat_model('openai:judge'), 'Good?')\n"
    )
    plan = plan_of("icrl", metric=f"{tmp_path / 'mine.py'}:metric", limit=1)
    runner.run(plan, tmp_path / "x")
    assert server.counts["calls"] == 6
    assert previewed(plan)["icrl"]["calls"] == 6
