"""Incremental prompts: of a run's next prompt only what is new is rendered.

The prompt of round 200 holds that of round 199 and a little more. So a run's latest prompt is cached while the
run lasts and extended, and a round costs the same early and late. The cache is checked before it is used:
an episode, a text or a style that is not the very same is rendered from scratch. So a prompt is byte for byte what
`layouts.render` gives, also after an older episode was edited or the run resumed from an earlier checkpoint, and
dropping the cache costs time alone.

Layouts other than "turns" are rendered from scratch; the latest round may stand anywhere in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from operator import is_
from typing import Any, NamedTuple

from icrl_graph.prompts.layouts import Layout, Pieces, Style, add_turn, as_messages, instruct, render, transcript, turns
from icrl_graph.prompts.plan import chosen, latest_round
from icrl_graph.prompts.text import as_json
from icrl_graph.state.episode import Episode, Message, Plan


class PromptSettings(NamedTuple):
    """What the prompts of a run have in common."""

    preamble: Sequence[Message]
    task: str | Sequence[Message]
    style: Style
    layout: Layout


class Rendered(NamedTuple):
    """A prompt, and what its successor is made of and compared with."""

    number: int
    """How many episodes there were before it."""
    settings: PromptSettings
    shown: list[Episode]
    """Those of its episodes that its successor shows in the same words."""
    opening: list[Message]
    """The prompt up to the last of these; only of "turns"."""
    prefix: tuple[int, int] | None
    """What its successor should begin with: the length and the hash of a text; None for its opening, instructed."""


def next_prompt(
    last: Rendered | None, settings: PromptSettings, past: Sequence[Episode], plan: Plan
) -> tuple[list[Message], int, Rendered]:
    """The prompt of a plan, and whether the run's prompts have broken with it.

    They break where a prompt does not begin with the one before it, apart from what follows the history in a
    transcript: a provider's prompt cache is of no use then. Where neither shows any history, there is none to break.

    Args:
        last: the third value of the call before; None if it is not known.
        settings: what the prompts of the run have in common.
        past: the episodes before the one of the plan.
        plan: what to show and what to ask.

    Returns:
        Copies of the messages, so that a model may change them; 1 for a break, else 0; and what the next prompt of the
        run is made of.
    """
    messages, rendered = _rendered(settings, past, plan, last)
    breaks = 0
    if past and (plan["shown"] or past[-1]["plan"]["shown"]):
        before = past[: -len(latest_round(past))]
        first = past[len(before)]["plan"]  # of the round before, what was asked first: its prompt is gone on with
        if last is None or last.number != len(before):  # resumed, repeated or forked: the plan makes it again
            _, last = _rendered(settings, before, first, None)
        breaks = 0 if _begins(messages, last, first["instruction"]) else 1
    return list(map(_copy, messages)), breaks, rendered


def _copy(message: Message) -> Message:
    """A copy, and of what it holds, such as a list of texts and pictures, too."""
    if len(message) == 2 and isinstance(message.get("content"), str):  # nearly all: a role and a text
        return {**message}
    return {key: value if isinstance(value, str) else deepcopy(value) for key, value in message.items()}


def _rendered(
    settings: PromptSettings, past: Sequence[Episode], plan: Plan, last: Rendered | None
) -> tuple[list[Message], Rendered]:
    """The prompt of a plan, made of an earlier one of its run as far as that goes."""
    preamble, task, style, layout = settings
    shown, instruction = chosen(past, plan), style.text(plan["instruction"])
    if layout is not turns:
        messages = render(preamble, task, past, plan, style, layout)
        return messages, Rendered(len(past), settings, [], [], _mark(_settled(messages, layout)))
    settled, visible = style.feedback.settled(shown), style.feedback.apply(shown)
    known: list[Episode] = []
    opening = [*preamble, *as_messages(task)]
    if last is not None and last.settings == settings and _same(last.shown, shown[:settled]):
        known, opening = last.shown, [*last.opening]
    for episode in visible[len(known) : settled]:
        add_turn(opening, episode, style)
    messages = [*opening]
    for i, episode in enumerate(visible[settled:]):
        add_turn(messages, episode, style, ends_settled=i == 0)
    instruct(messages, instruction)
    if "response" in style.shows and settled == len(shown):
        return messages, Rendered(len(past), settings, shown, opening, None)
    prefix = _text(opening).removesuffix(f"<{opening[-1]['role']}>")  # without answers in between one message grows
    return messages, Rendered(len(past), settings, shown[:settled], opening, _mark(prefix))


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


def _begins(messages: Sequence[Message], last: Rendered, instruction: str) -> bool:
    """Whether a prompt goes on with an earlier one, as that was with an instruction."""
    if last.prefix is None:
        before = [*last.opening]
        instruct(before, last.settings.style.text(instruction))
        return messages[: len(before)] == before
    length, hashed = last.prefix
    return hash(_text(messages)[:length]) == hashed


def _text(messages: Sequence[Message]) -> str:
    """All that a prompt says, with the roles after it, so that one text begins with another as the prompts do."""
    return "".join(f"{_content(message.get('content'))}<{message['role']}>" for message in messages)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] if "text" in part else as_json(part) for part in content or [])
