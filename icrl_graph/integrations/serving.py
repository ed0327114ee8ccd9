"""Topologies behind OpenAI's protocol: `POST /v1/chat/completions` is a run, whose answer is its best.

    async with Endpoint({"writer": graph}).serving() as url:
        client = openai.AsyncOpenAI(base_url=url, api_key="none")

The settings of a run stand under `icrl`, its task data under `task_data` (both in the client's `extra_body`). What a
repeated request gets, and what a client that has gone costs, is said in `icrl_graph.integrations.kept_runs`; the key of
a request is its header `Idempotency-Key`, and that it is a repeat OpenAI's clients say by themselves.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import ip_address
from os import PathLike
from typing import Any, cast

from aiohttp import ClientConnectionResetError, web
from langgraph.pregel import Pregel

from icrl_graph.api import check_inputs
from icrl_graph.errors import ModelError, ThreadBusy, ThreadMismatch
from icrl_graph.execution.retry import describe
from icrl_graph.integrations.chat_completions import (
    Refused,
    check_fields,
    chunk,
    completion,
    last_chunks,
    line,
    optional_object,
    told_of,
    wants_usage,
)
from icrl_graph.integrations.kept_runs import EvaluatorFailed, KeptRuns, KeyReused, Run, Stopping, TooManyRuns
from icrl_graph.topologies.base import Graph, uncompiled
from icrl_graph.topologies.nodes.prepare import check_settings
from icrl_graph.topologies.settings import MAIN, SWITCH, RunSettings, resolve

logger = logging.getLogger(__name__)

RETRY_AFTER = 10
"""Seconds after which to ask a server again that is full, or stops."""
BODY_SECONDS = 60.0
"""For which a request may arrive."""
STATUS: Mapping[type[Exception], tuple[int, str | None]] = {
    **{TooManyRuns: (429, "too_many_runs"), Stopping: (503, "stopping"), KeyReused: (422, "key_reused")},
    **{ThreadMismatch: (422, "key_reused"), ThreadBusy: (409, "run_in_progress")},
    **{ModelError: (502, "model_error"), EvaluatorFailed: (502, "evaluator_error")},
    ValueError: (400, None),
}
"""The status of an error, and its name for programs; the first that fits counts."""
SERVED = "POST /v1/chat/completions, GET /v1/models"
"""All that there is."""
TOLD = web.RequestKey("told", dict[str, Any])
"""What is told of a request once it has ended."""


class Endpoint:
    """Topologies behind OpenAI's protocol.

    Args:
        graphs: by the name that a client gives as `model`; of a compiled one its `builder` is taken.
        token: what a client must give as its key; None lets everybody on this machine in.
        path: the SQLite file that runs are saved in, or the address of a PostgreSQL database, so that they outlive this
            process; None keeps them in memory.
        limits: of each request, such as `max_calls`; of these, the graph's own and the client's the lowest hold.
        max_runs: runs that are played at once; more are refused with a 429.
        max_body: bytes of a request.
        grace: seconds for which a run is known after its client has gone, or has got its answer.
        heartbeat: seconds between the signs of life in a stream.
        on_request: called with a record of each request once it has ended.

    Raises:
        ValueError: an argument is wrong.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph | Pregel[Any, Any, Any, Any]],
        *,
        token: str | None = None,
        path: str | PathLike[str] | None = None,
        limits: Mapping[str, Any] | None = None,
        max_runs: int = 64,
        max_body: int = 16 * 2**20,
        grace: float = 60.0,
        heartbeat: float = 15.0,
        on_request: Callable[[Mapping[str, Any]], None] = lambda record: None,
    ) -> None:
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        self._graphs = dict[str, tuple[Graph, RunSettings]]()
        for name, given in graphs.items():
            if (graph := uncompiled(given)) is None:
                raise ValueError(f"a topology is served, and {name!r} is none: got {given!r:.80}")
            own = graph.validate().settings_within(limits or {})
            check_settings(graph.parts, resolve(graph.parts.schema, own))
            self._graphs[name] = graph, own
        self._token, self._max_body, self._heartbeat, self._on_request = token, max_body, heartbeat, on_request
        self._runs = KeptRuns(path, max_runs, grace)

    def application(self) -> web.Application:
        """It for a server of your own, which must have `handler_cancellation=True`: else abandoned runs pay on."""

        async def runs_opened(app: web.Application) -> AsyncIterator[None]:
            async with self._runs.opened():
                yield

        app = web.Application(client_max_size=self._max_body, middlewares=[self._guard])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.cleanup_ctx.append(runs_opened)
        return app

    @asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve while the block lasts; gives the address for clients.

        Args:
            host: the address to listen at; one that other machines reach demands a token.
            port: 0 takes a free one.

        Raises:
            ValueError: other machines could ask without a token.
            OSError: the port is taken.
        """
        if self._token is None and not _is_loopback(host):
            raise ValueError(f"at {host} other machines could make paid calls: give a token (--token-file)")
        runner = web.AppRunner(self.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    async def drain(self) -> None:
        """Begin no further run, and return once none is played.

        Where runs are saved, each ends after the calls in flight, and its client is told to ask again: its repeat goes
        on, at the next server of the same path. Else each is played to its end.
        """
        await self._runs.drain()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        start, told = time.monotonic(), dict[str, Any](method=request.method, path=request.path, status=200)
        request[TOLD] = told
        try:
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                raise Refused(401, "wrong or missing token; give it as the client's API key", "invalid_api_key")
            if self._token is None and not _is_loopback(request.url.host or ""):  # a page in a browser, by its own DNS
                raise Refused(403, f"without a token this machine alone is answered, not {request.host}")
            if isinstance(request.match_info.http_exception, web.HTTPNotFound | web.HTTPMethodNotAllowed):
                told_path = f"{request.method} {request.path}"
                raise Refused(request.match_info.http_exception.status, f"no {told_path:.80} here; there is {SERVED}")
            return cast(web.StreamResponse, await handler(request))
        except (asyncio.CancelledError, ClientConnectionResetError):
            told |= {"status": 499, "error": "the client has gone"}
            raise
        except Exception as error:
            refused = _refusal(error)
            told |= {"status": refused.status, "error": refused.logged}
            return _response(refused)
        finally:
            self._on_request({**told, "seconds": round(time.monotonic() - start, 3)})

    async def _models(self, request: web.Request) -> web.Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "icrl_graph"} for name in self._graphs]
        return web.json_response({"object": "list", "data": models})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        request[TOLD]["model"] = body.get("model")
        run = self._asked(request, body)
        request[TOLD]["repeated"] = run.clients > 0 or run.forgetting is not None
        with self._runs.waiting(run):
            response = await (self._stream if body.get("stream") else self._answer)(request, run, body)
            await response.write_eof()
        self._runs.delivered(run)
        request[TOLD] |= {"repeated": request[TOLD]["repeated"] or run.was_saved, **told_of(run.result)}
        return response

    def _asked(self, request: web.Request, body: Mapping[str, Any]) -> Run:
        """The run that a request is for.

        Raises:
            Refused: a field is wrong, or is not honoured.
            ValueError: a setting, the messages or the task data are wrong.
        """
        name = body.get("model")
        if not isinstance(name, str) or name not in self._graphs:
            raise Refused(404, f"no model {name!r:.80}; choose one of {', '.join(self._graphs)}", "model_not_found")
        check_fields(body)
        graph, own = self._graphs[name]
        wished = {"seed": body.get("seed"), **optional_object(body, "icrl")}
        if taken := [name for name in (MAIN, SWITCH) if wished.get(name) is not None]:
            raise ValueError(f"the setting {' and '.join(taken)} is not for clients: whoever serves the model pays it")
        known = [name for name in graph.parts.schema.model_fields if name not in (MAIN, SWITCH)]
        if unknown := [name for name in wished if name not in (*known, MAIN, SWITCH)]:
            raise ValueError(f"unknown setting {', '.join(map(repr, unknown))}; choose among {', '.join(known)}")
        settings = graph.settings_within(wished, own)
        check_settings(graph.parts, resolve(graph.parts.schema, settings))
        inputs = check_inputs(body["messages"], optional_object(body, "task_data"))
        key, repeats = request.headers.get("Idempotency-Key"), request.headers.get("X-Stainless-Retry-Count", "0")
        return self._runs.ask(graph, inputs, settings.model_dump(), name, key, is_repeat=repeats != "0")

    async def _answer(self, request: web.Request, run: Run, body: Mapping[str, Any]) -> web.StreamResponse:
        async with aclosing(self._runs.follow(run, self._heartbeat)) as events:
            async for _ in events:
                pass
        response = web.json_response(completion(run.result, **_head(run, body)))
        await response.prepare(request)
        return response

    async def _stream(self, request: web.Request, run: Run, body: Mapping[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)

        async def send(told: Any) -> None:
            await response.write(b"data: " + json.dumps(told).encode() + b"\n\n")

        head = _head(run, body)
        try:
            await send(chunk(role="assistant", content="", **head))
            async with aclosing(self._runs.follow(run, self._heartbeat)) as events:
                async for event in events:
                    if event is None:
                        await response.write(b": still running\n\n")
                    else:
                        await send(chunk(reasoning_content=line(event), **head))
            for each in last_chunks(run.result, wants_usage(body), **head):
                await send(each)
            await response.write(b"data: [DONE]\n\n")
        except ClientConnectionResetError:
            raise
        except Exception as error:
            refused = _refusal(error)
            refused.sent = response
            await send({"error": refused.told})
            raise refused from error
        return response


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":  # what a page in a browser may not send to another site unasked
        raise Refused(415, f"a request is JSON, with Content-Type: application/json, got {request.content_type}")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = json.loads(await request.read())
    except TimeoutError:
        raise Refused(408, f"the request has not arrived within {BODY_SECONDS:.0f} s") from None
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the request is no JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise Refused(400, "a request is an object with a list of messages", param="messages")
    return body


def _response(refused: Refused) -> web.StreamResponse:
    headers = {"Retry-After": str(RETRY_AFTER)} if refused.status in (429, 503) else {}
    if refused.told["code"] == STATUS[EvaluatorFailed][1]:  # the model works, so that each repeat would pay for a run
        headers["X-Should-Retry"] = "false"  # what OpenAI's clients ask for
    return refused.sent or web.json_response({"error": refused.told}, status=refused.status, headers=headers)


def _refusal(error: Exception) -> Refused:
    """An error as what the client is told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, web.HTTPException):
        return Refused(error.status, error.reason)
    status, code = next((told for kind, told in STATUS.items() if isinstance(error, kind)), (500, None))
    if status == 500:
        logger.error("a request has failed: %s", describe(error), exc_info=error)
    refused = Refused(status, str(error) or describe(error), code)
    if isinstance(error, EvaluatorFailed):
        refused.logged = error.logged
    return refused


def _head(run: Run, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"chatcmpl-{run.thread}", "created": int(run.created), "model": body["model"]}


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
