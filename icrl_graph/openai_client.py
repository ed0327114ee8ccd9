"""The HTTP client behind "openai:..." models, made for many loops in one process.

Its async side runs on aiohttp: the pool of the SDK's own client looks at every open connection on every call, and
drops idle ones after five seconds, less than many an evaluation takes. A connection pool belongs to one event loop,
but a chat model is often kept and used from several (a script that calls `asyncio.run` twice), so there is one pool
per loop. It is closed when its loop ends.

Only `icrl_graph.models` imports this, and only when an OpenAI model is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary

import httpx2
from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient

_LIMITS = httpx2.Limits(max_connections=10_000, max_keepalive_connections=10_000, keepalive_expiry=300.0)
_Pool = AsyncGenerator[httpx2.AsyncClient, None]


class _PerLoop(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Pool, httpx2.AsyncClient]] = (
            WeakKeyDictionary()
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            pool = _pool()
            self._pools[loop] = pool, await anext(pool)
        return await self._pools[loop][1].send(request, stream=True)


async def _pool() -> _Pool:
    """A generator, because an event loop that ends closes the generators that were begun in it."""
    client = DefaultAioHttpClient(limits=_LIMITS)
    try:
        yield client
    finally:
        await client.aclose()


def async_client() -> httpx2.AsyncClient:
    """A client for `ChatOpenAI(http_async_client=...)`."""
    return DefaultAsyncHttpxClient(transport=_PerLoop())
