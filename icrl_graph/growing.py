"""Prompts that grow: of a run's next prompt only what is new is rendered and hashed.

A prompt of round 200 says what that of round 199 said, and a little more. What was made of a run's latest prompt is
remembered while the run lasts and extended, so that a round costs the same early and late. What is remembered is never
trusted further than it can be checked: an episode, a text or a style that is not the very same is rendered and hashed
from scratch. So a prompt is byte for byte what `icrl_graph.context.render` gives, also after somebody has edited an
older episode or gone back to an earlier checkpoint, and nothing is lost with what is forgotten but time.

Layouts other than "turns" are rendered from scratch; the latest round may stand anywhere in them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from itertools import takewhile
from operator import is_, itemgetter
from typing import Any, NamedTuple

from icrl_graph.context import (
    Layout,
    Pieces,
    Style,
    add_turn,
    as_messages,
    chosen,
    instruct,
    render,
    transcript,
    turns,
)
from icrl_graph.state import Episode, Message, Plan

RUNS = 4096
"""How many runs are remembered at once; they are forgotten as they end, so this bounds what was abandoned."""
_UNSETTLED = 4
"""Messages at a prompt's end that are hashed anew in the next: what marks them for a provider's cache moves on."""


class Remembered:
    """What is known of the runs that are under way, by run and by who asks; of the latest runs only.

    Args:
        limit: runs to keep.
    """

    def __init__(self, limit: int = RUNS) -> None:
        self._runs: OrderedDict[Hashable, dict[Hashable, Any]] = OrderedDict()
        self._limit, self._lock = limit, threading.Lock()

    def get(self, run: Hashable, who: Hashable) -> Any:
        """What was put there last, or None."""
        with self._lock:
            return self._runs.get(run, {}).get(who)

    def put(self, run: Hashable, who: Hashable, what: Any) -> None:
        """Remember something that does not change any more."""
        with self._lock:
            self._runs.setdefault(run, {})[who] = what
            self._runs.move_to_end(run)
            while len(self._runs) > self._limit:
                self._runs.popitem(last=False)

    def share(self, run: Hashable, who: Hashable, make: Callable[[], Any]) -> Any:
        """What was put there, or else, the first time, what is made."""
        with self._lock:
            found: Any = self._runs.setdefault(run, {})
            if who not in found:
                found[who] = make()
            return found[who]

    def forget(self, run: Hashable) -> None:
        """Drop all that is known of a run."""
        with self._lock:
            self._runs.pop(run, None)


# ------------------------------------------------------------------------------------------------------------ rendering


class Scene(NamedTuple):
    """What the prompts of a run have in common."""

    preamble: Sequence[Message]
    task: str | Sequence[Message]
    style: Style
    layout: Layout


class _Rendered(NamedTuple):
    """A prompt, and what its successor is made of and compared with."""

    number: int
    """How many episodes there were before it."""
    scene: Scene
    shown: list[Episode]
    told: list[Message]
    """The prompt up to its last instruction; only of "turns"."""
    kept: list[Message] | tuple[int, int]
    """What its successor should begin with: messages, or the length and the hash of a text."""


def next_prompt(
    remembered: Remembered, run: Hashable, who: Hashable, scene: Scene, past: Sequence[Episode], plan: Plan
) -> tuple[list[Message], int]:
    """The prompt of a plan, and whether the run's prompts have broken with it.

    They break where a prompt does not begin with the one before it, apart from what stands behind the history in a
    transcript: a provider's prompt cache is of no use then. Where neither shows any history, there is none to break.

    Args:
        remembered: what is known of the run's latest prompt, and will be of this one.
        run: the run.
        who: whose prompts these are within the run.
        scene: what its prompts have in common.
        past: the episodes before the one of the plan.
        plan: what to show and what to ask.

    Returns:
        Messages of their own, so that whoever is asked may change them; and 1 for a break, else 0.
    """
    last: _Rendered | None = remembered.get(run, ("rendered", who))
    messages, now = _rendered(scene, past, plan, last)
    remembered.put(run, ("rendered", who), now)
    breaks = 0
    if past and (plan["shown"] or past[-1]["plan"]["shown"]):
        if last is None or last.number != len(past) - 1:  # resumed, repeated or forked: the plan makes it again
            _, last = _rendered(scene, past[:-1], past[-1]["plan"], None)
        breaks = 0 if _begins(messages, last.kept) else 1
    return list(map(_own, messages)), breaks


def _own(message: Message) -> Message:
    """A copy, and of what it holds, such as a list of texts and pictures, too."""
    return {key: value if isinstance(value, str) else deepcopy(value) for key, value in message.items()}


def _rendered(
    scene: Scene, past: Sequence[Episode], plan: Plan, last: _Rendered | None
) -> tuple[list[Message], _Rendered]:
    """The prompt of a plan, made of an earlier one of its run as far as that goes."""
    preamble, task, style, layout = scene
    shown, asked = chosen(past, plan), style.text(plan["instruction"])
    if layout is not turns:
        messages = render(preamble, task, past, plan, style, layout)
        return messages, _Rendered(len(past), scene, [], [], _mark(_settled(messages, layout)))
    known: list[Episode] = []
    told = [*preamble, *as_messages(task)]
    if last is not None and last.scene == scene and _same(last.shown, shown):
        known, told = last.shown, [*last.told]
    for episode in shown[len(known) :]:
        add_turn(told, episode, style)
    messages = [*told]
    instruct(messages, asked)
    if "response" in style.shows:
        return messages, _Rendered(len(past), scene, shown, told, messages)
    going_on = _text(told).removesuffix(f"<{told[-1]['role']}>")  # without answers in between one message goes on
    return messages, _Rendered(len(past), scene, shown, told, _mark(going_on))


def _same(known: Sequence[Episode], shown: Sequence[Episode]) -> bool:
    """Whether these begin with those: the very same dictionaries, which nobody changes (see `state.upsert`)."""
    return len(known) <= len(shown) and all(map(is_, known, shown))


def _settled(messages: Sequence[Message], layout: Layout) -> str:
    """What of a prompt later ones should repeat: of a transcript its history, else all."""
    for at, message in enumerate(messages):
        if isinstance(content := message.get("content"), Pieces):
            return _text(messages[:at]) + "".join(content.pieces[:-1])
    return "" if layout is transcript else _text(messages)


def _mark(text: str) -> tuple[int, int]:
    return len(text), hash(text)


def _begins(messages: Sequence[Message], kept: list[Message] | tuple[int, int]) -> bool:
    if isinstance(kept, list):
        return messages[: len(kept)] == kept
    length, told = kept
    return hash(_text(messages)[:length]) == told


def _text(messages: Sequence[Message]) -> str:
    """All that a prompt says, with the roles behind it, so that one text begins with another as the prompts do."""
    return "".join(f"{_content(message.get('content'))}<{message['role']}>" for message in messages)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] if "text" in part else _json(part) for part in content or [])


# -------------------------------------------------------------------------------------------------------------- hashing


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


def digest(remembered: Remembered, run: Hashable, who: Hashable, input: Any, beside: Any) -> str:
    """A hash of all that is sent with a call.

    Args:
        remembered: what is known of the latest call.
        run: the run.
        who: who calls within the run.
        input: messages, a dictionary with them under `messages`, or anything else.
        beside: what else is sent.

    Returns:
        In hexadecimal: another one for whatever differs in it.
    """
    messages = input.get("messages") if isinstance(input, Mapping) else input
    if not isinstance(messages, list):
        return hashlib.sha256(_json([beside, input]).encode()).hexdigest()
    most = max(0, len(messages) - _UNSETTLED)
    last: _Hashed | None = remembered.get(run, ("hashed", who))
    if last is None or not last.opens(messages, most):
        last = _Hashed([], hashlib.sha256())
    more = list(map(_role_and_text, takewhile(_is_plain, messages[len(last.opening) : most])))
    opening, state = [*last.opening, *more], last.state.copy()
    for text in (text for pair in more for text in pair):
        data = text.encode(errors="surrogatepass")
        state.update(b"%d:" % len(data))  # so that nothing can move from one text to the next
        state.update(data)
    remembered.put(run, ("hashed", who), _Hashed(opening, state.copy()))
    around = {**input, "messages": None} if isinstance(input, Mapping) else None
    state.update(_json([beside, around, len(messages), messages[len(opening) :]]).encode())
    return str(state.hexdigest())


def _is_plain(message: Any) -> bool:
    """Whether a message is a role and a text, and nothing else."""
    if not isinstance(message, dict) or len(message) != 2:
        return False
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
