"""What is learnt of a model's server while it is asked: what it does not take need not be tried at every call anew.

It is shared by all models of one name at one address, and forgotten with the last of them. Two things are learnt: how
much speaks for a server that takes no structured output of a form (see `icrl_graph.models.structured`), and which
optional fields of a request it refuses. These are left out from then on, and no call is lost by them:

* `seed`, `stream_options`, `max_completion_tokens`: Mistral answers 422, "Extra inputs are not permitted", with the
  place of the field (github.com/openai/openai-agents-python/issues/442, editor-code-assistant/eca/issues/231).
* `max_tokens`, `max_completion_tokens`: llama-cpp-python and older servers know the first alone, and ignore the other
  (abetlen/llama-cpp-python/issues/1907, ggml-org/llama.cpp/pull/19831), so both are sent; what takes only one of
  them says so. A limit is left out only where the other name of it is still sent.
* `prompt_cache_key`: OpenAI's own.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from icrl_graph.execution.overflow import speaks_of_overflow
from icrl_graph.models.addresses import OPENAI

logger = logging.getLogger(__name__)

LIMITS = ("max_tokens", "max_completion_tokens")
"""The two names of the limit of an answer."""
_OPTIONAL = ("seed", "stream_options", "prompt_cache_key", *LIMITS)
_PARTS = {"stream_options": "stream_options|include_usage"}
"""Of a field that holds others: what a refusal may name in its place."""
_OF_SIZE = r"too (?:large|big|high|small|low)|at (?:most|least)|greater than|less than|exceed|maximum|minimum|\brange\b"
"""Of a limit that is known, and has a wrong value."""


class Server:
    """What is known of a server and its model.

    Attributes:
        forms: by the form of a structured answer, how much speaks for the server not taking it; certain from 2 on.
        left_out: the fields that it refuses.
    """

    def __init__(self, address: str = "") -> None:
        self.forms = Counter[str]()
        self.left_out: frozenset[str] = frozenset()
        self._address = address

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, where no proxy can ask for it."""
        return bool(re.fullmatch(r"localhost|127(\.\d+){3}|0\.0\.0\.0|::1", urlsplit(self._address).hostname or ""))

    def leave_out(self, refusals: Mapping[str, str]) -> None:
        """Remember the fields that a request was answered without, with the reasons of the refusals."""
        for field in refusals.keys() - self.left_out:
            logger.warning("%s refuses %s, which is left out from here on: %s", self._address, field, refusals[field])
        self.left_out |= refusals.keys()


_servers: WeakValueDictionary[tuple[str, str], Server] = WeakValueDictionary()


def server_at(address: str | None, model: str) -> Server:
    """The server of an address, None for OpenAI's, as far as this model is concerned."""
    address = (address or OPENAI).rstrip("/")
    return _servers.setdefault((address, model), Server(address))


def server_of(model: Any) -> Server:
    """The server of a chat model; of one whose address is not known, nothing is shared."""
    address = address_of(model)
    return server_at(address, model.model_name) if address else Server()


def address_of(model: Any) -> str:
    """Where a model of OpenAI's protocol is asked; "" if it is none."""
    client = getattr(model, "root_client", None) or getattr(model, "root_async_client", None)
    return str(getattr(client, "base_url", ""))


def is_openai(address: str) -> bool:
    """Whether an address is one of OpenAI's own."""
    return f".{urlsplit(address).hostname or ''}".endswith(".api.openai.com")  # also eu.api.openai.com


def refused_field(told: bytes, sent: Collection[str]) -> tuple[str, str] | None:
    """The optional field that a refusal is about, and the reason; None if it is about something else.

    Args:
        told: the body of the refusal.
        sent: the names of the fields that were sent.
    """
    error = _error(told)
    reason = str(error.get("message") or "")
    fields = [field for field in _OPTIONAL if field in sent]
    if not set(LIMITS).issubset(sent) or speaks_of_overflow(reason) or re.search(_OF_SIZE, reason, re.IGNORECASE):
        fields = [field for field in fields if field not in LIMITS]
    if (named := str(error.get("param")).partition(".")[0]) in fields:
        return named, reason
    places = {field: re.search(rf"\b(?:{_PARTS.get(field, field)})\b", reason) for field in fields}
    first = min((place.start(), field) for field, place in places.items() if place) if any(places.values()) else None
    return None if first is None else (first[1], reason)


def _error(told: bytes) -> Mapping[str, Any]:
    try:
        error = json.loads(told)["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return error if isinstance(error, Mapping) else {}
