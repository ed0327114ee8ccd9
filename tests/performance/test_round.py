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
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from icrl_graph.topologies.methods import create_icrl
from tests.performance.lab import FULL, record, serving

ROUNDS = 200
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
    record(f"CPU of a round over that of one plain ChatOpenAI call, {way}", "<= 0.6x", figures, share <= 0.6)
    record(f"CPU of rounds 181-200 over that of rounds 1-20, {way}", "<= 1.3x", f"{growth:.2f}x", growth <= 1.3)
    assert share <= 1.2
    assert growth <= 1.8
