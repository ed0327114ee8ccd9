"""A server that sends bytes as it is told to, valid HTTP or not; for what no HTTP library would send."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "any",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
START = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"  # or it is used again
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
RESET = b"reset"
"""Sent alone: the connection is reset instead."""


def answer(body: bytes, *headers: bytes, status: int = 200) -> bytes:
    """An answer with this body."""
    lines = (*headers, b"Content-Length: %d" % len(body))
    return START.replace(b"200 OK", b"%d any" % status) + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def trickle(start: bytes, piece: bytes, end: bytes) -> Callable[[bytes], Iterator[bytes]]:
    """An answer that comes after 15 seconds of pieces, one every 50 milliseconds."""

    def pieces(request: bytes) -> Iterator[bytes]:
        yield start
        for _ in range(300):
            threading.Event().wait(0.05)
            yield piece
        yield end

    return pieces


class RawServer:
    """Answers each request with the same bytes, then closes the connection.

    Args:
        sends: the bytes, or what gives them one after another for a request.
        on_request: called at each request.

    Attributes:
        calls: the requests so far.
    """

    def __init__(self, sends: bytes | Callable[[bytes], Iterable[bytes]], on_request: Callable[[], None] | None = None):
        self._sends, self._on_request, self.calls = sends, on_request, 0

    def __enter__(self) -> RawServer:
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = _read_request(connection)
                self.calls += 1
                if self._on_request is not None:
                    self._on_request()
                if self._sends == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                for piece in [self._sends] if isinstance(self._sends, bytes) else self._sends(request):
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
            except OSError:  # the client has gone
                return


@contextmanager
def refusing() -> Iterator[str]:
    """An address at which nobody listens, and nobody else will meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def _read_request(connection: socket.socket) -> bytes:
    """The body of a request, or the first bytes of what is no HTTP."""
    got = _received(connection)
    while b"\r\n\r\n" not in got and got[:4] == b"POST":
        got += _received(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while lengths and len(body) < lengths[0]:
        body += _received(connection)
    return got if not lengths else body


def _received(connection: socket.socket) -> bytes:
    """What has come.

    Raises:
        ConnectionError: the client has gone, half way through its request or before.
    """
    if not (piece := connection.recv(65536)):
        raise ConnectionError
    return piece
