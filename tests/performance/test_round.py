"""What a round costs beside the model: CPU time, over that of one plain call through LangChain."""

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, OpenAI
from pydantic import SecretStr

from icrl_graph.models.registry import chat_model
from icrl_graph.topologies.methods import create_icrl
from tests.performance.lab import FULL, full_only, record, serving

ROUNDS, LONG = 200, 2000
PROMPT = [{"role": "system", "content": "You write."}, {"role": "user", "content": "t" * 2000}]


class _Free(Runnable[Any, str]):
    """A policy that costs nothing."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> str:
        return "r" * 2000

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> str:
        return "r" * 2000


def _rounds(asynchronous: bool) -> list[float]:
    """CPU seconds of each round of a run, journal in memory, no saver."""
    marks: list[float] = []

    def score() -> float:
        marks.append(time.process_time())
        return 0.5

    async def ascore() -> float:
        return score()

    config: Any = {"recursion_limit": 10**6}
    graph = create_icrl(_Free(), ascore if asynchronous else score, rounds=ROUNDS).compile()
    given: Any = {"task": "t" * 2000}
    if asynchronous:
        asyncio.run(graph.ainvoke(given, config))
    else:
        graph.invoke(given, config)
    return [after - before for before, after in pairwise(marks)]


def _calls(base_url: str, asynchronous: bool) -> float:
    """CPU seconds of a plain call; the median of many."""
    client = DefaultAsyncHttpxClient()  # else one that LangChain shares between event loops
    model = ChatOpenAI(model="any", base_url=base_url, api_key=SecretStr("none"), http_async_client=client)

    async def acall() -> list[float]:
        seconds = []
        async with client:
            for _ in range(60):
                start = time.process_time()
                await model.ainvoke(PROMPT)
                seconds.append(time.process_time() - start)
        return seconds

    def call() -> float:
        start = time.process_time()
        model.invoke(PROMPT)
        return time.process_time() - start

    return median(asyncio.run(acall()) if asynchronous else [call() for _ in range(60)])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
def test_a_round_costs_less_than_a_call_and_the_last_no_more_than_the_first(asynchronous: bool) -> None:
    _rounds(asynchronous)  # what is imported and compiled once
    with serving() as server:
        turns = [(_calls(server.base_url, asynchronous), _rounds(asynchronous)) for _ in range(5 if FULL else 2)]
    part: Callable[[slice], float] = lambda which: min(median(rounds[which]) for _, rounds in turns)  # noqa: E731
    call = min(call for call, _ in turns)
    way = "ainvoke" if asynchronous else "invoke"
    share = part(slice(0, 50)) / call
    growth = min(median(rounds[-20:]) / median(rounds[:20]) for _, rounds in turns)
    figures = f"{share:.2f}x ({1000 * part(slice(0, 50)):.2f} ms of {1000 * call:.2f})"
    goal = 0.4 if asynchronous else 0.45
    record(f"CPU of a round over that of one plain ChatOpenAI call, {way}", f"<= {goal}x", figures, share <= goal)
    record(f"CPU of rounds 181-200 over that of rounds 1-20, {way}", "<= 1.15x", f"{growth:.2f}x", growth <= 1.15)
    assert share <= 1.2
    assert growth <= 1.8


@full_only
def test_a_long_history_adds_less_to_a_round_than_to_a_call_of_the_bare_client() -> None:
    marks: list[float] = []

    def score() -> float:
        marks.append(time.process_time())
        return 0.5

    def added(seconds: list[float]) -> float:
        return 1000 * (median(seconds[-20:]) - median(seconds[:20]))

    with serving(says="r" * 500) as server:
        graph = create_icrl(chat_model("openai:any", base_url=server.base_url, api_key="none"), score, rounds=LONG)
        graph.compile().invoke({"task": "t" * 2000}, {"recursion_limit": 10**6})
        ours = added([after - before for before, after in pairwise(marks)])
        said: Any = [{"role": "assistant", "content": "r" * 500}, {"role": "user", "content": "Reward: 0.5"}]
        calls: list[float] = []
        with OpenAI(base_url=server.base_url, api_key="none") as client:
            for shown in [1] * 20 + [LONG] * 20:
                start = time.process_time()
                client.chat.completions.create(model="any", messages=shown * said)
                calls.append(time.process_time() - start)
    bare = added(calls)
    record(
        f"CPU that {LONG} rounds add to a round through HTTP, over what they add to a call of the bare openai client",
        "<= 1x", f"{ours / bare:.2f}x ({ours:.1f} ms of {bare:.1f})", ours <= bare,
    )  # fmt: skip
