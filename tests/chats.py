"""Chat completions as real servers send them: with or without usage, whole or streamed, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.raw_http import RawServer, answer

USAGE: Any = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
Answers = Callable[[dict[str, Any]], bytes]
"""Makes the bytes of an answer, its header included, of the body of a request."""


class ChatServer(RawServer):
    """A server that answers by a function.

    Attributes:
        bodies: those of the requests.
    """

    def __init__(self, answers: Answers) -> None:
        super().__init__(self._send)
        self._answers = answers
        self.bodies: list[dict[str, Any]] = []

    def __enter__(self) -> ChatServer:
        super().__enter__()
        return self

    @property
    def base_url(self) -> str:
        return f"http://{self.address}/v1"

    def _send(self, request: bytes) -> list[bytes]:
        self.bodies.append(json.loads(request))
        return [self._answers(self.bodies[-1])]


def says(text: str = "word " * 40, finish: str = "stop", **fields: Any) -> Answers:
    """Answers with a text, whole or streamed, and with these fields, such as `usage`, which a stream leaves out."""

    def answers(body: dict[str, Any]) -> bytes:
        return streamed(body, text) if body.get("stream") else whole(body, text, finish, **fields)

    return answers


def whole(body: dict[str, Any], text: str, finish: str = "stop", **fields: Any) -> bytes:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return answer(json.dumps({"id": "1", "model": body["model"], "choices": [choice], **fields}).encode())


def streamed(body: dict[str, Any], text: str, usages: Sequence[Any] = (), last: Any = None, end: bool = True) -> bytes:
    """A completion in pieces, each with its usage, if any, and the usage of all of it in an event of its own."""
    half = len(text) // 2
    pieces = [text[:half], text[half:], ""]
    events = [
        {
            "id": "1",
            "model": body["model"],
            "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None if piece else "stop"}],
            **({"usage": usages[at]} if usages else {}),
        }
        for at, piece in enumerate(pieces)
    ]
    if last is not None:
        events.append({"id": "1", "model": body["model"], "choices": [], "usage": last})
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in (events if end else events[:1])]
    sent = answer(b"".join([*lines, b"data: [DONE]\n\n"])).replace(b"application/json", b"text/event-stream")
    return sent if end else sent.removesuffix(b"data: [DONE]\n\n")


def refused(error: Any, status: int = 400) -> bytes:
    """A refusal, in a server's own form."""
    return answer(json.dumps(error).encode(), status=status)
