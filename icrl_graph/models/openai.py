"""The client behind "openai:..." models, made for long histories and for many event loops in one process.

A prompt of a hundred turns costs a client more than the rest of a round: LangChain looks at every character of every
assistant turn, and the SDK walks through the type of every message, to send what is there already. `LeanChatOpenAI`
passes texts on as they are. It depends on one private method of LangChain; without it, it is a plain `ChatOpenAI`.

The HTTP client's async side runs on aiohttp: the pool of the SDK's own client looks at every open connection on every
call, and drops idle ones after five seconds, less than many evaluations take. A connection pool belongs to one event
loop, but a chat model is often used from several (a script that calls `asyncio.run` twice), so there is one pool per
loop. It is closed when its loop ends.

Only `icrl_graph.models.registry` imports this, and only for a model of OpenAI's protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

import httpx2
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient, DefaultHttpxClient

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
    """A generator, because an event loop that ends closes the generators that were started in it."""
    client = DefaultAioHttpClient(limits=_LIMITS)
    try:
        yield client
    finally:
        await client.aclose()


Credentials = tuple[str, str] | None
"""A user name and a password: the clients hold them, so that no address and no log does."""


def async_client(credentials: Credentials = None) -> httpx2.AsyncClient:
    """A client for `ChatOpenAI(http_async_client=...)`."""
    return DefaultAsyncHttpxClient(transport=_PerLoop(), auth=credentials)


class _SyncClient(DefaultHttpxClient):
    def __del__(self) -> None:
        self.close()


def clients(credentials: Credentials) -> dict[str, Any]:
    """The HTTP clients of a `ChatOpenAI`, as its arguments; without credentials its sync client is its own."""
    sync = {} if credentials is None else {"http_client": _SyncClient(auth=credentials)}
    return {"http_async_client": async_client(credentials), **sync}


class LeanChatOpenAI(ChatOpenAI):
    """A `ChatOpenAI` that sends the same bodies for a fraction of the CPU, where a history is long."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """The id of the class that it stands for, so that it is saved and traced as that."""
        return ChatOpenAI.lc_id()

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The request's fields, with the messages where the SDK passes them on without looking at their types."""
        if self.use_responses_api is not False:  # another protocol, or not yet decided
            return super()._get_request_payload(input_, stop=stop, **kwargs)
        messages = self._convert_input(input_).to_messages()
        texts = [_as_text(message) for message in messages]
        others = [message for message, text in zip(messages, texts, strict=True) if text is None]
        payload = super()._get_request_payload(others, stop=stop, **kwargs)
        converted = iter(payload["messages"])
        sent = [next(converted) if text is None else text for text in texts]
        return {**payload, "messages": [], "extra_body": {"messages": sent, **(payload.get("extra_body") or {})}}


def _as_text(message: BaseMessage) -> dict[str, Any] | None:
    """A user's or an assistant's message as it is sent, if it is plain text; None for any other."""
    role = _ROLES.get(type(message))
    if role is None or not isinstance(message.content, str) or message.name is not None or message.additional_kwargs:
        return None
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        return None
    return {"content": message.content, "role": role}


_ROLES: dict[type[BaseMessage], str] = {HumanMessage: "user", AIMessage: "assistant"}
