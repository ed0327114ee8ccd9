"""The events of a stream, each checked once it is whole, and handed on as the clients can read it.

An event is `data:` on one or more lines, up to an empty one. What else there may be by the standard (a byte order mark,
comments, events without data that keep a connection alive) OpenAI's client stumbles over, and so it is left out:
openai/openai-python/issues/2722, issues/3833, pull/3819. A stream ends with `[DONE]`, or with the reason why the answer
does: some servers send the one alone, some the other (jakobdylanc/llmcord/issues/84,
perplexityai/api-discussion/issues/209). One that has neither was cut off, though the connection was closed in good
order (earendil-works/pi/issues/8460, vercel/ai/issues/19165).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping
from typing import Any

from icrl_graph.models.completions import closing, ending, is_chunk, mended_chunk
from icrl_graph.models.errors import as_event, error_in, parsed

_MOST = 100_000
"""Bytes that are kept of what has no event in it, to say what it is."""


class Events:
    """The events of a chat completion.

    Args:
        no_answer: makes the error of what is no piece of an answer.
        broke_off: makes the error of a stream without an end.
    """

    def __init__(self, no_answer: Callable[[str], Exception], broke_off: Callable[[], Exception]) -> None:
        self._no_answer, self._broke_off = no_answer, broke_off
        self._start, self._line, self._data = b"", b"", list[bytes]()
        self._are_any = self._is_over = False
        self._last: Mapping[str, Any] | None = None

    @property
    def are_whole(self) -> bool:
        """Whether the answer has ended, though the connection may stay open (diegosouzapw/OmniRoute/issues/6777)."""
        return self._is_over or self._last is not None

    def read(self, piece: bytes | None) -> bytes:
        """The events that end in the next bytes; None at the end of all.

        Raises:
            Exception: an event is no piece of a chat completion, there was none, or the stream has no end.
        """
        if not self._are_any:
            self._start = (self._start + (piece or b""))[:_MOST]
        events = b"".join(map(self._read_line, self._lines(piece)))
        return events if piece is not None else events + self._end()

    def _lines(self, piece: bytes | None) -> list[bytes]:
        """The lines that are whole: of one that ends with a return, the newline may be still to come."""
        lines = (self._line + (piece or b"")).splitlines(keepends=True)
        is_open = piece is not None and lines and not lines[-1].endswith(b"\n")
        self._line = lines.pop() if is_open else b""
        return lines

    def _read_line(self, line: bytes) -> bytes:
        line = line.removeprefix(codecs.BOM_UTF8)
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif line.startswith(b"error:"):  # llama.cpp before ggml-org/llama.cpp/pull/16109
            self._data.append(b'{"error":%b}' % line[6:].strip())
        return b"" if line.strip() else self._event()

    def _event(self) -> bytes:
        """The event that is whole."""
        data, self._data = b"\n".join(self._data), []
        if not data or self._is_over:
            return b""
        self._are_any, self._is_over = True, data.startswith(b"[DONE]")
        return self._closing() + b"data: [DONE]\n\n" if self._is_over else self._checked(data)

    def _checked(self, data: bytes) -> bytes:
        told = parsed(data)
        if error := error_in(told):
            self._is_over = True
            return _written(as_event(error))
        if not is_chunk(told):
            raise self._no_answer(data.decode("utf-8", "replace"))
        if any(map(ending, told.get("choices") or ())):
            self._last = told
        return _written(mended_chunk(told))

    def _closing(self) -> bytes:
        """Why the answer ended, told once and for all: some servers repeat it, or tell it before the end."""
        return b"" if self._last is None else _written(closing(self._last))

    def _end(self) -> bytes:
        events = self._event()  # one that no empty line follows
        if not self._are_any:
            if error := error_in(parsed(self._start)):
                return _written(as_event(error))
            raise self._no_answer(self._start.decode("utf-8", "replace"))
        if not self.are_whole:
            raise self._broke_off()
        return events if self._is_over else events + self._closing()


def _written(event: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(event).encode()


class Verbatim(Events):
    """The events of another protocol, which are handed on as they are."""

    def read(self, piece: bytes | None) -> bytes:
        """The next bytes.

        Raises:
            Exception: there were none.
        """
        self._start = self._start or (piece or b"")
        if piece is None and not self._start.strip():
            raise self._no_answer("")
        return piece or b""
