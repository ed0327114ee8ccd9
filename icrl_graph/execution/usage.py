"""What the replies within a call have used: as their servers report it, estimated where these report nothing.

A reply without usage would cost nothing, and no cap of tokens or dollars would hold. So what a provider's chat model
leaves out is estimated by its text: a token for every four bytes of UTF-8, of the prompt and of the reply. That is
about right for English and near the truth for other scripts, whose characters are longer; images count nothing. Some
servers report zeros instead of nothing; they count as nothing where there is a text. So do numbers that can't be:
negative ones, and more than any model reads or writes in one call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, reduce
from operator import add
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from icrl_graph.execution.prices import Prices, cost
from icrl_graph.prompts.text import as_json
from icrl_graph.state.episode import Usage, add_usage

logger = logging.getLogger(__name__)

BYTES = 4
"""Of UTF-8, for each token of an estimate."""
MOST = 10**9
"""Tokens that one call can read or write; a server that reports more is mistaken."""
LOCAL = "icrl_graph"
"""The provider that a function names which stands for a model: what it does not report, it does not cost."""


class _Asked(NamedTuple):
    """A call of a model that has not ended."""

    prompt: Sequence[BaseMessage]
    model: str
    chunks: list[Any]
    """What of its answer has been streamed."""


class _Reply(NamedTuple):
    """A message, and what is known of the call that it answers."""

    message: Any
    prompt: Sequence[BaseMessage] | None = None
    """None where nothing is to be estimated."""
    model: str = ""
    """The model that was asked."""


class UsageCallback(BaseCallbackHandler):
    """Collects the replies of all chat models that answer within a call, also deep inside a chain or an agent.

    Attributes:
        replies: the replies, also those of calls that failed after they were paid.
        calls: how many calls of models were answered: an agent makes several. One that breaks off is repeated.
        begun: done with the first piece of an answer, where one is streamed; None if nobody waits for that.
    """

    run_inline = True  # else each answer would take a thread under `ainvoke`

    def __init__(self, begun: Future[None] | None = None) -> None:
        self.replies: list[_Reply] = []
        self.calls = 0
        self.begun = begun
        self._asked: dict[UUID, _Asked] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what a model is asked."""
        self._asked[run_id] = _Asked(messages[0], (metadata or {}).get("ls_model_name") or "", [])

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """Note a piece of an answer: it was paid, also if the rest never comes."""
        if run_id in self._asked and getattr(chunk, "message", None) is not None:
            self._asked[run_id].chunks.append(chunk.message)
            if self.begun is not None and not self.begun.done():
                self.begun.set_result(None)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Collect the messages of a model that has answered."""
        self.calls += self._collect(run_id, _messages(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Collect what a model had said before it broke off, or what its error carries."""
        chunks = self._asked[run_id].chunks if run_id in self._asked else []
        told = [*_merged(chunks), *_messages(kwargs.get("response")), *_carried(error)]
        self._collect(run_id, [each for each in told if getattr(each, "usage_metadata", None) or _said(each)][:1])

    def _collect(self, run_id: UUID, messages: Iterable[Any]) -> bool:
        """Keep the messages of a call; gives whether any is new."""
        asked = self._asked.pop(run_id, None)
        prompt, model = (None, "") if asked is None else asked[:2]
        known = {_identity(reply.message) for reply in self.replies}
        # a model around another one may hand on its message, or a copy
        new = [message for message in messages if _identity(message) not in known]
        for message in new:
            is_local = message.response_metadata.get("model_provider") == LOCAL
            self.replies.append(_Reply(message, None if is_local else prompt, model))
        return bool(new)


def _merged(chunks: Sequence[Any]) -> list[Any]:
    """The pieces of a message as one."""
    return [reduce(add, chunks)] if chunks else []


def _messages(response: LLMResult | None) -> list[Any]:
    generations = [] if response is None else [each for batch in response.generations for each in batch]
    return [message for each in generations if (message := getattr(each, "message", None)) is not None]


def _identity(message: Any) -> Any:
    """What a message has in common with its copies: its id. Its usage, too: some servers give all the same id."""
    identifier, usage = getattr(message, "id", None), getattr(message, "usage_metadata", None)
    return (identifier, repr(usage) if usage else _said(message)) if identifier else id(message)


def _carried(error: Any) -> list[AIMessage]:
    """The reply that an error is about: of a completion that OpenAI's client could not read, or of its body."""
    with suppress(Exception):  # whatever it holds, and not all of it was read
        completion = getattr(error, "completion", None)
        told = error.response.json() if completion is None else completion.model_dump()
        choice, usage = (told.get("choices") or [{}])[0], told.get("usage")
        text = (choice.get("message") or {}).get("content") or ""
        return [AIMessage(text, usage_metadata=_read(usage), response_metadata={"model_name": told.get("model")})]
    return []


def _read(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """Usage as it comes over HTTP, in the names of OpenAI or of Anthropic."""
    if not usage:
        return None
    input, output = (usage.get(f"{old}_tokens", usage.get(f"{new}_tokens")) or 0 for old, new in _NAMES)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return UsageMetadata(
        input_tokens=input,
        output_tokens=output,
        total_tokens=input + output,
        input_token_details={"cache_read": cached},
        output_token_details={"reasoning": reasoning},
    )


_NAMES = (("prompt", "input"), ("completion", "output"))

_usage_callback: ContextVar[UsageCallback | None] = ContextVar("icrl_usage_callback", default=None)
register_configure_hook(_usage_callback, inheritable=True)


@contextmanager
def collect_usage(begun: Future[None] | None = None) -> Iterator[UsageCallback]:
    """Collect the replies of the chat models that answer within the block; `begun` as for `UsageCallback`."""
    callback = UsageCallback(begun)
    token = _usage_callback.set(callback)
    try:
        yield callback
    finally:
        _usage_callback.reset(token)


def usage_of(response: Any, callback: UsageCallback, custom_prices: Prices) -> Usage:
    """The tokens of the chat models that answered within a call, and what they cost; empty if none are known.

    Args:
        response: what came back; its messages count where no model reported to the callback.
        callback: collected replies while the call was made.
        custom_prices: the user's prices by model name, in US dollars for a million tokens.
    """
    returned = [response.get("raw"), *response.get("messages", ())] if isinstance(response, Mapping) else [response]
    total: Usage = {}
    for reply in callback.replies or map(_Reply, returned):
        if not (tokens := _tokens(reply)):
            continue
        name = reply.message.response_metadata.get("model_name") or reply.model
        if tokens.get("estimated"):
            _tell_estimated(name)
        prices = (cost(each, tokens, custom_prices) for each in dict.fromkeys((name, reply.model)))
        usd = next((price for price in prices if price is not None), None)
        total = add_usage(total, tokens, {"unpriced": 1} if usd is None else {"usd": usd})
    return total


def _tokens(reply: _Reply) -> Usage:
    """The tokens of a reply; empty where they are neither reported nor to be estimated."""
    reported = getattr(reply.message, "usage_metadata", None) or {}
    told = [_count(reported.get(name)) for name in ("input_tokens", "output_tokens")]
    input, output = told
    if reply.prompt is not None:
        input = input or sum(_estimate(_said(message)) for message in reply.prompt)
        output = output or _estimate(_said(reply.message))
    is_estimated = [input, output] != told
    if not (reported or is_estimated):
        return {}
    read, wrote = reported.get("input_token_details") or {}, reported.get("output_token_details") or {}
    tokens = Usage(input=input, cached=_sum(read, "cache_read"), output=output, reasoning=_sum(wrote, "reasoning"))
    hour = _count(read.get("ephemeral_1h_input_tokens"))
    if written := max(_sum(read, "cache_creation"), _count(read.get("ephemeral_5m_input_tokens")) + hour):
        tokens["written"] = written
    if hour:
        tokens["written_1h"] = hour
    if is_estimated:
        tokens["estimated"] = 1
    return tokens


def _count(tokens: Any) -> int:
    """A number of tokens as a server reports it; 0 for what is none, or can't be that of one reply."""
    return int(tokens) if isinstance(tokens, int | float) and 0 < tokens <= MOST else 0


def _said(message: BaseMessage) -> str:
    """All text of a message, its reasoning and the calls of tools included."""
    more = [message.additional_kwargs.get("reasoning_content"), *(getattr(message, "tool_calls", None) or ())]
    return "".join([str(message.text), *(as_json(each) for each in more if each)])


def _estimate(text: str) -> int:
    """The tokens of a text, about."""
    return -(-len(text.encode(errors="replace")) // BYTES)


@cache
def _tell_estimated(model: str) -> None:
    """Log once that a model's tokens are estimated."""
    logger.warning(
        "%s: its server reports no usage, or one that can't be; tokens are estimated, one for every %d bytes of text, "
        "and caps of tokens and dollars hold by that",
        model or "a model",
        BYTES,
    )


def _sum(details: Mapping[str, Any], name: str) -> int:
    """The tokens of a kind; those of a service tier stand under a name of their own, as "flex_cache_read"."""
    return sum(_count(tokens) for key, tokens in details.items() if key == name or key.endswith(f"_{name}"))
