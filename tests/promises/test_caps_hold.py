"""Caps hold: no cap is passed by more than the calls in flight, and usage is what the server's own account says."""

import asyncio
import gc
import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from pydantic import BaseModel

from icrl_graph import ModelError, RateLimit, chat_model, create_best_of_n, improve
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.prices import cost
from icrl_graph.state.episode import add_usage
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.corridor import Corridor
from tests.promises.ways import METHODS, WAYS

PRICES: Any = {"policy": {"input": 2.0, "output": 8.0}, "judge": {"input": 1.0, "output": 4.0}}
USAGE: Any = {"input_tokens": 50, "output_tokens": 10, "total_tokens": 60}


class Word(BaseModel):
    word: str


def _words(messages: list[dict[str, Any]], rng: Random) -> str:
    """Answers of very different lengths; verdicts where the prompt asks for one, in words or in the form."""
    text = json.dumps(messages)
    if "Judge the answer" in text:
        reasons = "so " * rng.randint(1, 40)
        return json.dumps({"reasons": reasons, "score": 5}) if rng.random() < 0.5 else f"{reasons}\nScore: 5"
    said = "word " * rng.randint(1, 60)
    return json.dumps({"word": said}) if rng.random() < 0.5 else said


def _case(draw: Random) -> tuple[str, int, dict[str, Any]]:
    """A method, how many calls it may have in flight, and its options."""
    method, samples, size = draw.choice(list(METHODS)), draw.choice([1, 1, 3]), draw.randint(1, 8)
    options: dict[str, Any] = {"n": size} if method == "best_of_n" else {"rounds": size}
    if method == "wide":
        options["width"] = draw.randint(1, 4)
    if method != "self_refine":
        options["retests"] = draw.choice([0, 0, 1, 2])
    if draw.random() < 0.3:
        options["extract"] = Word
    kind = draw.choice(["max_calls", "max_tokens", "max_usd"])
    options[kind] = {
        "max_calls": draw.randint(1, 30),
        "max_tokens": draw.randint(20, 6000),
        "max_usd": draw.uniform(1e-5, 0.02),
    }[kind]
    options["seed"] = draw.randint(0, 2**31)
    width = max(size if method == "best_of_n" else options.get("width", 1), 1)
    return method, max(width, 3) * samples, {**options, "judged": draw.choice([0, samples])}


FAULTS = ("429", "500", "empty", "refused", "filtered", "reset")


def _play(seed: int) -> None:
    draw = Random(seed)
    method, in_flight, options = _case(draw)
    faults: Any = {call: draw.choice(FAULTS) for call in range(1, 60) if draw.random() < 0.15}
    streaming = draw.random() < 0.3
    with OpenAIServer(_words, faults=faults, latency=draw.choice([0, 0, 0.002])) as server:
        open_: Any = {"base_url": server.base_url, "max_retries": 0, "streaming": streaming, "stream_usage": True}
        policy, judge = (chat_model(f"openai:{name}", **open_) for name in ("policy", "judge"))
        judged = options.pop("judged")
        score: Any = llm_judge(judge, "Good?", samples=judged) if judged else (lambda response: len(response) / 500)
        limit = RateLimit(max_backoff=0.001, max_concurrency=draw.choice([None, 1, 3]))
        way = WAYS[draw.choice(list(WAYS))]
        common: Any = {"prices": PRICES, "rate_limit": limit}
        result = way("Say it.", score, model=policy, topology=METHODS[method], **common, **options)
    told, used = server.reported, result.usage
    assert used.get("input", 0) == sum(each["prompt_tokens"] for each in told)
    assert used.get("output", 0) == sum(each["completion_tokens"] for each in told)
    usages: Any = [{"input": each["prompt_tokens"], "output": each["completion_tokens"]} for each in told]
    dollars = [cost(each["model"], usage, PRICES) or 0.0 for each, usage in zip(told, usages, strict=True)]
    assert used.get("usd", 0.0) == pytest.approx(sum(dollars))
    assert used["calls"] <= options.get("max_calls", used["calls"])
    tokens = [each["total_tokens"] for each in told]
    for amounts, cap in ((tokens, options.get("max_tokens")), (dollars, options.get("max_usd"))):
        if cap is not None:
            assert sum(amounts) < cap + in_flight * max(amounts, default=0)


def test_over_random_combinations_no_cap_is_passed_by_more_than_the_calls_in_flight(
    request: pytest.FixtureRequest,
) -> None:
    """Of methods, widths, judges, retests, reflections, faults, forms, streams and caps."""
    for seed in range(1000 if request.config.getoption("--soak") else 25):
        try:
            _play(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}: {_case(Random(seed))}")
            raise


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cap", [{"max_seconds": 0.05}, {"max_tokens": 100}, {"max_usd": 0.0001}, {"max_calls": 2}])
@pytest.mark.parametrize("many", ["best_of_n", "wide"])
@pytest.mark.parametrize("played", [False, True], ids=["chat", "rollout"])
def test_several_attempts_of_a_round_may_be_stopped_at_once(played: bool, many: str, cap: Any, way: str) -> None:
    def slow() -> str:
        time.sleep(0.03)
        return "right"

    model: Any = ScriptedModel(slow, usage=USAGE)
    object.__setattr__(model, "name", "policy")
    policy = rollout(model, Corridor, max_steps=4) if played else model
    size: Any = {"n": 6} if many == "best_of_n" else {"width": 3, "rounds": 2}
    result = WAYS[way](
        "Go.",
        episode_return if played else lambda: 1.0,
        model=policy,
        topology=METHODS[many],
        prices={"scripted": PRICES["policy"], "policy": PRICES["policy"], "": PRICES["policy"]},
        rate_limit=RateLimit(max_concurrency=1),
        **size,
        **cap,
    )
    (name,) = cap
    assert (
        result.stopped == {"max_seconds": "time", "max_tokens": "tokens", "max_usd": "usd", "max_calls": "calls"}[name]
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["icrl", "best_of_n", "wide"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("cap", [700, 1500])
def test_no_attempt_is_paid_that_can_not_be_judged(cap: int, samples: int, method: str, way: str) -> None:
    policy, judge = ScriptedModel(lambda: "word", usage=USAGE), ScriptedModel(lambda: "Score: 5", usage=USAGE)
    size: Any = {"n": 16} if method == "best_of_n" else {"rounds": 16}
    score = llm_judge(judge, "Good?", samples=samples)
    result = WAYS[way]("Say it.", score, model=policy, topology=METHODS[method], max_tokens=cap, **size)
    answered = [each for each in result.episodes if "response" in each]
    assert result.stopped == "tokens"
    assert answered
    assert all(each["reward"]["value"] == 5 for each in answered)
    assert len(policy.prompts) + len(judge.prompts) == result.usage["calls"] <= cap / 60


def test_of_a_wide_round_all_fits_that_the_cap_allows() -> None:
    """A cap is no reason to make one attempt where five fit."""
    model = ScriptedModel(lambda: "word", usage=USAGE)
    result = improve("Say it.", lambda: 1.0, model=model, topology="best_of_n", n=20, max_tokens=300)
    assert (len(model.prompts), result.usage["input"] + result.usage["output"]) == (5, 300)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_failed_does_not_tell_what_the_others_will_cost(way: str) -> None:
    with OpenAIServer(lambda: "word " * 40, faults={1: "500"}, latency=0.05) as server:
        model, limit = chat_model("openai:policy", base_url=server.base_url), RateLimit(max_attempts=1)
        options: Any = {"topology": "best_of_n", "n": 8, "max_tokens": 120, "rate_limit": limit}
        result = WAYS[way]("Say it.", lambda: 1.0, model=model, **options)
    spent, dearest = (f([each["total_tokens"] for each in server.reported]) for f in (sum, max))
    assert result.stopped == "tokens"
    assert 120 <= spent < 120 + dearest


@pytest.mark.parametrize("way", WAYS)
def test_time_of_calls_side_by_side_is_that_of_the_clock(way: str) -> None:
    def slow() -> str:
        time.sleep(0.05)
        return "Score: 5"

    judge, began = llm_judge(slow, "Good?", samples=8), time.perf_counter()
    result = WAYS[way]("Say it.", judge, model=lambda: "word", topology="best_of_n", n=5)
    assert result.rewards == [5.0] * 5
    assert result.usage["seconds"] <= time.perf_counter() - began  # 40 calls of .05 s are 2 s one after another


@pytest.mark.parametrize("way", WAYS)
def test_time_of_judgements_one_after_another_is_their_sum(way: str) -> None:
    def slow() -> float:
        time.sleep(0.05)
        return 1.0

    result = WAYS[way]("Say it.", slow, model=lambda: "word", topology="best_of_n", n=5, retests=1)
    assert result.usage["seconds"] >= 8 * 0.05


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_ask_is_one_missing_judgement_of_a_jury(way: str) -> None:
    def unsure(messages: Any) -> str:
        return "I can't tell."

    judges = [lambda: "Score: 4", lambda: "Score: 6", unsure]
    result = WAYS[way]("Say it.", llm_judge(judges, "Good?"), model=lambda: "word", rounds=1, max_calls=4)
    assert result.rewards == [5.0]
    assert (result.stopped, result.usage["calls"]) == ("rounds", 4)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("cap", ["max_tokens", "max_calls"])
def test_what_ended_attempts_of_a_killed_round_have_spent_counts(cap: str, is_async: bool, tmp_path: Path) -> None:
    """The others are made again in another process, which does not see them in its state."""
    made = 0

    def reply() -> Any:
        nonlocal made
        made += 1
        if made == 4:
            raise ModelError("wrong key")
        return "word"

    limit = {"max_tokens": 360, "max_calls": 6}[cap]
    config: Any = {"configurable": {"thread_id": "1"}}

    def graph() -> Any:  # a new one each time: what the process knew is lost
        options: Any = {"rate_limit": RateLimit(max_concurrency=1), cap: limit}
        return create_best_of_n(ScriptedModel(reply, usage=USAGE), lambda: 1.0, n=12, **options)

    async def in_loop(given: Any) -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "run.sqlite")) as saver:
            return await graph().compile(checkpointer=saver).ainvoke(given, config, durability="sync")

    def run(given: Any) -> Any:
        if is_async:
            return asyncio.run(in_loop(given))
        with SqliteSaver.from_conn_string(str(tmp_path / "run.sqlite")) as saver:
            return graph().compile(checkpointer=saver).invoke(given, config, durability="sync")

    with pytest.raises(ModelError):
        run({"task": "Say it."})
    gc.collect()  # else a connection that was closed while LangGraph wrote to it keeps SQLite's lock in this process
    in_flight = made - 1 if is_async else made - 4  # answered, but their attempts not yet saved: at most so many
    output = run(None)
    assert output["stopped"] == cap.removeprefix("max_")
    assert 6 <= output["usage"]["calls"] <= 6 + in_flight
    assert made <= 7 + in_flight  # the one that failed is made again


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["answer", "verdict"])
def test_a_structured_reply_that_can_not_be_read_is_paid_counted_and_kept(form: str, way: str, tmp_path: Path) -> None:
    """By a server that answers in words, whatever form is asked for."""
    with OpenAIServer(lambda: "word " * 50) as server:
        model = chat_model("openai:policy", base_url=server.base_url)
        if form == "answer":
            played: Any = {"score": lambda answer: 1.0, "extract": Word, "model": model}
        else:
            judge = llm_judge(model, "Good?")
            played = {"score": judge, "model": lambda: "word", "max_evaluator_failures": 0}
        options: Any = {"rounds": 50, "max_usd": 0.01, "prices": PRICES, "path": tmp_path / "run.sqlite"}
        result = WAYS[way]("Say it.", **played, **options)
        made = server.counts["calls"]
        again = WAYS[way]("Say it.", **played, **options)
    tokens: Any = [{"input": each["prompt_tokens"], "output": each["completion_tokens"]} for each in server.reported]
    assert result.stopped == "usd"
    assert result.usage["usd"] == pytest.approx(sum(cost("policy", each, PRICES) or 0 for each in tokens))
    assert result.usage["usd"] < 0.01 + max(cost("policy", each, PRICES) or 0 for each in tokens)
    assert add_usage(*tokens).items() <= result.usage.items()
    assert server.counts["calls"] == made
    assert again.usage == result.usage


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_refuses_structured_output_is_asked_in_words_from_there_on(way: str) -> None:
    refused = 0

    def reply(messages: Any) -> str:
        return json.dumps({"word": "x"}) if "JSON Schema" in json.dumps(messages) else "x\nScore: 5"

    from tests.bodies import BodyServer

    class Plain(BodyServer):
        """A server that knows no `response_format`."""

        async def _complete(self, request: Any) -> Any:
            from aiohttp import web

            nonlocal refused
            if "response_format" in json.loads(await request.read()):
                refused += 1
                return web.json_response({"error": {"message": "response_format is not supported"}}, status=400)
            return await super()._complete(request)

    with Plain(reply) as server:
        model = chat_model("openai:policy", base_url=server.base_url)
        score = llm_judge(model, "Good?")
        result = WAYS[way]("Say it.", score, model=model, extract=Word, rounds=4)
    assert result.rewards == [5.0] * 4
    assert result.answer == {"word": "x"}
    assert refused == 2  # once by the model, once by the judge
    assert result.usage["calls"] == 8


def test_the_budget_of_a_round_is_gone_with_its_run() -> None:
    graph = create_best_of_n(lambda: "word", lambda: 1.0, n=3, max_tokens=100)
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke({"task": "Say it."}, {"configurable": {"thread_id": "1"}})
    run = compiled.get_state({"configurable": {"thread_id": "1"}}).values["settings"]["run"]
    assert graph.parts.driver.run_cache.get(run, ("budget", 0)) is None
