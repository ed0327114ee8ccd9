"""What saves work in the next rounds of a run: a cache that can be dropped at any time."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple

from icrl_graph.prompts.text import as_json
from icrl_graph.state.episode import Message

MAX_RUNS = 4096
"""Runs in the cache at most; each is dropped when it ends, so this bounds what abandoned runs leave."""


_REHASHED = 4
"""Messages at the end of a prompt that are hashed again in the next: their marks for a provider's cache change."""


class RunCache:
    """A cache for the runs that are under way, by run and by a key within the run; of the latest runs only.

    Args:
        limit: number of runs.
    """

    def __init__(self, limit: int = MAX_RUNS) -> None:
        self._runs: OrderedDict[Hashable, dict[Hashable, Any]] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def get(self, run: Hashable, key: Hashable) -> Any:
        """The value that was put there last, or None."""
        with self._lock:
            return self._runs.get(run, {}).get(key)

    def put(self, run: Hashable, key: Hashable, value: Any) -> None:
        """Set a value, which must not change any more."""
        with self._lock:
            self._runs.setdefault(run, {})[key] = value
            self._runs.move_to_end(run)
            while len(self._runs) > self._limit:
                self._runs.popitem(last=False)

    def share(self, run: Hashable, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value that was put there; made first if there is none."""
        with self._lock:
            values = self._runs.setdefault(run, {})
            if key not in values:
                values[key] = make()
            return values[key]

    def forget(self, run: Hashable) -> None:
        """Drop all values of a run."""
        with self._lock:
            self._runs.pop(run, None)


class _Hashed(NamedTuple):
    """The prefix of a prompt, and the state of its hash."""

    prefix: list[tuple[str, str]]
    """Roles and texts."""
    state: Any

    def starts(self, messages: list[Message], limit: int) -> bool:
        """Whether the first messages, at most `limit`, are this prefix and hold nothing else."""
        count = len(self.prefix)
        first = messages[:count]
        try:
            same = list(map(_role_and_text, first)) == self.prefix
            return count <= limit and same and sum(map(len, first)) == 2 * count
        except (KeyError, TypeError):  # a message in another form
            return False


_role_and_text = itemgetter("role", "content")


def digest(run_cache: RunCache, run: Hashable, caller: Hashable, input: Any, options: Any) -> str:
    """A hash of all that is sent with a call.

    Args:
        run_cache: holds the hash of the caller's previous prompt, which this one extends.
        run: the run.
        caller: what calls within the run: its node and candidate.
        input: messages, a dictionary with them under `messages`, or anything else.
        options: what else is sent.

    Returns:
        The hash in hexadecimal; it differs wherever anything that is sent differs.
    """
    messages = input.get("messages") if isinstance(input, Mapping) else input
    if not isinstance(messages, list):
        return hashlib.sha256(as_json([options, input]).encode()).hexdigest()
    limit = max(0, len(messages) - _REHASHED)
    previous: _Hashed | None = run_cache.get(run, ("hashed", caller))
    if previous is None or not previous.starts(messages, limit):
        previous = _Hashed([], hashlib.sha256())
    more = list(map(_role_and_text, takewhile(_is_plain, messages[len(previous.prefix) : limit])))
    prefix, state = [*previous.prefix, *more], previous.state.copy()
    for text in (text for pair in more for text in pair):
        data = text.encode(errors="surrogatepass")
        state.update(b"%d:" % len(data))  # so that nothing can move from one text to the next
        state.update(data)
    run_cache.put(run, ("hashed", caller), _Hashed(prefix, state.copy()))
    rest = {**input, "messages": None} if isinstance(input, Mapping) else None
    state.update(as_json([options, rest, len(messages), messages[len(prefix) :]]).encode())
    return str(state.hexdigest())


def _is_plain(message: Any) -> bool:
    """Whether a message is a role and a text, and nothing else."""
    if not isinstance(message, dict) or len(message) != 2:
        return False
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
