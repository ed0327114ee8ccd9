"""Money: what tokens cost, what a run has spent, and its cap."""

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.prices import cost
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models.registry import chat_model
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES, create_best_of_n, create_icrl, create_reflexion
from tests.helpers import GAME, play


class Answer(BaseModel):
    x: int


OWN: Any = {"policy": {"input": 2.0, "cached": 0.5, "output": 8.0}, "judge": {"input": 1.0, "output": 1.0}}


def test_cached_tokens_cost_what_they_cost_and_without_a_price_of_their_own_as_much_as_others() -> None:
    usage: Any = {"input": 1_000_000, "cached": 400_000, "output": 100_000}
    assert cost("policy", usage, OWN) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 8)
    assert cost("judge", usage, OWN) == pytest.approx(1.1)


def test_a_versioned_name_has_the_price_of_its_model_and_of_no_other() -> None:
    own: Any = {"m": {"input": 1, "output": 1}, "m-mini": {"input": 0, "output": 0}}
    usage: Any = {"input": 1_000_000, "output": 0}
    assert cost("m-mini-2026-01-01", usage, own) == 0
    assert cost("m-2026-01-01", usage, own) == cost("m-latest", usage, own) == 1
    assert cost("mm", usage, own) is cost("m-pro", usage, own) is None


def test_well_known_models_are_priced_offline_and_others_are_not() -> None:
    usage: Any = {"input": 100_000, "cached": 90_000, "output": 1000}
    known = cost("gpt-4.1-mini-2025-04-14", usage, {})
    assert known is not None
    assert 0.001 < known < 0.1
    assert cost("no-such-model", usage, {}) is None
    assert cost("", usage, {}) is None


def test_without_the_extra_no_price_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert cost("gpt-4.1-mini", {"input": 1, "output": 1}, {}) is None


def _models(server: OpenAIServer) -> Any:
    return [chat_model(f"openai:{name}", base_url=server.base_url) for name in ("policy", "judge")]


def _spent(report: Any) -> float:
    cached = report["prompt_tokens_details"]["cached_tokens"]
    tokens: Any = {"input": report["prompt_tokens"], "cached": cached, "output": report["completion_tokens"]}
    usd = cost(report["model"], tokens, OWN)
    assert usd is not None
    return usd


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(TOPOLOGIES)), st.integers(1, 4), st.integers(1, 2))
def test_the_ledger_is_the_sum_of_what_the_providers_report(topology: str, rounds: int, samples: int) -> None:
    """Of attempts, judgements and reflections alike."""
    with OpenAIServer(lambda: '{"reasons": "Fine.", "score": 5}', cache_block=8) as server:
        policy, judge = _models(server)
        size: Any = {"n": rounds} if topology == "best_of_n" else {"rounds": rounds}
        graph = TOPOLOGIES[topology](policy, llm_judge(judge, "Good?", samples=samples), prices=OWN, **size)
        output, _ = play(graph)
    usage, told = output["usage"], server.reported
    assert usage["calls"] == len(told)
    assert usage["input"] == sum(report["prompt_tokens"] for report in told)
    assert usage["output"] == sum(report["completion_tokens"] for report in told)
    assert usage["cached"] == sum(report["prompt_tokens_details"]["cached_tokens"] for report in told)
    assert usage["usd"] == pytest.approx(sum(map(_spent, told)))
    assert "unpriced" not in usage


@pytest.mark.parametrize("create", [create_icrl, create_reflexion])
def test_a_cap_of_dollars_is_passed_by_no_more_than_the_calls_in_flight(create: Any) -> None:
    with OpenAIServer(lambda: '{"reasons": "Fine.", "score": 5}') as server:
        policy, judge = _models(server)
        graph = create(policy, llm_judge(judge, "Good?"), rounds=50, prices=OWN, max_usd=0.005)
        output, episodes = play(graph)
    dearest = max(map(_spent, server.reported))
    assert output["stopped"] == "usd"
    assert 0.005 - 3 * dearest < output["usage"]["usd"] < 0.005 + dearest
    assert all(episode["reward"]["value"] == 5 for episode in episodes)  # no attempt is paid that can't be judged


@pytest.mark.parametrize("create", [create_icrl, create_best_of_n])
def test_a_model_without_a_price_is_refused_under_a_cap_of_dollars(create: Any) -> None:
    policy = chat_model("openai:mystery", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ValueError, match=r"price of 'mystery'.*prices={'mystery': {.*}} in US.*icrl-graph\[prices\]"):
        create(policy, lambda: 1.0, max_usd=1.0)
    with pytest.raises(ValueError, match="price of 'mystery'"):
        create(policy, lambda: 1.0).compile().invoke(GAME, context={"max_usd": 1.0})
    known = chat_model("openai:policy", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ValueError, match="price of 'mystery'"):
        create(known, llm_judge(policy, "Good?"), max_usd=1.0, prices=OWN)


@pytest.mark.parametrize("extract", [None, Answer], ids=["text", "structured"])
def test_a_run_with_another_model_needs_the_price_of_that_model_only(
    extract: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    mystery = chat_model("openai:mystery")
    graph = create_icrl(
        mystery, lambda: 1.0, extract=extract, prices=OWN, rate_limit=RateLimit(max_attempts=1), max_failures=1
    )
    compiled = graph.compile()
    with pytest.raises(ValueError, match="price of 'other'"):
        compiled.invoke(GAME, context={"max_usd": 1.0, "model": "openai:other"})
    output = compiled.invoke(GAME, context={"max_usd": 1.0, "model": "openai:policy"})
    assert output["stopped"] == "failures"  # it was asked; nobody is there


def test_unpriced_tokens_end_a_run_under_a_cap_and_are_counted_without_one() -> None:
    with OpenAIServer(lambda: "42") as server:
        hidden = chat_model("openai:mystery", base_url=server.base_url) | (lambda message: message)
        output, _ = play(create_icrl(hidden, lambda: 0.5, rounds=3, max_usd=1.0))
        assert (output["stopped"], output["rounds_done"]) == ("usd", 1)
        output, _ = play(create_icrl(hidden, lambda: 0.5, rounds=3))
    assert output["usage"]["unpriced"] == 3
    assert "usd" not in output["usage"]


def test_models_deep_inside_chains_are_counted_and_capped() -> None:
    with OpenAIServer(lambda: "42") as server:
        policy, judge = _models(server)
        chain = policy | StrOutputParser()
        scored: Any = RunnableLambda(lambda given: float((judge | StrOutputParser()).invoke("How good?")) / 100)
        output, _ = play(create_icrl(chain, scored, rounds=2, prices=OWN))
        assert output["usage"]["usd"] == pytest.approx(sum(map(_spent, server.reported)))
        assert output["usage"]["input"] == sum(report["prompt_tokens"] for report in server.reported)
        output, _ = play(create_icrl(chain, lambda: 0.5, rounds=9, max_tokens=1))
    assert (output["stopped"], output["rounds_done"]) == ("tokens", 1)


def test_a_message_that_a_function_model_passes_on_is_counted_once() -> None:
    usage: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    inner = ScriptedModel(lambda: "hi", usage=usage)
    output, _ = play(create_icrl(lambda messages: inner.invoke(messages), lambda: 1.0, rounds=2))
    assert (output["usage"]["input"], output["usage"]["output"]) == (20, 4)


@pytest.mark.parametrize("form", ["object", "bound", "name"])
def test_a_reflector_without_a_price_is_refused_in_every_form(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    model = chat_model("openai:mystery")
    given = {"object": model, "bound": model.bind(temperature=0), "name": "openai:mystery"}[form]
    with pytest.raises(ValueError, match="price of 'mystery'"):
        create_reflexion(lambda: "", lambda: 1.0, reflector=given, max_usd=1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"m": 1}, {"m": {"input": 1}}, {"m": {"input": -1, "output": 1}}, {"m": {"input": 1, "output": 1, "x": 1}}, 3],
)
def test_invalid_prices_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="prices is US dollars"):
        create_icrl(lambda: "", lambda: 1.0, prices=wrong)
