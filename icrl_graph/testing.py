"""Fakes for tests and demos, without a key or a network: a scripted chat model, and an OpenAI-compatible server.

The package's tests use these, and yours can. Both run functions of the prompt, so a test can define how a model replies
to what it was really shown, not only list its replies.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import Field

from icrl_graph.errors import UnknownTask
from icrl_graph.execution.signatures import accepted_names
from icrl_graph.models.function import REPLY_ARGUMENTS, FunctionModel
from icrl_graph.state.episode import Message

Replies = Callable[..., Any] | Sequence[str | AIMessage | Exception]


class ScriptedModel(FunctionModel):
    """A chat model with scripted replies, which records its prompts.

    Args:
        replies: a function, as for `FunctionModel`, or the replies, call after call; an exception among them is raised.
        fields: such as `usage`.

    Attributes:
        prompts: the prompts that it got, as dictionaries in OpenAI's format.
        usage: tokens to report for each call, such as `{"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}`.
    """

    prompts: list[list[Message]] = Field(default_factory=list)
    usage: UsageMetadata | None = None

    def __init__(self, replies: Replies, **fields: Any) -> None:
        super().__init__(reply=replies if callable(replies) else _queue(replies), name="scripted", **fields)

    def _answer(self, offered: Mapping[str, Any]) -> str | AIMessage:
        self.prompts.append(offered["messages"])
        answer: Any = super()._answer(offered)
        if isinstance(answer, Exception):
            raise answer
        if self.usage is not None:
            answer = AIMessage(answer) if isinstance(answer, str) else answer
            answer = answer.model_copy(update={"usage_metadata": self.usage})
        return answer  # type: ignore[no-any-return]


def _queue(replies: Sequence[Any]) -> Callable[[], Any]:
    waiting, lock = iter(replies), threading.Lock()

    def next_reply() -> Any:
        with lock:
            try:
                return next(waiting)
            except StopIteration:
                return RuntimeError(f"the scripted model has given all of its {len(replies)} replies")

    return next_reply


Fault = Literal["429", "500", "401", "reset", "hang", "slow", "malformed", "truncated", "empty", "refused", "filtered"]
SLOW = 0.5
"""Seconds by which a slow answer is delayed."""
REFUSAL = "I can't help with that."


class OpenAIServer:
    """A chat completions server on this machine, for tests and demos.

    It runs in a separate thread while the `with` block lasts:

        with OpenAIServer(lambda messages: "42") as server:
            model = chat_model("openai:any", base_url=server.base_url)

    Args:
        reply: makes the answer: a function of those of `messages`, `rng` and `temperature` that it names. `rng` is
            seeded by the request's `seed`. A shipped learner: `icrl_graph.models.learners.LEARNERS["hidden-color"]`.
        latency: seconds before each answer.
        faults: injected faults, by the number of the call, from 1: "429" (with Retry-After), "500", "401", "reset"
            (the connection breaks), "hang" (no answer until the server ends), "slow" (half a second later),
            "malformed" (broken JSON), "truncated" (the body, or the stream, ends half way), "empty" (no text),
            "refused" (a refusal instead of a text), "filtered" (a content filter's empty answer).
        retry_after: seconds that a "429" asks to wait.
        cache_block: tokens per block of a simulated prefix cache; its hits are reported as `cached_tokens`. 0: none.
        context: tokens that a prompt may have; a longer one is refused as OpenAI does. None: no limit.
        port: 0 takes a free one.

    Attributes:
        prompts: the prompts that it got, in order.
        reported: the usage that it reported with each answer, with the model's name.
        counts: calls, connections, answered, and each fault that was injected.
    """

    def __init__(
        self,
        reply: Callable[..., str],
        *,
        latency: float = 0.0,
        faults: Mapping[int, Fault] | None = None,
        retry_after: int = 0,
        cache_block: int = 0,
        context: int | None = None,
        port: int = 0,
    ) -> None:
        self._reply, self._names = reply, accepted_names(reply, REPLY_ARGUMENTS, "reply function")
        self._latency, self._faults, self._cache_block, self._port = latency, faults or {}, cache_block, port
        self._context, self._retry_after = context, retry_after
        self._cache: set[int] = set()
        self._transports: set[int] = set()
        self.prompts: list[list[Message]] = []
        self.reported: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()
        started.wait()
        if self._failure is not None:
            raise self._failure
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

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port, backlog=4096)
            await site.start()
            self._port = runner.addresses[0][1]
        except OSError as error:
            self._failure = error
            self._stop.set()
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if id(request.transport) not in self._transports:
            self._transports.add(id(request.transport))
            self.counts["connections"] += 1
        body = json.loads(await request.read())
        self.counts["calls"] += 1
        fault = self._faults.get(self.counts["calls"])
        self.prompts.append(body["messages"])
        if self._context is not None and (read := _tokens(_text(body["messages"]))) > self._context:
            self.counts["overflow"] += 1
            message = f"This model's maximum context length is {self._context} tokens, the messages have {read}."
            too_long = {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}
            return web.json_response({"error": too_long}, status=400)
        await asyncio.sleep(self._latency + SLOW * (fault == "slow"))
        if fault is not None:
            self.counts[fault] += 1
        if fault in ("429", "500", "401"):
            headers = {"Retry-After": str(self._retry_after)} if fault == "429" else {}
            problem = {"error": {"message": f"injected fault {fault}", "type": "fault", "code": fault}}
            return web.json_response(problem, status=int(fault), headers=headers)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await self._stop.wait()
            return web.Response()
        offered = {
            "messages": body["messages"],
            "rng": Random(body.get("seed")),
            "temperature": body.get("temperature"),
        }
        try:
            silent = fault in ("empty", "refused", "filtered")
            text = "" if silent else self._reply(**{name: offered[name] for name in self._names})
        except UnknownTask as refusal:
            problem = {"error": {"message": str(refusal), "type": "invalid_request_error", "code": "unknown_task"}}
            return web.json_response(problem, status=400)
        self.counts["answered"] += 1
        completion = self._completion(body, text, fault)
        self.reported.append({"model": completion["model"], **completion["usage"]})
        if body.get("stream"):
            return await _send(request, "text/event-stream", _events(completion), fault)
        return await _send(request, "application/json", [json.dumps(completion).encode()], fault)

    def _completion(self, body: Mapping[str, Any], text: str, fault: Fault | None) -> dict[str, Any]:
        prompt = _text(body["messages"])
        read, written = _tokens(prompt), _tokens(text)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if fault == "refused":
            message |= {"content": None, "refusal": REFUSAL}
        finish = "content_filter" if fault == "filtered" else "stop"
        return {
            "id": f"chatcmpl-{self.counts['calls']}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "local"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": self._cached(prompt)},
            },
        }

    def _cached(self, prompt: str) -> int:
        """Tokens of the longest prefix that was sent before, in whole blocks; four characters are a token."""
        step = 4 * self._cache_block
        if not step:
            return 0
        prefixes = [hash(prompt[:end]) for end in range(step, len(prompt) + 1, step)]
        hits = next((i for i, prefix in enumerate(prefixes) if prefix not in self._cache), len(prefixes))
        self._cache.update(prefixes)
        return hits * self._cache_block


def _text(messages: Sequence[Message]) -> str:
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def _tokens(text: str) -> int:
    """The number of tokens of a text: one per four characters."""
    return -(-len(text) // 4)


def _events(completion: Mapping[str, Any]) -> list[bytes]:
    """A completion as the events of a stream."""
    frame = {**completion, "object": "chat.completion.chunk"}
    usage, (choice,) = frame.pop("usage"), frame.pop("choices")
    text = choice["message"]["content"] or ""
    deltas = [{**choice["message"], "content": text[i : i + 16]} for i in range(0, len(text), 16)]
    frames = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    frames.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    frames.append({**frame, "choices": [], "usage": usage})
    return [b"data: " + data + b"\n\n" for data in (*(json.dumps(each).encode() for each in frames), b"[DONE]")]


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
