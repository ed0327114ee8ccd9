"""Prompts for servers that insist on the order of roles: a system's message first, then user and assistant in turn.

The prompts of this package are in that order, but a task, examples or a layout of one's own need not be, and whether a
server minds is up to the chat template of its model. So a request that was refused for its roles is made again with
neighbours of one role joined, then also with the system's messages as the user's, and what was taken is kept to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2

from icrl_graph.execution.roles import is_about_roles
from icrl_graph.state.episode import Message


class _Forms:
    """In which form a server takes prompts: as they are, in turns, or in turns without a system's message."""

    def __init__(self) -> None:
        self._least = 0

    def of(self, request: httpx2.Request) -> Iterator[tuple[int, httpx2.Request]]:
        """A request in the form that was taken before, then in the others that change it."""
        sent = None
        for form in range(self._least, 3):
            body = request.content if form == 0 else _arranged(request.content, with_system=form == 1)
            if body != sent:
                yield form, request if form == 0 else _with_body(request, body)
            sent = body

    def settles(self, form: int, response: httpx2.Response) -> bool:
        """Whether this is the answer to a request, in whatever form; one that was taken is kept to."""
        if response.status_code < 400:
            self._least = max(self._least, form)
            return True
        return not (response.is_stream_consumed and is_about_roles(response.text))


class InTurns(httpx2.BaseTransport):
    """A transport for servers that may insist on the order of roles."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._transport, self._forms = transport, _Forms()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, as often as its roles are refused and another form is left."""
        for form, sent in self._forms.of(request):
            response = self._transport.handle_request(sent)
            if self._forms.settles(form, response):
                break
        return response

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


class AsyncInTurns(httpx2.AsyncBaseTransport):
    """`InTurns` under `ainvoke`."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport, self._forms = transport, _Forms()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """`InTurns.handle_request`, in an event loop."""
        for form, sent in self._forms.of(request):
            response = await self._transport.handle_async_request(sent)
            if self._forms.settles(form, response):
                break
        return response

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


def _arranged(body: bytes, with_system: bool) -> bytes:
    try:
        request = json.loads(body)
        return json.dumps({**request, "messages": in_turns(request["messages"], with_system)}).encode()
    except (ValueError, LookupError, TypeError):  # no chat
        return body


def _with_body(request: httpx2.Request, body: bytes) -> httpx2.Request:
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() != "content-length"]
    return httpx2.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


def in_turns(messages: Sequence[Message], with_system: bool = True) -> list[Message]:
    """A prompt whose neighbours have different roles, and whose system's message is the first, if there is one.

    Args:
        messages: the prompt.
        with_system: whether there may be one; else it opens the user's.
    """
    leading = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    arranged: list[Message] = []
    for at, message in enumerate(messages):
        if message["role"] == "system" and not (with_system and at < leading):
            message = {**message, "role": "user"}
        if arranged and _is_plain(message) and _is_plain(arranged[-1]) and arranged[-1]["role"] == message["role"]:
            arranged[-1] = {**message, "content": _joined(arranged[-1]["content"], message["content"])}
        else:
            arranged.append(message)
    return arranged


def _is_plain(message: Message) -> bool:
    """Whether a message is a role and a content, and calls no tool."""
    return message.keys() == {"role", "content"} and message["role"] in ("system", "user", "assistant")


def _joined(before: Any, after: Any) -> Any:
    if isinstance(before, str) and isinstance(after, str):
        return f"{before}\n\n{after}"
    return [*_parts(before), *_parts(after)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
