"""OpenAI's chat completions as a run has them: what is read of a request, and what is told; pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from icrl_graph.api import Result
from icrl_graph.prompts.text import number
from icrl_graph.state.episode import answer_text
from icrl_graph.state.events import EpisodeEvent

HONOURED = ("model", "messages", "stream", "stream_options", "seed", "icrl", "task_data")
LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Fields of a request that change no answer."""
NEUTRAL: Mapping[str, Any] = {
    **{"n": 1, "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False},
    **{"stop": [], "tools": [], "tool_choice": "none", "logit_bias": {}, "response_format": {"type": "text"}},
    **{"store": False, "modalities": ["text"], "service_tier": "auto"},
}
"""What any other field may say: no more than if it were left out."""
PIECE = 64
"""Characters of an answer in an event of a stream."""


class Refused(Exception):
    """A request is refused, or has failed.

    Args:
        status: of HTTP.
        message: what the client is told.
        code: the same, for programs.
        param: the field that is wrong.

    Attributes:
        sent: the answer that had begun before; else None.
        logged: what the server's log says of it, which is not for the client where it tells more.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status, self.told = status, {"message": message, "type": kind, "param": param, "code": code}
        self.sent: Any = None
        self.logged = message


def optional_object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field that is an object, or is left out.

    Raises:
        Refused: it is something else.
    """
    value = body.get(name)
    if not isinstance(value, dict | None):
        raise Refused(400, f"{name} is an object, got {value!r:.80}", param=name)
    return value or {}


def check_fields(body: Mapping[str, Any]) -> None:
    """Check that each field is honoured, or says no more than if it were left out.

    Raises:
        Refused: one does not.
    """
    given = {name: value for name, value in body.items() if name not in (*HONOURED, *LABELS)}
    given |= {name: value for name, value in optional_object(body, "stream_options").items() if name != "include_usage"}
    for name, value in given.items():
        if value is not None and not (name in NEUTRAL and value == NEUTRAL[name]):
            hint = "limits and settings of a run stand under icrl, and what its model is asked with is the server's"
            raise Refused(400, f"{name} is not honoured here, leave it out; {hint}", "unsupported_parameter", name)


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the usage is to be told at the end of a stream."""
    return bool(optional_object(body, "stream_options").get("include_usage"))


def completion(result: Result, **head: Any) -> dict[str, Any]:
    """A run as a completion."""
    message = {"role": "assistant", "content": _text(result)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        **head,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage_of(result),
        "icrl": told_of(result),
    }


def chunk(*, finish: str | None = None, id: str, created: int, model: str, **delta: str) -> dict[str, Any]:
    """An event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": id, "created": created, "model": model, "object": "chat.completion.chunk", "choices": [choice]}


def last_chunks(result: Result, with_usage: bool, **head: Any) -> Iterator[dict[str, Any]]:
    """The events of a stream once its run has ended."""
    text = _text(result)
    for at in range(0, len(text), PIECE):
        yield chunk(content=text[at : at + PIECE], **head)
    yield {**chunk(finish="stop", **head), "icrl": told_of(result)}
    if with_usage:
        yield {**chunk(**head), "choices": [], "usage": usage_of(result)}


def line(event: EpisodeEvent) -> str:
    """An attempt, for who watches."""
    attempt = f", attempt {event['candidate'] + 1}" if event["candidate"] else ""
    return f"round {event['round'] + 1}{attempt}: reward {number(event['reward'])}, best {number(event['best'])}\n"


def usage_of(result: Result) -> dict[str, Any]:
    """What all calls of a run took."""
    used = result.usage
    read, written = used.get("input", 0), used.get("output", 0)
    return {
        **{"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        "prompt_tokens_details": {"cached_tokens": used.get("cached", 0)},
        "completion_tokens_details": {"reasoning_tokens": used.get("reasoning", 0)},
    }


def told_of(result: Result) -> dict[str, Any]:
    """What a completion has no place for, under `icrl`."""
    names = ("reward", "metric", "regret", "rewarded_by", "stopped", "usage")
    rounds = len({episode["round"] for episode in result.episodes}) - result.lost_rounds
    return {**{name: getattr(result, name) for name in names}, "rounds_done": rounds}


def _text(result: Result) -> str:
    return answer_text({"answer": result.answer, "stopped": result.stopped})
