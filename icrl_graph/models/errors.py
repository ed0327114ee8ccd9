"""What a body, or an event of a stream, says where it is an error: in which words, and with which status.

Servers put the reason under `error`, `message` or `detail`, as a text, an object or a list, and some say it in a page
of HTML or in plain text. OpenRouter hands on the words of the provider behind it (open-webui/computer/issues/293). An
error that comes with a status of success is not always called one: before 0.10.1 vLLM wrote `{"object": "error", ...}`
into its streams, FastAPI writes `{"detail": ...}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_MEANINGS = (
    (404, r"not_?found|unexpected endpoint or method"),  # LM Studio: lmstudio-ai/lmstudio-bug-tracker/issues/618
    (401, r"unauthenticated|authentication_?error|invalid_api_key"),
    (429, r"rate_?limit|too_?many_?requests|resource_?exhausted"),
    (400, r"bad_?request|invalid_?(?:request|argument)|context_?length_?exceeded"),
)
"""The status of an error that comes without one, by its type, its code or, if it has neither, its words."""


def parsed(body: str | bytes) -> Any:
    """What a body of JSON holds; None where it is none, or nested too deeply to be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def alone(told: Any) -> Any:
    """What is told; of a list of one, as Gemini refuses (FuzzAnything/PromptFuzz/issues/42), the one."""
    return told[0] if isinstance(told, list) and len(told) == 1 and isinstance(told[0], Mapping) else told


def error_in(told: Any) -> Any:
    """The error that a body or an event is, or holds; None where it is none."""
    if not isinstance(told, Mapping):
        return None
    is_error = told.get("object") == "error" or ("choices" not in told and reason_in(told))
    return told.get("error") or (told if is_error else None)


def status_in(error: Any) -> int:
    """The status that an error within an answer stands for; where nothing says so, that of a server that failed."""
    told = [error.get(name) for name in ("code", "status", "status_code", "type")] if isinstance(error, Mapping) else []
    numbers = (int(code) for code in map(str, told) if re.fullmatch("[45][0-9][0-9]", code))
    words = " ".join(str(each) for each in told if each) or reason_in(error)
    means = (status for status, meaning in _MEANINGS if re.search(meaning, words, re.IGNORECASE))
    return next(numbers, next(means, 502))


def as_event(error: Any) -> dict[str, Any]:
    """An error of a stream as OpenAI's client reads it, with its status where it has no code of its own."""
    known = error if isinstance(error, Mapping) else {}
    return {"error": {**known, "message": reason_in(error), "code": known.get("code") or status_in(error)}}


def reason_in(told: Any) -> str:
    """Why a request was refused: servers put it under `error`, `message` or `detail`, as a text or as a list."""
    if isinstance(told, str):
        return told[:500]
    if isinstance(told, list):
        return "; ".join(filter(None, map(reason_in, told)))[:500]
    if not isinstance(told, Mapping):
        return ""
    reason = next(filter(None, (reason_in(told.get(name)) for name in ("error", "message", "detail", "msg"))), "")
    place = ".".join(map(str, told["loc"])) if isinstance(told.get("loc"), list) else ""
    behind = _behind(told.get("metadata"))
    return ": ".join(filter(None, (place, reason, behind)))[:500] if reason else ""


def _behind(metadata: Any) -> str:
    """What the provider behind a router said."""
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    return (reason_in(alone(parsed(raw))) if isinstance(raw, str) else "") or reason_in(raw)


def words_in(body: str) -> str:
    """What a body says that is no JSON: the title of a page, or a plain text."""
    title = re.search(r"<title>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
    text = title[1] if title else body
    return "" if text.lstrip()[:1] in ("<", "{", "[") else " ".join(text[:500].split())[:200]
