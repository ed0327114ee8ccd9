"""A chat completions server, for tests, demos and rehearsals."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from random import Random
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakSet

from aiohttp import web
from langchain_core.messages import AIMessage, convert_to_openai_messages

from icrl_graph.errors import UnknownTask
from icrl_graph.execution.signatures import accepted_names
from icrl_graph.models.function import REPLY_ARGUMENTS
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import Message
from icrl_graph.testing import wire
from icrl_graph.testing.dialects import DIALECTS, Dialect

Fault = Literal[
    "401", "404", "429", "500", "reset", "hang", "slow", "malformed", "truncated", "aborted", "empty", "refused",
    "filtered",
]  # fmt: skip
Reply = str | Mapping[str, float] | AIMessage
"""A text, texts of one token each with their probabilities, or the message of a chat model, with what it used."""
SLOW = 0.5
"""Seconds by which a slow answer is delayed."""
REFUSAL = "I can't help with that."
JSON = "application/json"


class OpenAIServer:
    """A chat completions server on this machine, for tests and demos.

    It runs in a separate thread while the `with` block lasts:

        with OpenAIServer(lambda messages: "42") as server:
            model = chat_model("openai:any", base_url=server.base_url)

    Args:
        reply: makes the answer: a function of those of `messages`, `rng` and `temperature` that it names. `rng` is
            seeded by the request's `seed`; `max_tokens` is the request's limit. It gives a text; or texts with their
            probabilities, such as `{"YES": 0.8, "NO": 0.2}`, of which one is drawn, each a single token; or the message
            of a chat model, whose calls of tools, usage and reason to finish are told then. A shipped learner:
            `icrl_graph.models.learners.LEARNERS["hidden-color"]`. One that waits should be async: a sync one holds up
            all other requests meanwhile. What a server that it asks refuses is refused in the same words.
        latency: seconds before each answer.
        faults: injected faults, by the number of the call, from 1: "429" (with Retry-After), "500", "401", "reset"
            (the connection breaks), "hang" (no answer until the server ends), "slow" (half a second later),
            "malformed" (broken JSON), "truncated" (the body, or the stream, ends half way), "aborted" (half of the
            text, with the dialect's reason to finish), "empty" (no text), "refused" (a refusal instead of a text),
            "filtered" (by a content filter: an empty answer, or a refusal of the request), "404" (an unknown model).
        retry_after: seconds that a "429" asks to wait.
        cache_block: tokens per block of a simulated prefix cache; its hits are reported as `cached_tokens`. 0: none.
        context: tokens of a prompt and its answer; what does not fit is refused or cut, as the dialect has it. None:
            no limit.
        port: 0 takes a free one.
        model: its name in the list of models (`/v1/models`); it answers by any other name as well.
        dialect: whose words, fields and habits it has: a name of `icrl_graph.testing.DIALECTS`, such as "llama.cpp" or
            "mistral", or a `Dialect`, as of `dataclasses.replace(DIALECTS["vllm"], usage="never")`. What a reply holds
            within `<think>` tags at its beginning goes where the dialect has a model's thoughts.

    Attributes:
        prompts: the prompts that it got, in order.
        reported: what each answer took, with the model's name; what a client is told of it depends on the dialect.
        counts: calls, connections, answered, each fault that was injected, and each reason to refuse ("overflow",
            "room", "roles", "field", "form").

    Raises:
        ValueError: there is no dialect of that name, or no such port.
    """

    def __init__(
        self,
        reply: Callable[..., Reply | Awaitable[Reply]],
        *,
        latency: float = 0.0,
        faults: Mapping[int, Fault] | None = None,
        retry_after: int = 0,
        cache_block: int = 0,
        context: int | None = None,
        port: int = 0,
        model: str = "local",
        dialect: str | Dialect = "openai",
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, got {port}")
        self._dialect = dialect if isinstance(dialect, Dialect) else pick("dialect", dialect, DIALECTS)
        self._reply, self._names = reply, accepted_names(reply, (*REPLY_ARGUMENTS, "max_tokens"), "reply function")
        self._model = model
        self._latency, self._faults, self._cache_block, self._port = latency, faults or {}, cache_block, port
        self._context, self._retry_after = context, retry_after
        self._cache: set[int] = set()
        self._transports: WeakSet[asyncio.Transport] = WeakSet()
        self.prompts: list[list[Message]] = []
        self.reported: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        listening, started = socket.create_server(("127.0.0.1", self._port), backlog=4096), threading.Event()
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening, started)), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def base_url(self) -> str:
        """Its address for clients; ends in /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def _models(self, request: web.Request) -> web.Response:
        models = [{"id": self._model, "object": "model", "created": 0, "owned_by": "icrl_graph"}]
        return web.json_response({"object": "list", "data": models})

    async def _serve(self, listening: socket.socket, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening, backlog=4096).start()
        started.set()
        await self._stop.wait()
        self._loop.remove_reader(listening)  # asyncio leaves a connection open that it accepts while it closes a server
        for _ in range(3):  # turns that it takes to hand one on that it has accepted
            await asyncio.sleep(0)
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if (transport := request.transport) is not None and transport not in self._transports:
            self._transports.add(transport)
            self.counts["connections"] += 1
        try:
            body = json.loads(await request.read())
            body["messages"][0]["role"]
        except (ValueError, LookupError, TypeError) as error:
            invalid = {"message": f"no request for a chat completion: {error!r}", "type": "invalid_request_error"}
            return web.json_response({"error": invalid}, status=400)
        self.counts["calls"] += 1
        fault = self._faults.get(self.counts["calls"])
        if fault == "aborted" and self._dialect.aborted is None:
            fault = "truncated"
        self.prompts.append(body["messages"])
        for objection, facts in self._objections(body):
            if objection in self._dialect.refusals:
                self.counts[objection] += 1
                return self._refuse(body, objection, **facts)
        messages = body["messages"] if self._context is None else wire.cut(body["messages"], self._context)
        cached = self._cached(messages)  # as it arrives: what is still being answered is not there yet
        await asyncio.sleep(self._latency + SLOW * (fault == "slow"))
        if fault is not None:
            self.counts[fault] += 1
        if fault is not None and fault in self._dialect.refusals:
            return self._refuse(body, fault)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await self._stop.wait()
            return web.Response()
        offered = {
            "messages": messages,
            "rng": Random(body.get("seed")),
            "temperature": body.get("temperature"),
            "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        }
        try:
            silent = fault in ("empty", "refused", "filtered")
            made = "" if silent else self._reply(**{name: offered[name] for name in self._names})
            said = await made if inspect.isawaitable(made) else made
        except UnknownTask as refusal:
            problem = {"error": {"message": str(refusal), "type": "invalid_request_error", "code": "unknown_task"}}
            return web.json_response(problem, status=400)
        except Exception as error:
            answer = getattr(error, "response", None)  # of a client that has asked another server
            if answer is None:
                raise
            return web.Response(body=answer.content, status=answer.status_code, content_type=JSON)
        text = said if isinstance(said, str) else _drawn(said, offered["rng"])
        self.counts["answered"] += 1
        completion = self._completion(body, messages, text, fault, cached)
        if isinstance(said, AIMessage):
            _tell(completion, said)
        if body.get("logprobs") and not isinstance(said, AIMessage):
            completion["choices"][0]["logprobs"] = wire.logprobs(text, said, body.get("top_logprobs") or 0)
        self.reported.append({"model": completion.get("model"), **completion["usage"]})
        if body.get("stream"):
            pieces = wire.events(completion, self._dialect, (body.get("stream_options") or {}).get("include_usage"))
            return await _send(request, "text/event-stream", pieces, fault)
        if self._dialect.usage == "never":
            del completion["usage"]
        return await _send(request, JSON, [json.dumps(completion).encode()], fault)

    def _objections(self, body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is wrong with a request in some dialect, with the facts."""
        if unwanted := wire.unwanted(body, self._dialect):
            yield "field", {"field": ".".join(unwanted[0]["loc"][1:]), "details": unwanted}
        if (body.get("response_format") or {}).get("type") == "json_schema":
            yield "form", {}
        if misplaced := wire.misplaced(body["messages"], self._dialect.order):
            yield "roles", misplaced
        if self._context is not None:
            limit, read, asked = self._context, wire.tokens(wire.text_of(body["messages"])), self._limit(body) or 0
            facts = {"limit": limit, "read": read, "asked": asked, "total": read + asked, "room": limit - asked}
            if read >= limit:  # an answer has a token at least
                yield "overflow", facts
            if read + asked > limit:
                yield "room", facts

    def _refuse(self, body: Mapping[str, Any], reason: str, **facts: Any) -> web.Response:
        refusal = self._dialect.refusals[reason]
        told = refusal.told(model=body.get("model", "local"), **facts)
        if told is None:
            return web.Response(status=refusal.status)
        if refusal.status < 400 and body.get("stream"):
            return web.Response(text=f"data: {json.dumps(told)}\n\n", content_type="text/event-stream")
        headers = {"Retry-After": str(self._retry_after)} if reason == "429" else {}
        return web.json_response(told, status=refusal.status, headers=headers)

    def _limit(self, body: Mapping[str, Any]) -> int | None:
        """How many tokens a request lets an answer have, in the fields that the dialect reads."""
        return next((body[name] for name in self._dialect.limits if body.get(name)), None)

    def _ended(self, body: Mapping[str, Any], text: str, read: int, fault: Fault | None) -> tuple[str, str | None]:
        """As much of an answer as there is room for, and the reason to finish."""
        if fault == "aborted":
            return text[: len(text) // 2], self._dialect.aborted
        if fault == "filtered":
            return text, "content_filter"
        asked = self._limit(body)
        ends = [] if asked is None else [(asked, "length")]
        if self._context is not None and self._dialect.full is not None:
            ends.append((max(1, self._context - read), self._dialect.full))
        end, reason = min(ends, default=(wire.tokens(text), "stop"))
        return (text[: 4 * end], reason) if wire.tokens(text) > end else (text, "stop")

    def _completion(
        self, body: Mapping[str, Any], messages: Sequence[Message], text: str, fault: Fault | None, cached: int
    ) -> dict[str, Any]:
        read = wire.tokens(wire.text_of(messages))
        self._cache.update(self._prefixes(messages))
        text, finish = self._ended(body, text, read, fault)
        written, (message, thought) = wire.tokens(text), wire.message_of(text, self._dialect.reasoning)
        if fault == "refused":
            message |= {"content": None, "refusal": REFUSAL}
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if self._dialect.reasoning == "hidden":
            usage["completion_tokens_details"] = {"reasoning_tokens": wire.tokens(thought)}
        completion = {
            "id": f"chatcmpl-{self.counts['calls']}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "local"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": usage,
            **self._dialect.adds,
        }
        return {name: value for name, value in completion.items() if value is not None}

    def _cached(self, messages: Sequence[Message]) -> int:
        """Tokens of the longest prefix that was answered before, in whole blocks."""
        return self._cache_block * sum(1 for _ in takewhile(self._cache.__contains__, self._prefixes(messages)))

    def _prefixes(self, messages: Sequence[Message]) -> list[int]:
        """Hashes of a prompt's prefixes of whole blocks; four characters are a token."""
        step, prompt = 4 * self._cache_block, wire.text_of(messages) if self._cache_block else ""
        return [hash(prompt[:end]) for end in range(step, len(prompt) + 1, step)] if step else []


def _drawn(said: Mapping[str, float] | AIMessage, rng: Random) -> str:
    return str(said.text) if isinstance(said, AIMessage) else rng.choices(list(said), list(said.values()))[0]


def _tell(completion: dict[str, Any], said: AIMessage) -> None:
    """Put into a completion what the server of a model has told of it."""
    if used := said.usage_metadata:
        told = {"prompt_tokens": used["input_tokens"], "completion_tokens": used["output_tokens"]}
        completion["usage"] |= {**told, "total_tokens": used["total_tokens"]}
    (choice,) = completion["choices"]
    if said.tool_calls:
        calls = convert_to_openai_messages(said)["tool_calls"]
        choice["message"] |= {"content": choice["message"]["content"] or None, "tool_calls": calls}
        choice["finish_reason"] = "tool_calls"
        if not used:
            written = wire.tokens("".join(str(call["function"]) for call in calls))
            completion["usage"]["completion_tokens"] += written
            completion["usage"]["total_tokens"] += written
    if said.response_metadata.get("finish_reason") == "length":
        choice["finish_reason"] = "length"


async def _send(request: web.Request, kind: str, pieces: Sequence[bytes], fault: Fault | None) -> web.StreamResponse:
    """Send a body in pieces; one that is malformed or truncated ends within its middle piece."""
    headers = {"Content-Type": kind}
    if len(pieces) == 1 and fault != "malformed":
        headers["Content-Length"] = str(len(pieces[0]))
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    half = len(pieces) // 2
    broken = [*pieces[:half], pieces[half][: len(pieces[half]) // 2] + b"\n\n"]
    for piece in broken if fault in ("malformed", "truncated") else pieces:
        await response.write(piece)
    if fault == "truncated":
        assert request.transport is not None
        request.transport.close()
    return response
