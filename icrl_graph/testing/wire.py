"""What passes between a client and a server: requests as a dialect sees them, answers and streams; pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

from icrl_graph.state.episode import Message
from icrl_graph.testing.dialects import Dialect, Order


def text_of(messages: Sequence[Message]) -> str:
    """A prompt as one text."""
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def tokens(text: str) -> int:
    """The number of tokens of a text: one per four characters."""
    return -(-len(text) // 4)


def unwanted(body: Mapping[str, Any], dialect: Dialect) -> list[dict[str, Any]]:
    """The fields that a dialect refuses, as pydantic tells them."""
    names = [name for name in body if name in dialect.refused or not (dialect.known is None or name in dialect.known)]
    nested = {name: body[name] for name in names if isinstance(body[name], Mapping)}
    given: dict[tuple[str, ...], Any] = {("body", name): body[name] for name in names if name not in nested}
    given |= {("body", name, key): value for name, fields in nested.items() for key, value in fields.items()}
    told = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
    return [{**told, "loc": list(path), "input": value} for path, value in given.items()]


def misplaced(messages: Sequence[Message], order: Order | None) -> dict[str, Any] | None:
    """The first message whose role may not follow the one before it: both roles and places; None if all may."""
    roles = ["", *(message["role"] for message in messages), ""]
    for at, (before, role) in enumerate(pairwise(roles), -1):
        if order is not None and role not in order.get(before, ()):
            return {"before": before, "role": role, "at": at, "next": at + 1}
    return None


def cut(messages: Sequence[Message], context: int) -> Sequence[Message]:
    """What is read of a prompt whose front is cut off: the system's messages and the last ones, as many as fit.

    Of a last message that does not fit by itself, as much as fills half of the context.
    """
    first = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    kept = ([*first, *rest[start:]] for start in range(len(rest)))
    rests = (each for each in kept if tokens(text_of(each)) <= context)
    return next(rests, [{**messages[-1], "content": str(messages[-1]["content"])[-2 * context :]}])


_THOUGHT = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)(.*)", re.S)


def message_of(text: str, place: str) -> tuple[dict[str, Any], str]:
    """An answer as a message, with its thoughts where a dialect has them; and the thoughts."""
    parts = _THOUGHT.fullmatch(text) if place != "content" else None
    thought, content = (parts[1].strip(), parts[2]) if parts else ("", text)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thought and place == "parts":
        said = [{"type": "text", "text": content}] if content else []
        message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}, *said]
    elif thought and place != "hidden":
        message[place] = thought
    return message, thought


def logprobs(text: str, said: str | Mapping[str, float], top: int) -> dict[str, Any]:
    """The log-probabilities of an answer's tokens.

    Args:
        text: the answer.
        said: the same, of which each token is certain; or the answers that there are, with their probabilities, each
            a single token.
        top: how many alternatives each token has at most.
    """
    tokens = [text[i : i + 4] for i in range(0, len(text), 4)] if isinstance(said, str) else [text]

    def told(odds: Mapping[str, float]) -> list[dict[str, Any]]:
        return [
            {"token": token, "bytes": list(token.encode()), "logprob": log(p)} for token, p in odds.items() if p > 0
        ]

    def entry(token: str) -> dict[str, Any]:
        odds = {token: 1.0} if isinstance(said, str) else said
        likeliest = sorted(told(odds), key=lambda each: -each["logprob"])[:top]
        return {**told({token: odds[token]})[0], "top_logprobs": likeliest}

    return {"content": [entry(token) for token in tokens]}


def events(completion: Mapping[str, Any], dialect: Dialect, asked: bool | None) -> list[bytes]:
    """A completion as the events of a stream.

    Args:
        completion: the whole answer.
        dialect: whose stream it is.
        asked: whether the request asked for the usage.
    """
    frame = {**completion, "object": "chat.completion.chunk"}
    usage, (choice,) = frame.pop("usage"), frame.pop("choices")
    ended = [(delta, None) for delta in _deltas(choice["message"])] + [({}, choice["finish_reason"])]
    frames = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in ended]
    if told := choice.get("logprobs"):
        frames[0]["choices"][0]["logprobs"] = told
    if dialect.usage == "each":
        frames = [{**each, "usage": _so_far(usage, number)} for number, each in enumerate(frames, 1)]
    if dialect.usage == "last":
        frames[-1]["usage"] = usage
    elif dialect.usage in ("always", "each") or (asked and dialect.usage == "asked"):
        frames.append({**frame, "choices": [], "usage": usage})
    data = (*map(json.dumps, frames), "[DONE]")
    return [*filter(None, [dialect.opening.encode()]), *(f"data: {each}\n\n".encode() for each in data)]


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message in pieces: the thoughts, then the text, then the calls of tools."""
    content = message["content"] or ""
    if not isinstance(content, str):
        thoughts, *said = content
        yield {"role": "assistant", "content": [thoughts]}
        content = "".join(part["text"] for part in said)
    fields = {name: message[name] for name in ("reasoning", "reasoning_content") if name in message}
    for name, text in (*fields.items(), ("content", content)):
        yield from ({"role": "assistant", name: text[i : i + 16]} for i in range(0, len(text), 16))
    for index, call in enumerate(message.get("tool_calls") or ()):
        text = call["function"]["arguments"]
        opened = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield {"role": "assistant", "tool_calls": [opened]}
        pieces = ({"index": index, "function": {"arguments": text[i : i + 16]}} for i in range(0, len(text), 16))
        yield from ({"tool_calls": [piece]} for piece in pieces)


def _so_far(usage: Mapping[str, Any], chunks: int) -> dict[str, Any]:
    """The usage after so many chunks."""
    written = min(chunks, usage["completion_tokens"])
    return {**usage, "completion_tokens": written, "total_tokens": usage["prompt_tokens"] + written}
