"""Which failures are transient, how long a provider asks to wait before a retry, and what is said of a failure."""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from langchain_core.exceptions import ModelError

from icrl_graph.execution.calls import Call
from icrl_graph.execution.overflow import is_overflow
from icrl_graph.execution.roles import is_about_roles
from icrl_graph.execution.status import status_of, words_of
from icrl_graph.state.unicode import cleaned

_CONNECTION_ERRORS = {"APIError", "APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"}
"""Errors of a connection or within a stream, by class name, so that none of these packages need be installed: the
clients of OpenAI and Anthropic, httpx, aiohttp."""


_PERMANENT_CODES = ("insufficient_quota",)
"""Error codes that no wait helps against, whatever their status."""


_CLIENTS = {"openai", "anthropic", "httpx", "httpx2", "aiohttp", "requests"}
"""Packages that read what a provider sends."""


def describe(error: BaseException) -> str:
    """The kind of an error and its message; of a broken connection with what broke it, which clients leave out."""
    message = cleaned(f"{type(error).__name__}: {error}")
    if _names(error).isdisjoint(_CONNECTION_ERRORS):
        return message
    texts = (cleaned(str(cause)) for cause in _causes(error))
    cause = next((text for text in texts if text and text not in message), None)
    return message if cause is None else f"{message.rstrip('.: ')}: {cause}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, one after another."""
    while (cause := error.__cause__) is not None:
        yield (error := cause)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def is_retryable(call: Call, error: Exception) -> bool:
    """Whether a failed call is to be retried: not one that was given up on after its own time limit."""
    return is_transient(error) and not (call.timeout is not None and isinstance(error, TimeoutError))


def is_transient(error: Exception) -> bool:
    """Whether a call that failed may succeed later: the provider is busy, limits its rate, or the connection broke."""
    if any("HttpProcessingError" in _names(cause) for cause in _causes(error)):
        return True  # aiohttp could not parse what came, and calls that a status of 400
    if getattr(error, "code", None) in _PERMANENT_CODES or is_overflow(error) or is_about_roles(words_of(error)):
        return False
    if (status := status_of(error)) is not None:
        return status in (408, 409, 424, 425, 429) or status >= 500  # 424: TGI, of an answer that failed
    if isinstance(error, ModelError):
        return error.is_retryable
    if isinstance(error, json.JSONDecodeError):
        return _within_client(error)
    return isinstance(error, ConnectionError | TimeoutError) or not _names(error).isdisjoint(_CONNECTION_ERRORS)


def is_of_a_provider(error: Exception) -> bool:
    """Whether an error is a provider's or that of the connection to it, transient or not."""
    return is_transient(error) or isinstance(error, ModelError) or status_of(error) is not None


def _within_client(error: Exception) -> bool:
    """Whether an error was raised where a client read a body; a parser's or an evaluator's own is not."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS for frame in frames)


def retry_after(error: Exception) -> float | None:
    """The seconds that a provider asks to wait; None where it does not, or in no form that can be read."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        values = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
        milliseconds = values.get("retry-after-ms")
        seconds = _seconds(values["retry-after"]) if milliseconds is None else float(milliseconds) / 1000
    except (KeyError, TypeError, ValueError, OverflowError):
        return _told_seconds(words_of(error))
    return seconds if 0 <= seconds < math.inf else None


_TIME = r"(\d+(?:\.\d+)?) ?(ms|h|m|s)(?:(?<=h)(?:ou)?rs?|(?<=m)in(?:ute)?s?|(?<=s)ec(?:ond)?s?)?(?![a-z])"
_TOLD = re.compile(rf"(?:retryDelay\W{{1,9}}|\b(?:re)?try (?:again )?(?:in|after) )((?:{_TIME} ?)+)", re.IGNORECASE)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def _told_seconds(told: str) -> float | None:
    """The seconds to wait that stand in the words of a refusal: Gemini's has no header (dcdpr/jp/pull/1061)."""
    if (found := _TOLD.search(told)) is None:
        return None
    parts = re.findall(_TIME, found[1], re.IGNORECASE)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)


def _seconds(value: str) -> float:
    """The seconds of a Retry-After header, which holds seconds or an HTTP date."""
    return float(value) if re.fullmatch(r"[-+.\w]+", value) else parsedate_to_datetime(value).timestamp() - time.time()
