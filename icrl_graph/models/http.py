"""HTTP to a server of OpenAI's protocol: one client for `invoke` and one for `ainvoke`, alike for whoever calls them.

A time limit is for the whole exchange, from the connection to the last byte of the body: a server that sends a blank
now and then would hold a call for ever if each read had the limit anew. What breaks is told in the same words on both
sides, whichever library found it, and with the server's address. An error that comes with a status of 200 counts as
what it says, and what is no answer at all as a broken connection, so both are repeated. A request that is refused for
an optional field is sent again without it (see `icrl_graph.models.servers`).

The async side runs on aiohttp: the pool of the SDK's own client looks at every open connection on every call, and drops
idle ones after five seconds, less than many evaluations take. A connection pool belongs to one event loop, but a chat
model is often used from several (a script that calls `asyncio.run` twice), so there is one pool per loop. It is closed
when its loop ends.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import aiohttp
import httpcore2
import httpx2
from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient, DefaultHttpxClient

from icrl_graph.execution.calls import is_broken_off
from icrl_graph.models.addresses import Credentials
from icrl_graph.models.completions import ending, is_completion, mended
from icrl_graph.models.errors import alone, error_in, parsed, reason_in, status_in, words_in
from icrl_graph.models.events import Events, Verbatim
from icrl_graph.models.servers import Server, refused_field
from icrl_graph.models.turns import AsyncInTurns, InTurns

_LIMITS = httpx2.Limits(max_connections=10_000, max_keepalive_connections=10_000, keepalive_expiry=300.0)
_Pool = AsyncGenerator[httpx2.AsyncClient, None]
_BROKE_OFF = re.compile("disconnected|closed|reset|broken pipe|not enough data|eof", re.I)
"""What h11, httpcore, asyncio and aiohttp say of a connection that ended before the answer did."""


def sync_client(credentials: Credentials | None = None, server: Server | None = None) -> httpx2.Client:
    """A client for `ChatOpenAI(http_client=...)`; it holds user and password, so that no address and no log does."""
    return DefaultHttpxClient(transport=InTurns(_Blocking(server or Server())), auth=credentials)


def async_client(credentials: Credentials | None = None, server: Server | None = None) -> httpx2.AsyncClient:
    """A client for `ChatOpenAI(http_async_client=...)`."""
    return DefaultAsyncHttpxClient(transport=AsyncInTurns(_PerLoop(server or Server())), auth=credentials)


class _Exchange:
    """A request and its answer: until when it may take, what is said if it breaks, and what it is sent without."""

    def __init__(self, request: httpx2.Request, server: Server) -> None:
        self.request = _without(request, server.left_out) if server.left_out else request
        self._knowledge, self.refusals = server, dict[str, str]()
        self.url = request.url
        self.server = f"{self.url.scheme}://{self.url.netloc.decode()}"
        self.is_chat = self.url.path.endswith("/chat/completions")
        self.limit: float | None = request.extensions.get("timeout", {}).get("read")
        self.end = math.inf if self.limit is None else time.monotonic() + self.limit

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of it that blocks."""
        token = _end.set(self.end)
        try:
            yield
        except (httpx2.RequestError, aiohttp.ClientError, OSError) as error:
            raise self.told(error) from error
        finally:
            _end.reset(token)

    @asynccontextmanager
    async def astep(self) -> AsyncIterator[None]:
        """A step of it that awaits."""
        left = None if self.limit is None else max(0.0, self.end - time.monotonic())
        try:
            async with asyncio.timeout(left):
                yield
        except (httpx2.RequestError, aiohttp.ClientError, OSError) as error:
            raise self.told(error) from error

    def told(self, error: Exception) -> httpx2.RequestError:
        """The error of a step in words that do not depend on the library below."""
        causes = list(_causes(error))
        texts, server = " ".join(map(str, causes)), self.server
        if any(isinstance(each, socket.gaierror) for each in causes):
            return httpx2.ConnectError(f"unknown host {self.url.host}")
        if failures := [each for each in causes if isinstance(each, ssl.SSLError)]:
            return httpx2.ConnectError(f"TLS with {server} failed: {failures[-1]}")
        if any(getattr(each, "errno", None) == errno.ECONNREFUSED for each in causes):
            return httpx2.ConnectError(f"connection refused by {server}")
        if any(isinstance(each, TimeoutError) for each in causes):
            within = "in time" if self.limit is None else f"within {self.limit:g} s"
            return httpx2.ReadTimeout(f"no whole answer from {server} {within}")
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.TooManyRedirects | _NoAnswer):
            return type(error)(str(error))
        if any(
            isinstance(each, ConnectionError | aiohttp.ServerDisconnectedError) for each in causes
        ) or _BROKE_OFF.search(texts):
            return self.broke_off()
        complaint = " ".join(str(getattr(causes[-1], "message", causes[-1])).split())
        return httpx2.RemoteProtocolError(f"what {server} sent is no valid HTTP: {complaint:.120}")

    def checked(self, response: httpx2.Response) -> httpx2.Response:
        """A whole answer with the status that its body means, and the reason where the SDK looks for it.

        Raises:
            httpx2.RequestError: it has a status of success, and is no answer.
        """
        status, body = response.status_code, response.content.decode("utf-8-sig", "replace")
        if response.request.method != self.request.method:  # as a 301 has it: QwenLM/qwen-code/issues/166
            status, body = 404, json.dumps({"detail": f"{self.url} has moved, to {response.url}: give that address"})
        told = alone(parsed(body))
        error = error_in(told) or _broken_off(told)
        if status < 400:
            if error:
                status = status_in(error)
            elif self.is_chat:
                if self._wants_stream or not is_completion(told):
                    raise self.no_answer(body)
                whole = mended(told)
                body = body if whole is told else json.dumps(whole)
        if status >= 400 and (reason := reason_in(error or told) or words_in(body)):
            known = error if isinstance(error, Mapping) else {}
            whole = told if isinstance(told, Mapping) else {}  # it may hold what was paid
            body = json.dumps({**whole, "error": {**known, "message": reason}})
        return httpx2.Response(status, headers=_kept(response), content=body.encode(), request=response.request)

    def no_answer(self, body: str) -> httpx2.RequestError:
        """The error of a body, or of an event of a stream, that is none of an answer."""
        what = "stream" if self._wants_stream else "chat completion"
        begin = " ".join(body[:500].split()) or "nothing"
        hint = "" if self._wants_stream or not begin.startswith("data:") else "; streaming=True asks for a stream"
        return _NoAnswer(f"what {self.server} sent is no {what}: {begin:.120}{hint}")

    def broke_off(self) -> httpx2.RequestError:
        """The error of a connection that ended before the answer did."""
        return httpx2.ReadError(f"the connection to {self.server} broke off")

    @property
    def _wants_stream(self) -> bool:
        told = _STREAM.search(self.request.content)
        return told is not None and told[1] == b"true"

    def streams(self, response: httpx2.Response) -> bool:
        """Whether it was asked for a stream, and gets one."""
        kind = response.headers.get("content-type", "")  # some call it text/plain, or nothing
        return response.status_code < 400 and self._wants_stream and not re.search("json|html", kind)

    def stream(self, response: httpx2.Response, body: _Body | _AsyncBody) -> httpx2.Response:
        """An answer whose events are checked as they come."""
        return httpx2.Response(response.status_code, headers=_kept(response), stream=body, request=response.request)

    def events(self) -> Events:
        """What reads the events of its stream."""
        return Events(self.no_answer, self.broke_off) if self.is_chat else Verbatim(self.no_answer, self.broke_off)

    def is_to_repeat(self, response: httpx2.Response) -> bool:
        """Whether it was refused for an optional field; then it is to be sent again, without that.

        What it was answered without is remembered of the server. What was refused all the same shows nothing.
        """
        if response.status_code < 400 and self.refusals:
            self._knowledge.leave_out(self.refusals)
        if response.status_code not in (400, 422):
            return False
        refused = refused_field(response.content, _body(self.request).keys())
        if refused is not None:
            field, reason = refused
            self.refusals[field] = reason
            self.request = _without(self.request, [field])
        return refused is not None


def _body(request: httpx2.Request) -> dict[str, Any]:
    """The fields of a request; none of one that is no JSON object."""
    body = parsed(request.content)
    return body if isinstance(body, dict) else {}


def _without(request: httpx2.Request, fields: Collection[str]) -> httpx2.Request:
    """The same request without some of its fields."""
    body = _body(request)
    if not body.keys() & set(fields):
        return request
    kept = {name: value for name, value in body.items() if name not in fields}
    headers = [(name, value) for name, value in request.headers.multi_items() if name != "content-length"]
    content = json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()
    return httpx2.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)


class _NoAnswer(httpx2.RemoteProtocolError):
    """What came with a status of success, and is no answer."""


_OF_THE_TRANSFER = ("content-length", "content-encoding", "transfer-encoding")
"""Headers of the body as it was sent, not as it was read."""


def _broken_off(told: Any) -> Any:
    """Why a provider could not end its answer, if it could not and hands on the half of it."""
    choices = told.get("choices") if isinstance(told, Mapping) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and is_broken_off(ending(choice)):
            return choice.get("error") or "the provider broke its answer off"
    return None


_STREAM = re.compile(rb'"stream":\s*(true|false)')
"""Whether a request asks for a stream, told near its start; within its texts quotation marks have a backslash."""


def _kept(response: httpx2.Response) -> list[tuple[str, str]]:
    """The headers of an answer whose body was read."""
    return [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_TRANSFER]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies below it, down to the first that comes from outside of the HTTP libraries.

    What such a one was raised amidst may be an error that the caller is just handling.
    """
    while error is not None:
        yield error
        inside = type(error).__module__.partition(".")[0] in ("httpx2", "httpcore2", "aiohttp")
        error = (error.__cause__ or error.__context__) if inside else None  # httpcore hides causes with "from None"


class _Blocking(httpx2.BaseTransport):
    """Under `invoke`. Its client is made when it is first used."""

    def __init__(self, server: Server) -> None:
        self._client: httpx2.Client | None = None
        self._server, self._lock = server, threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(request, self._server)
        with self._lock:
            if self._client is None:
                self._client = _Client(limits=_LIMITS, verify=_trusted(), trust_env=not self._server.is_here)
                # not by __del__: of a model that is garbage, Python may find the sockets first, and warns of them
                self._close = weakref.finalize(self, self._client.close)
            client = self._client
        with exchange.step():
            while not exchange.streams(response := _send(client, exchange)):
                response.read()
                if not exchange.is_to_repeat(checked := exchange.checked(response)):
                    return checked
        exchange.is_to_repeat(response)
        return exchange.stream(response, _Body(response, exchange))

    def close(self) -> None:
        if self._client is not None:
            self._close()


def _send(client: httpx2.Client, exchange: _Exchange) -> httpx2.Response:
    """Send a request; once more where its server has refused it and may have closed the connection with that."""
    try:
        return client.send(exchange.request, stream=True)
    except httpx2.RequestError:
        if not exchange.refusals:
            raise
        return client.send(exchange.request, stream=True)


class _PerLoop(httpx2.AsyncBaseTransport):
    """Under `ainvoke`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Pool, httpx2.AsyncClient]] = (
            weakref.WeakKeyDictionary()
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop, exchange = asyncio.get_running_loop(), _Exchange(request, self._server)
        if loop not in self._pools:
            pool = _pool(self._server)
            self._pools[loop] = pool, await anext(pool)
        async with exchange.astep():
            while not exchange.streams(response := await _asend(self._pools[loop][1], exchange)):
                await response.aread()
                if not exchange.is_to_repeat(checked := exchange.checked(response)):
                    return checked
        exchange.is_to_repeat(response)
        return exchange.stream(response, _AsyncBody(response, exchange))


async def _asend(client: httpx2.AsyncClient, exchange: _Exchange) -> httpx2.Response:
    """`_send` under `ainvoke`."""
    try:
        return await client.send(exchange.request, stream=True)
    except (httpx2.RequestError, aiohttp.ClientError):
        if not exchange.refusals:
            raise
        return await client.send(exchange.request, stream=True)


async def _pool(server: Server) -> _Pool:
    """A generator, because an event loop that ends closes the generators that were started in it."""
    client = DefaultAioHttpClient(limits=_LIMITS, verify=_trusted(), trust_env=not server.is_here)
    try:
        yield client
    finally:
        await client.aclose()


def _trusted() -> ssl.SSLContext:
    """The certificates to trust, read once for all clients: it takes longer than many a call."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    try:
        return httpx2.create_ssl_context()  # reads these variables itself
    except OSError as error:
        raise ValueError(f"SSL_CERT_FILE={file!r} or SSL_CERT_DIR={folder!r} can't be read: {error}") from error


class _Body(httpx2.SyncByteStream):
    """The body of a stream, within the limit of its exchange."""

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self._response, self._exchange = response, exchange

    def __iter__(self) -> Iterator[bytes]:
        chunks, events = self._response.iter_bytes(), self._exchange.events()
        chunk: bytes | None = b""
        while chunk is not None:
            try:
                with self._exchange.step():
                    chunk = next(chunks, None)
            except httpx2.RequestError:
                if not events.are_whole:
                    raise
                chunk = None
            yield events.read(chunk)

    def close(self) -> None:
        self._response.close()


class _AsyncBody(httpx2.AsyncByteStream):
    """`_Body` under `ainvoke`."""

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self._response, self._exchange = response, exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, events = aiter(self._response.aiter_bytes()), self._exchange.events()
        chunk: bytes | None = b""
        while chunk is not None:
            try:
                async with self._exchange.astep():
                    chunk = await anext(chunks, None)
            except httpx2.RequestError:
                if not events.are_whole:
                    raise
                chunk = None
            yield events.read(chunk)

    async def aclose(self) -> None:
        await self._response.aclose()


_end: ContextVar[float] = ContextVar("icrl_http_end", default=math.inf)
"""When the exchange of a blocking step must be over, by `time.monotonic`."""


def _left(timeout: float | None) -> float | None:
    """The seconds that a read or a write may take.

    Raises:
        TimeoutError: the exchange's time is over.
    """
    left = _end.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError
    within = min(left, math.inf if timeout is None else timeout)
    return None if within == math.inf else within


class _Client(DefaultHttpxClient):
    """A client whose sockets know when an exchange must be over; a proxy's too."""

    def _init_transport(self, *args: Any, **options: Any) -> httpx2.BaseTransport:
        return _bounded(super()._init_transport(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx2.BaseTransport:
        return _bounded(super()._init_proxy_transport(*args, **options))


def _bounded(transport: Any) -> httpx2.BaseTransport:
    transport._pool._network_backend = _Backend(transport._pool._network_backend)
    return transport  # type: ignore[no-any-return]


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Socket(self._backend.connect_tcp(host, port, _left(timeout), local_address, socket_options))


class _Socket(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Socket(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
