"""What a call costs the client at a long history, over LangChain's own; in one process, in turns, by CPU time."""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from icrl_graph.models.http import async_client
from icrl_graph.models.registry import chat_model
from icrl_graph.testing import OpenAIServer
from tests.performance.lab import record

TURNS, CALLS, PAIRS = 100, 3, 7
HISTORY: Any = [{"role": "user", "content": "t" * 2000}] + [
    {"role": role, "content": letter * 2000 if role == "assistant" else "Reward: 0.5\n\nTry again."}
    for letter in "abcdefghij" * (TURNS // 10)
    for role in ("assistant", "user")
]


def _call(model: Any) -> float:
    """Seconds of a call, of this thread alone: the server has another."""
    model.invoke(HISTORY)
    start = time.thread_time()
    for _ in range(CALLS):
        model.invoke(HISTORY)
    return (time.thread_time() - start) / CALLS


def _acall(model: Any) -> float:
    async def calls() -> float:
        await model.ainvoke(HISTORY)
        start = time.thread_time()
        for _ in range(CALLS):
            await model.ainvoke(HISTORY)
        return (time.thread_time() - start) / CALLS

    return asyncio.run(calls())


@pytest.mark.parametrize("call", [_call, _acall], ids=["sync", "async"])
def test_a_long_history_costs_the_client_little(call: Callable[[Any], float], request: pytest.FixtureRequest) -> None:
    with OpenAIServer(lambda: "r" * 2000) as server:
        lean = chat_model("openai:any", base_url=server.base_url)
        plain = ChatOpenAI(
            model="any", base_url=server.base_url, api_key=SecretStr("k"), http_async_client=async_client()
        )
        pairs = [(call(lean), call(plain)) for _ in range(PAIRS)]
    ratio = median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (1000 * min(side) for side in zip(*pairs, strict=True))
    way = request.node.callspec.id
    figures = f"{ratio:.2f}x ({ours:.1f} ms of {theirs:.1f})"
    record(f"client CPU at {TURNS} turns over plain ChatOpenAI, {way}", "<= 0.35x", figures, ratio <= 0.35)
    assert ratio <= 0.35
