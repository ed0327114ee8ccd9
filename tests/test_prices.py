"""Money: what tokens cost, what a run has spent, and its cap."""

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.prices import cost
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.execution.usage import UsageCallback, usage_of
from icrl_graph.models import prompt_cache
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.registry import chat_model
from icrl_graph.preview import preview
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


def test_each_call_within_an_agent_is_counted_and_a_cap_of_calls_ends_the_run_after_its_attempt() -> None:
    with OpenAIServer(lambda: "42") as server:
        policy, judge = _models(server)
        agent: Any = policy | StrOutputParser() | (lambda text: judge.invoke(f"Better than {text}?"))
        output, _ = play(create_icrl(agent, lambda: 0.5, rounds=9, max_calls=3))
        assert (output["usage"]["calls"], output["stopped"]) == (4, "calls")
        assert server.counts["calls"] == 4


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


MILLION: Any = {"input": 1_000_000, "output": 0}


@pytest.mark.parametrize(
    ("price", "usage", "usd"),
    [
        ({}, {"written": 400_000}, 0.6 * 2 + 0.4 * 2.5),
        ({"written": 3.0}, {"written": 400_000}, 0.6 * 2 + 0.4 * 3),
        ({"cached": 0.2}, {"written": 300_000, "cached": 500_000}, 0.2 * 2 + 0.3 * 2.5 + 0.5 * 0.2),
        ({}, {"written": 400_000, "written_1h": 100_000}, 0.6 * 2 + 0.3 * 2.5 + 0.1 * 4),
        ({"written_1h": 5.0}, {"written": 100_000, "written_1h": 100_000}, 0.9 * 2 + 0.1 * 5),
        ({"cached": 0.2}, {"cached": 3_000_000}, 3 * 0.2),  # a server that does not count them in
        ({"cached": 0.2}, {"cached": 900_000, "written": 300_000}, 0.9 * 0.2 + 0.3 * 2.5),
    ],
)
def test_what_is_written_into_the_cache_costs_what_it_costs(price: Any, usage: Any, usd: float) -> None:
    own: Any = {"m": {"input": 2.0, "output": 1.0, **price}}
    whole: Any = {**MILLION, **usage}
    assert cost("m", whole, own) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("model", "usd"),
    [("claude-opus-4-5", 0.5 * 5 + 0.2 * 6.25 + 0.3 * 0.5), ("gpt-5.6", None), ("gpt-4.1-mini", 0.7 * 0.4 + 0.3 * 0.1)],
)
def test_the_price_list_knows_what_writes_cost_or_that_they_cost_nothing_more(model: str, usd: float | None) -> None:
    usage: Any = {"input": 100_000, "written": 20_000, "cached": 30_000, "output": 0}
    without: Any = {**usage, "written": 0}
    spent, plain = cost(model, usage, {}), cost(model, without, {})
    assert spent is not None
    assert plain is not None
    assert spent == pytest.approx(usd / 10) if usd else spent > plain


@pytest.mark.parametrize("cached", [0, 50, 100, 101, 10**9])
def test_no_report_of_a_server_makes_a_negative_cost(cached: int) -> None:
    usage: Any = {"input": 100, "cached": cached, "written": cached // 2, "output": 0}
    for model, own in (("policy", OWN), ("claude-opus-4-5", {}), ("gpt-4.1-mini", {})):
        spent = cost(model, usage, own)
        assert spent is not None
        assert spent >= 0


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-4-20250514",
        "claude-opus-4-2025-05-14",
        "claude-opus-4@20250514",
        "claude-opus-4-latest",
        "claude-opus-4",
    ],
)
def test_a_name_with_a_date_has_the_price_of_its_model(model: str) -> None:
    assert cost(model, MILLION, {"claude-opus-4": {"input": 7, "output": 1}}) == 7


@pytest.mark.parametrize(
    ("own", "model"),
    [
        ("my-opus-4", "my-opus-4-5"),
        ("my-opus-4", "my-opus-4-5-20251101"),
        ("my-4.1", "my-4.1-mini"),
        ("my-4.1", "my-4.1-mini-2025-04-14"),
        ("my-4", "my-4-32768"),
        ("my-4", "my-4-20251399"),
        ("my-4", "my-4-2025-0414"),
        ("my-4", "your-my-4"),
        ("my-4", "my-4-1-latest"),
    ],
)
def test_another_model_has_not_the_price_of_one_whose_name_it_begins_with(own: str, model: str) -> None:
    assert cost(model, MILLION, {own: {"input": 7, "output": 1}}) is None


def _message(details: Any, identifier: str | None = "m1", tokens: int = 1000) -> AIMessage:
    usage: Any = {"input_tokens": tokens, "output_tokens": 10, "total_tokens": tokens + 10}
    usage["input_token_details"] = details
    return AIMessage("x", id=identifier, usage_metadata=usage, response_metadata={"model_name": "policy"})


@pytest.mark.parametrize(
    ("details", "cached", "written", "hour"),
    [
        ({}, 0, 0, 0),
        ({"cache_read": 100, "cache_creation": 200}, 100, 200, 0),
        ({"cache_creation": 0, "ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 50}, 0, 250, 50),
        ({"cache_creation": 250, "ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 50}, 0, 250, 50),
        ({"flex_cache_read": 100, "flex_cache_creation": 200, "flex": 900}, 100, 200, 0),
    ],
)
def test_usage_is_read_from_every_form_of_report(details: Any, cached: int, written: int, hour: int) -> None:
    usage = usage_of(_message(details), UsageCallback(), OWN)
    assert (usage["cached"], usage.get("written", 0), usage.get("written_1h", 0)) == (cached, written, hour)
    plain = 1000 - cached - written
    usd = plain * 2 + cached * 0.5 + (written - hour) * 2.5 + hour * 4 + 10 * 8
    assert usage["usd"] == pytest.approx(usd / 1e6)


def _wrapped(hand_on: Any) -> Any:
    """A chat model around another one."""
    inner = FunctionModel(reply=lambda: _message({}, identifier=None))

    def reply(messages: Any) -> Any:
        return hand_on(inner.invoke(messages))

    return FunctionModel(reply=reply)


@pytest.mark.parametrize(
    "hand_on",
    [
        lambda message: message,
        lambda message: message.model_copy(),
        lambda message: message.model_copy(update={"content": "cleaned"}),
        lambda message: AIMessage(
            "cleaned", id=message.id, usage_metadata=message.usage_metadata, response_metadata=message.response_metadata
        ),
    ],
)
def test_a_model_that_hands_on_the_message_of_another_is_counted_once(hand_on: Any) -> None:
    _, episodes = play(create_icrl(_wrapped(hand_on), lambda: 0.5, rounds=2, prices=OWN))
    assert [episode["costs"]["generate"]["input"] for episode in episodes] == [1000, 1000]


def test_answers_that_share_an_id_are_counted_each() -> None:
    sizes = iter([100, 200])
    inner = FunctionModel(reply=lambda: _message({}, "chatcmpl-1", next(sizes)))
    twice: Any = RunnableLambda(lambda messages: [inner.invoke(messages) for _ in range(2)][-1])
    output, _ = play(create_icrl(twice, lambda: 0.5, rounds=1, prices=OWN))
    assert output["usage"]["input"] == 300


def test_a_cap_of_dollars_counts_what_is_written_into_the_cache() -> None:
    model = FunctionModel(reply=lambda: _message({"cache_creation": 1000}, identifier=None))
    output, episodes = play(create_icrl(model, lambda: 0.5, rounds=50, prices=OWN, max_usd=0.02))
    assert output["stopped"] == "usd"
    assert len(episodes) == 8  # each costs 1000 * 2.5 + 10 * 8 millionths


@pytest.mark.parametrize(("dialect", "judged"), [("anthropic", False), ("openai-marks", True)])
def test_a_preview_counts_what_is_written_into_a_cache_that_charges_for_it(
    dialect: str, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "dialect", lambda choice, model: prompt_cache.DIALECTS[dialect])
    policy = chat_model("openai:policy", base_url="http://127.0.0.1:1/v1")
    task = "word " * 2000  # 2500 tokens
    usage = preview(task, lambda response: 0.5, model=policy, topology="best_of_n", n=3, response_tokens=10, prices=OWN)
    assert usage["written"] == usage["input"] // 3  # the first writes, the others read
    assert usage["usd"] == pytest.approx((usage["input"] * 2 + usage["written"] * 0.5 + usage["output"] * 8) / 1e6)
    judge = llm_judge(policy, "Good?")
    both = preview(task, judge, model=policy, topology="best_of_n", n=3, response_tokens=10, prices=OWN)
    assert (both["written"] > usage["written"]) is judged
