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

RUNS = 4096
"""How many runs are remembered at once; they are forgotten as they end, so this bounds what was abandoned."""


_UNSETTLED = 4
"""Messages at a prompt's end that are hashed anew in the next: what marks them for a provider's cache moves on."""


class RunCache:
    """What is known of the runs that are under way, by run and key; of the latest runs only.

    Args:
        limit: runs to keep.
    """

    def __init__(self, limit: int = RUNS) -> None:
        self._runs: OrderedDict[Hashable, dict[Hashable, Any]] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def get(self, run: Hashable, key: Hashable) -> Any:
        """What was put there last, or None."""
        with self._lock:
            return self._runs.get(run, {}).get(key)

    def put(self, run: Hashable, key: Hashable, value: Any) -> None:
        """Remember something that does not change any more."""
        with self._lock:
            self._runs.setdefault(run, {})[key] = value
            self._runs.move_to_end(run)
            while len(self._runs) > self._limit:
                self._runs.popitem(last=False)

    def share(self, run: Hashable, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was put there, or else, the first time, what is made."""
        with self._lock:
            entries: Any = self._runs.setdefault(run, {})
            if key not in entries:
                entries[key] = make()
            return entries[key]

    def forget(self, run: Hashable) -> None:
        """Drop all that is known of a run."""
        with self._lock:
            self._runs.pop(run, None)


class _Hashed(NamedTuple):
    """What a prompt opens with, and the hash that it leads to."""

    opening: list[tuple[str, str]]
    """Roles and texts."""
    state: Any

    def opens(self, messages: list[Message], most: int) -> bool:
        """Whether at most so many of these messages are these, and nothing but these."""
        count = len(self.opening)
        ahead = messages[:count]
        try:
            same = list(map(_role_and_text, ahead)) == self.opening
            return count <= most and same and sum(map(len, ahead)) == 2 * count
        except (KeyError, TypeError):  # a message in another form
            return False


_role_and_text = itemgetter("role", "content")


def digest(run_cache: RunCache, run: Hashable, key: Hashable, input: Any, options: Any) -> str:
    """A hash of all that is sent with a call.

    Args:
        run_cache: what is known of the latest call.
        run: the run.
        key: of the caller within the run.
        input: messages, a dictionary with them under `messages`, or anything else.
        options: what else is sent.

    Returns:
        In hexadecimal: another one for whatever differs in it.
    """
    messages = input.get("messages") if isinstance(input, Mapping) else input
    if not isinstance(messages, list):
        return hashlib.sha256(as_json([options, input]).encode()).hexdigest()
    most = max(0, len(messages) - _UNSETTLED)
    last: _Hashed | None = run_cache.get(run, ("hashed", key))
    if last is None or not last.opens(messages, most):
        last = _Hashed([], hashlib.sha256())
    more = list(map(_role_and_text, takewhile(_is_plain, messages[len(last.opening) : most])))
    opening, state = [*last.opening, *more], last.state.copy()
    for text in (text for pair in more for text in pair):
        data = text.encode(errors="surrogatepass")
        state.update(b"%d:" % len(data))  # so that nothing can move from one text to the next
        state.update(data)
    run_cache.put(run, ("hashed", key), _Hashed(opening, state.copy()))
    around = {**input, "messages": None} if isinstance(input, Mapping) else None
    state.update(as_json([options, around, len(messages), messages[len(opening) :]]).encode())
    return str(state.hexdigest())


def _is_plain(message: Any) -> bool:
    """Whether a message is a role and a text, and nothing else."""
    if not isinstance(message, dict) or len(message) != 2:
        return False
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
