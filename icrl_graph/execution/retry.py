"""Which failures are transient, and when the call is made again."""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from email.utils import parsedate_to_datetime

from langchain_core.exceptions import ModelError

from icrl_graph.execution.calls import Call

_BROKEN = {"APIError", "APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"}
"""Errors of a connection or within a stream, by name, so that none of these need be installed: the clients of OpenAI
and Anthropic, httpx, aiohttp."""


_FINAL = ("insufficient_quota", "context_length_exceeded")
"""Codes of what no wait mends, whatever its status."""


_CLIENTS = {"openai", "anthropic", "httpx", "httpx2", "aiohttp", "requests"}
"""Packages that read what a provider sends."""


def is_retryable(call: Call, error: Exception) -> bool:
    """Whether a failed call is worth another attempt: not one that was given up on after its own time limit."""
    return is_transient(error) and not (call.timeout is not None and isinstance(error, TimeoutError))


def is_transient(error: Exception) -> bool:
    """Whether what failed may succeed later: the provider is busy, limits its rate, or the connection broke."""
    if getattr(error, "code", None) in _FINAL:
        return False
    if (status := status_of(error)) is not None:
        return status in (408, 409, 425, 429) or status >= 500
    if isinstance(error, ModelError):
        return error.is_retryable
    if isinstance(error, json.JSONDecodeError):
        return _within_client(error)
    return isinstance(error, ConnectionError | TimeoutError) or any(c.__name__ in _BROKEN for c in type(error).__mro__)


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error tells of, wherever its client keeps it; None where it tells none."""
    places = (
        (error, "status_code"),
        (getattr(error, "response", None), "status_code"),
        (error, "status"),
        (error, "code"),
    )
    statuses = (str(getattr(holder, name, None)) for holder, name in places)
    return next((int(status) for status in statuses if re.fullmatch("[45][0-9][0-9]", status)), None)


def _within_client(error: Exception) -> bool:
    """Whether an error was raised where a client read a body, not by a parser or an evaluator."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS for frame in frames)


def retry_after(error: Exception) -> float | None:
    """The seconds that a provider asks to wait; None where it says nothing that can be read."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        fields = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
        seconds = (
            float(fields["retry-after-ms"]) / 1000 if "retry-after-ms" in fields else _seconds(fields["retry-after"])
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _seconds(text: str) -> float:
    """A Retry-After in seconds, in which it may come, or as an HTTP date."""
    return float(text) if re.fullmatch(r"[-+.\w]+", text) else parsedate_to_datetime(text).timestamp() - time.time()
