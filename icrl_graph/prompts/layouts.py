"""Layouts: how a prompt shows earlier episodes; `render` writes one, `parse` reads it back.

All pure, all on plain dictionaries. A prompt is never stored: the plan of an episode and the episodes before it give
the same prompt again, byte for byte.

`render` and `parse` are inverses. What a model says or an evaluator writes may hold anything, also what looks like our
own markup: inside a block it is escaped, and an assistant turn is left verbatim. So no model can write itself a reward.

There are two layouts:

* "turns": the chat grows and nothing in it ever changes. The task and the first instruction, then for each attempt an
  assistant turn with the response, verbatim, and a user turn with its reward and the next instruction. Prompt k is a
  prefix of prompt k+1, which is what prompt caches want.
* "transcript": one message with all attempts and their rewards, then the task and the instruction (the form of arXiv
  2506.06303).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from icrl_graph.prompts.feedback import FeedbackLimits
from icrl_graph.prompts.plan import _hide_true_reward, chosen, is_builtin
from icrl_graph.prompts.templates import ANOTHER, CUT, INSTRUCTIONS, NO_ANSWER
from icrl_graph.prompts.text import block, content_text, number, reward_line, step_line, unescape
from icrl_graph.state.episode import Episode, Message, Plan
from icrl_graph.state.reward import Reward
from icrl_graph.state.unicode import cleaned

Layout = Callable[[Sequence[Message], Sequence[Message], Sequence[Episode], str, "Style"], list[Message]]
"""(preamble, task, episodes to show, instruction text, style) -> the prompt."""
Shows = tuple[Literal["response", "shown", "reflection"], ...]
"""What of each episode a prompt shows."""


class Pieces(str):
    """A text that knows where a prompt cache may cut it. To everybody else, and stored, it is a text like any other.

    Attributes:
        pieces: what it is made of, in order. The prompts of later rounds open with the same pieces, but for the last.
    """

    pieces: tuple[str, ...]

    def __new__(cls, pieces: Iterable[str]) -> Pieces:
        """The text that these pieces make."""
        parts = tuple(pieces)
        text = super().__new__(cls, "".join(parts))
        text.pieces = parts
        return text


def flat(messages: Sequence[Message]) -> list[Message]:
    """The messages, each text in one piece: for what goes where only plain types are known."""
    return [{**m, "content": str(m["content"])} if type(m["content"]) is Pieces else m for m in messages]


@dataclass(frozen=True)
class Style:
    """What is the same for every prompt of a run."""

    shows: Shows = ("response", "shown")
    reward_label: str = "Reward"
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    feedback: FeedbackLimits = field(default_factory=FeedbackLimits)

    def text(self, instruction: str) -> str:
        """The text of an instruction; a text that a schedule gave stands for itself."""
        return self.instructions.get(instruction, instruction)


def render(
    preamble: Sequence[Message],
    task: str | Sequence[Message],
    past: Sequence[Episode],
    plan: Plan,
    style: Style,
    layout: Layout,
) -> list[Message]:
    """The prompt that a plan stands for.

    Args:
        preamble: system prompt and few-shot examples, ahead of everything.
        task: text or chat messages.
        past: the episodes before the one of the plan.
        plan: what to show and what to ask.
        style: what of each episode to show, and in which words.
        layout: how.
    """
    shown = style.feedback.apply(chosen(past, plan))
    if is_builtin(layout):
        return layout(preamble, as_messages(task), shown, style.text(plan["instruction"]), style)
    ahead, asked = deepcopy((list(preamble), as_messages(task)))  # it may change what it is handed
    visible = [_hide_true_reward(episode) for episode in shown]
    messages = layout(ahead, asked, visible, style.text(plan["instruction"]), style)
    valid = isinstance(messages, list) and messages and all(isinstance(m, Mapping) and "role" in m for m in messages)
    if not valid:
        raise ValueError(f"the layout must return a list of chat messages, got {messages!r:.80}")
    return cleaned(messages)


def as_messages(task: str | Sequence[Message]) -> list[Message]:
    """A task as chat messages."""
    return [{"role": "user", "content": task}] if isinstance(task, str) else list(task)


def turns(
    preamble: Sequence[Message], task: Sequence[Message], episodes: Sequence[Episode], instruction: str, style: Style
) -> list[Message]:
    """Append-only chat turns."""
    prompt = [*preamble, *task]
    settled = style.feedback.settled(episodes)
    for i, episode in enumerate(episodes):
        add_turn(prompt, episode, style, ends_settled=i == settled)
    instruct(prompt, instruction)
    return prompt


def add_turn(prompt: list[Message], episode: Episode, style: Style, *, ends_settled: bool = False) -> None:
    """Add what `turns` shows of an episode. Changes the list, and none of its messages.

    Args:
        prompt: the messages so far.
        episode: the next.
        style: what of it to show.
        ends_settled: whether later prompts show no more than its response as this one does.
    """
    if "response" in style.shows:
        instruct(prompt, style.text(episode["plan"]["instruction"]))
        if episode.get("steps"):  # as user text: a model must not learn to invent what it observes
            _add_text(prompt, _attempt_text(episode, style))
            return
        response = episode.get("response") or NO_ANSWER
        prompt.append({"role": "assistant", "content": Pieces([response, ""]) if ends_settled else response})
    _add_text(prompt, _outcome(episode, style))


def _attempt_text(episode: Episode, style: Style) -> str:
    """An attempt with its outcome, as a text."""
    attempt = block("attempt", played(episode, style)) if "response" in style.shows else ""
    return "\n".join(filter(None, [attempt, _outcome(episode, style)]))


def instruct(prompt: list[Message], instruction: str) -> None:
    """Add an instruction; where there is none, a turn of the assistant is answered all the same.

    Changes the list, and none of its messages.
    """
    unanswered = bool(prompt) and prompt[-1]["role"] == "assistant"
    _add_text(prompt, _instruct(instruction or (ANOTHER if unanswered else "")))


def transcript(
    preamble: Sequence[Message], task: Sequence[Message], episodes: Sequence[Episode], instruction: str, style: Style
) -> list[Message]:
    """One message with all attempts, then the task and the instruction."""
    attempts = list(filter(None, (_attempt_text(episode, style) for episode in episodes)))
    prompt = list(task)
    _add_text(prompt, _instruct(instruction))
    if attempts:
        ended = [f"{attempt}\n\n" for attempt in attempts]  # each piece with its end: tokenizers never join across it
        settled = style.feedback.settled(episodes)
        at = next((i for i, message in enumerate(task) if message["role"] != "system"), len(task))
        following = prompt[at : at + 1] if at in (0, len(task)) else []
        if following and following[0]["role"] == "user" and isinstance(following[0]["content"], str):
            tail = "".join([*ended[settled:], following[0]["content"]])
            prompt[at] = {**following[0], "content": Pieces([*ended[:settled], tail])}
        else:
            settled = min(settled, len(attempts) - 1)
            tail = "".join([*ended[settled:-1], attempts[-1]])
            prompt.insert(at, {"role": "user", "content": Pieces([*ended[:settled], tail])})
    return [*preamble, *prompt]


def played(episode: Episode, style: Style) -> str:
    """An attempt as text: its response; of one that was played in an environment, a line for each step.

    Such a line holds the action, the observation and, as far as a prompt may show it, the reward.
    """
    steps = episode.get("steps")
    if not steps:
        return episode.get("response") or NO_ANSWER
    shown = episode.get("shown", {}).get("steps", []) if "shown" in style.shows else []
    lines = [step_line(step) for step in steps]
    rewards = [f" ({reward_line(style.reward_label, value)})" for value in shown]
    return "\n".join(f"{line}{reward}" for line, reward in zip_longest(lines, rewards[: len(lines)], fillvalue=""))


LAYOUTS: Mapping[str, Layout] = {"turns": turns, "transcript": transcript}


def _outcome(episode: Episode, style: Style) -> str:
    lines = [CUT] if episode.get("cut") and "response" in style.shows else []
    shown: Reward = episode.get("shown", {})
    if "shown" in style.shows:
        lines.append(f"{style.reward_label}: {number(shown['value']) if 'value' in shown else 'hidden'}")
        if shown.get("steps") and not episode.get("steps"):  # else they stand with the steps
            lines.append(f"{style.reward_label} by step: {', '.join(map(number, shown['steps']))}")
        if shown.get("feedback"):
            lines.append(block("feedback", shown["feedback"]))
    if "reflection" in style.shows and episode.get("reflection"):
        lines.append(block("reflection", episode["reflection"]))
    return "\n".join(lines)


def _instruct(text: str) -> str:
    return block("instruction", text) if text else ""


def _add_text(prompt: list[Message], text: str) -> None:
    """Add text to the last user turn, or as a new one. Replaces the message, never changes it."""
    if not text:
        return
    if not prompt or prompt[-1]["role"] != "user":
        prompt.append({"role": "user", "content": text})
        return
    content = prompt[-1]["content"]
    if isinstance(content, str):
        longer: Any = f"{content}\n\n{text}"
    else:
        longer = [*content, {"type": "text", "text": text}]
    prompt[-1] = {**prompt[-1], "content": longer}


# -------------------------------------------------------------------------------------------------- blocks and parsing


_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_OUTCOME = re.compile(
    rf"""(?P<cut>{re.escape(CUT)}(?:\n|(?=\n\n|\Z)))?
        (?:(?P<label>[^\n:<>]{{1,60}}):\ (?P<value>unscored|hidden|{_NUMBER})
            (?:\n(?P=label)\ by\ step:\ (?P<steps>(?:unscored|{_NUMBER})(?:,\ (?:unscored|{_NUMBER}))*))?
            (?:\n<feedback>\n(?P<feedback>.*?)\n</feedback>)?
        )?
        (?:\n?<reflection>\n(?P<reflection>.*?)\n</reflection>)?
        (?=\n\n|\Z)""",
    re.X | re.S,
)
_ATTEMPT = re.compile(r"<attempt>\n(.*?)\n</attempt>(?:(?=\n\n)|\n|\Z)", re.S)
_OPENS = re.compile(r"(?:\A|\n\n)(?=<attempt>\n)")
_FURTHER = re.compile(r"\n\n(?:<instruction>\n(?:(?!</?instruction>).)*\n</instruction>\n\n)?(?=<attempt>\n)", re.S)
_INSTRUCTION = re.compile(r"(?:\A|\n\n)<instruction>\n((?:(?!</?instruction>).)*)\n</instruction>\Z", re.S)


class Attempt(NamedTuple):
    """One earlier attempt as a prompt shows it."""

    response: str
    value: float | None
    """The shown reward; None if it is unscored or hidden."""
    steps: tuple[float | None, ...] = ()
    feedback: str = ""
    reflection: str = ""
    cut: bool = False
    """Whether it ended at the limit of its tokens."""


class Prompt(NamedTuple):
    """What a prompt says."""

    task: str
    attempts: tuple[Attempt, ...]
    instruction: str


def parse(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """Read a prompt of either layout back: the inverse of `render` for every response, reward and instruction.

    An assistant turn counts as an attempt if the user turn after it opens with an outcome or with an instruction; so
    few-shot turns ahead of the task don't, unless they imitate one. Any reward label is read. Of a task that is a chat,
    its last turn is the task. A task that itself holds this markup is misread. Of an episode that was played
    in an environment, the response is what the prompt shows of it, step by step.
    """
    texts = [content_text(message.get("content")) for message in messages]
    tail = texts[-1] if texts else ""
    last = _INSTRUCTION.search(tail)
    instruction = unescape(last[1]) if last and last[1] != ANOTHER else ""
    attempts: list[Attempt] = []
    opening: str | None = None
    for i, message in enumerate(messages[:-1]):
        if message.get("role") != "assistant":
            continue
        outcome = _OUTCOME.match(texts[i + 1])
        if (outcome and outcome.end() > 0) or texts[i + 1].startswith("<instruction>\n"):
            opening = texts[i - 1] if opening is None and i > 0 else opening
            attempts.append(_attempt(texts[i], outcome))
    if attempts:
        return Prompt(_INSTRUCTION.sub("", opening or ""), tuple(attempts), instruction)
    for i, text in enumerate(texts):
        opens = _OPENS.search(text)
        attempts, end = _read_attempts(text, opens.end()) if opens else ([], 0)
        if opens and attempts:
            rest = text[end:].removeprefix("\n\n") if i == len(texts) - 1 else tail
            task = text[: opens.start()] or rest  # before the attempts in turns, after them in a transcript
            return Prompt(_INSTRUCTION.sub("", task), tuple(attempts), instruction)
    return Prompt(_INSTRUCTION.sub("", tail), (), instruction)


def _read_attempts(text: str, at: int) -> tuple[list[Attempt], int]:
    """The attempts from a position in a text on, and the position after the last one."""
    attempts, end = [], at
    while begun := _ATTEMPT.match(text, at):
        outcome = _OUTCOME.match(text, begun.end())
        attempts.append(_attempt(unescape(begun[1]), outcome))
        end = outcome.end() if outcome else begun.end()
        if (further := _FURTHER.match(text, end)) is None:
            break
        at = further.end()
    return attempts, end


def _attempt(response: str, outcome: re.Match[str] | None) -> Attempt:
    if outcome is None:
        return Attempt(response, None)
    steps = outcome["steps"].split(", ") if outcome["steps"] else []
    return Attempt(
        response,
        _value(outcome["value"]),
        tuple(map(_value, steps)),
        unescape(outcome["feedback"] or ""),
        unescape(outcome["reflection"] or ""),
        bool(outcome["cut"]),
    )


def _value(text: str | None) -> float | None:
    return None if text in (None, "unscored", "hidden") else float(text)
