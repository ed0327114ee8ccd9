"""The ContextBuilder: which episodes to show (memory), what to ask (schedule), how to lay it out (layout).

All pure, all on plain dictionaries. A prompt is never stored: the plan of an episode and the episodes before it give
the same prompt again, byte for byte.

`render` and `parse` are inverses. What a model says or an evaluator writes may hold anything, also what looks like our
own markup: inside a block it is escaped, and an assistant turn is left verbatim. So nobody can write himself a reward.

There are two layouts:

* "turns": the chat grows and nothing in it ever changes. The task and the first instruction, then for each attempt an
  assistant turn with the response, verbatim, and a user turn with its reward and the next instruction. Prompt k is a
  prefix of prompt k+1, which is what prompt caches want.
* "transcript": one message with all attempts and their rewards, then the task and the instruction (the form of arXiv
  2506.06303).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random
from typing import Any, Literal, NamedTuple, TypeVar

from icrl_graph.prompts import INSTRUCTIONS, NO_ANSWER
from icrl_graph.rewards import Reward
from icrl_graph.state import Episode, Message, Plan, Step

Memory = Callable[[Sequence[Episode]], list[int]]
"""Which of the earlier episodes to show, as indices. It sees the episodes without their true reward."""
Schedule = Callable[[int, Sequence[Episode]], str]
"""The name of the instruction for a round (from 0), or a text of its own. It sees what a memory sees."""
Layout = Callable[[Sequence[Message], Sequence[Message], Sequence[Episode], str, "Style"], list[Message]]
"""(preamble, task, episodes to show, instruction text, style) -> the prompt."""
Shows = tuple[Literal["response", "shown", "reflection"], ...]
"""What of each episode a prompt shows."""

Part = TypeVar("Part")


def pick(kind: str, name: str, parts: Mapping[str, Part]) -> Part:
    """The part of that name.

    Raises:
        ValueError: there is none; names the choices.
    """
    if not isinstance(name, str) or name not in parts:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(map(repr, parts))}")
    return parts[name]


# ------------------------------------------------------------------------------------------------------- memory: which


def everything(past: Sequence[Episode]) -> list[int]:
    """All episodes."""
    return list(range(len(past)))


def nothing(past: Sequence[Episode]) -> list[int]:
    """No episode: every attempt starts from the task alone."""
    return []


def last(k: int) -> Memory:
    """The k latest episodes."""
    return lambda past: list(range(max(0, len(past) - k), len(past)))


def best(k: int) -> Memory:
    """The k episodes with the highest *shown* reward, in order of arrival; of a tie the earlier, the unscored last."""

    def choose(past: Sequence[Episode]) -> list[int]:
        def rank(i: int) -> float:
            value = past[i].get("shown", {}).get("value")
            return -math.inf if value is None else value

        return sorted(sorted(range(len(past)), key=rank, reverse=True)[:k])

    return choose


def positive(share: float) -> Memory:
    """Episodes with a *shown* reward above 0, each with probability `share`, drawn anew for every round.

    The draw depends on the round and on what the attempts say: the same for a run that is repeated or resumed.

    That of explorative in-context reinforcement learning (arXiv 2410.05362), whose share is its p_keep.
    """

    def choose(past: Sequence[Episode]) -> list[int]:
        earned = [i for i, episode in enumerate(past) if (episode.get("shown", {}).get("value") or 0.0) > 0]
        seeds = (f"{len(past)}/{i}/{past[i].get('response')}".encode(errors="surrogatepass") for i in earned)
        draws = (Random(seed).random() for seed in seeds)
        return [i for i, draw in zip(earned, draws, strict=True) if draw < share]

    return choose


def reflections(k: int) -> Memory:
    """The k latest episodes that were reflected on."""
    return lambda past: [i for i, episode in enumerate(past) if episode.get("reflection")][-k:]


def tokens(limit: int) -> Memory:
    """The latest episodes that fit into about `limit` tokens (four characters each).

    Evicts in chunks: when the limit is passed, the oldest go until half of it is free. In between the prompt only
    grows, so a prompt cache misses once per chunk and not once per round. The latest episode always stays.
    """

    def choose(past: Sequence[Episode]) -> list[int]:
        sizes = [_tokens(episode) for episode in past]
        start, total = 0, 0
        for i, size in enumerate(sizes):
            total += size
            if total > limit:
                while start < i and total > limit / 2:
                    total -= sizes[start]
                    start += 1
        return list(range(start, len(past)))

    return choose


def _tokens(episode: Episode) -> int:
    """Estimated tokens of an episode: four characters each, and a few for the markup around it."""
    steps = [f"{step_line(step)} (Reward: -0.123)\n" for step in episode.get("steps", [])]
    said = "".join(steps) or episode.get("response", "")
    told = (said, episode.get("shown", {}).get("feedback", ""), episode.get("reflection", ""))
    return sum(map(len, told)) // 4 + 16


_FIXED: Mapping[str, Memory] = {"all": everything, "none": nothing}
_SIZED: Mapping[str, Callable[[int], Memory]] = {
    "last": last,
    "best": best,
    "tokens": tokens,
    "reflections": reflections,
}
MEMORIES = (*_FIXED, *(f"{name}:N" for name in _SIZED), "positive:P")


def memory(spec: str) -> Memory:
    """The memory of that name: "all", "none", "last:5", "best:3", "tokens:8000" or "positive:0.5".

    Raises:
        ValueError: no such memory, or its number is out of range.
    """
    name, colon, size = spec.partition(":")
    if not colon and name in _FIXED:
        return _FIXED[name]
    if name in _SIZED and size.isascii() and size.isdigit() and int(size) > 0:
        return _SIZED[name](int(size))
    if name == "positive" and re.fullmatch(r"0?\.\d+|1(\.0*)?", size) and float(size) > 0:
        return positive(float(size))
    raise ValueError(
        f"unknown memory {spec!r}; choose one of {', '.join(MEMORIES)}, with N above 0 and P above 0, at most 1"
    )


# ------------------------------------------------------------------------------------------------ schedule: what to ask


def _preset(round: int, past: Sequence[Episode]) -> str:
    return "explore" if round % 2 == 0 else "exploit"


def _always(name: str) -> Schedule:
    return lambda round, past: name


def _after_the_first(name: str) -> Schedule:
    return lambda round, past: name if past else "plain"


SCHEDULES: Mapping[str, Schedule] = {
    "preset": _preset,
    **{name: _always(name) for name in ("autonomous", "explore", "exploit", "plain", "cot", "long_cot")},
    **{name: _after_the_first(name) for name in ("retry", "refine")},
}
"""preset: even rounds explore, odd rounds exploit, counted from 0 (arXiv 2506.06303). retry and refine: the
first round is plain. The others never change."""


def make_plan(round: int, past: Sequence[Episode], memory: Memory, schedule: Schedule, warmup: int = 0) -> Plan:
    """Decide what the prompt of a round is made of; the first `warmup` rounds show no history."""
    visible = past if is_ours(memory) and is_ours(schedule) else [_without_truth(episode) for episode in past]
    shown = sorted(memory(visible)) if round >= warmup else []
    if shown and not 0 <= shown[0] <= shown[-1] < len(past):
        raise ValueError(f"the memory chose the episodes {shown}; there are {len(past)}, counted from 0")
    plan = Plan(shown=_ranges(shown), instruction=schedule(round, visible), left_out=len(past) - len(set(shown)))
    first = past[-1].get("plan", {}).get("first", 0) if past else 0
    return _from(plan, first) if first else plan


def shrink(plan: Plan) -> Plan | None:
    """A plan for a prompt that did not fit: without the older half of what it showed; None if it showed nothing.

    Half of it, so that the prompts of the next rounds fit too, and only grow again: a prompt cache misses once.
    """
    shown = [i for start, end in plan["shown"] for i in range(start, end)]
    if not shown:
        return None
    kept = shown[(len(shown) + 1) // 2 :]
    return _from(plan, kept[0] if kept else shown[-1] + 1)


def _from(plan: Plan, first: int) -> Plan:
    """The plan without the episodes before one."""
    shown = [i for start, end in plan["shown"] for i in range(start, end)]
    kept = [i for i in shown if i >= first]
    left_out = plan["left_out"] + len(shown) - len(kept)
    return Plan(shown=_ranges(kept), instruction=plan["instruction"], left_out=left_out, first=first)


def is_ours(part: Callable[..., Any]) -> bool:
    """Whether it is defined here, and so needs no copies: it changes nothing and does not look at the true reward."""
    return getattr(part, "__module__", None) == __name__


def _without_truth(episode: Episode) -> Episode:
    """What memories, schedules and layouts are handed: a copy, without the true reward."""
    visible: Any = {key: value for key, value in episode.items() if key not in ("reward", "retests", "selection")}
    if "shown" in visible:
        visible["shown"] = dict(visible["shown"])
    if "steps" in visible:
        seen = ("action", "thought", "observation")
        visible["steps"] = [{name: step[name] for name in seen if name in step} for step in visible["steps"]]
    copy: Episode = visible
    return copy


def _ranges(indices: Sequence[int]) -> list[list[int]]:
    out: list[list[int]] = []
    for i in indices:
        if out and out[-1][1] >= i:
            out[-1][1] = i + 1
        else:
            out.append([i, i + 1])
    return out


# ------------------------------------------------------------------------------------------ layout: how it is laid out


class Pieces(str):
    """A text that knows where a prompt cache may cut it. To everybody else, and stored, it is a text like any other.

    Attributes:
        pieces: what it is made of, in order. The prompts of later rounds open with the same pieces, but for the last.
    """

    pieces: tuple[str, ...]

    def __new__(cls, pieces: Iterable[str]) -> Pieces:
        """The text that these pieces make."""
        kept = tuple(pieces)
        text = super().__new__(cls, "".join(kept))
        text.pieces = kept
        return text


def flat(messages: Sequence[Message]) -> list[Message]:
    """The messages, each text in one piece: for what goes where only plain types are known."""
    pieced = (isinstance(message["content"], Pieces) for message in messages)
    return [{**m, "content": str(m["content"])} if cut else m for m, cut in zip(messages, pieced, strict=True)]


@dataclass(frozen=True)
class Style:
    """What is the same for every prompt of a run."""

    shows: Shows = ("response", "shown")
    label: str = "Reward"
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)

    def text(self, instruction: str) -> str:
        """The text of an instruction; a schedule's own text stands for itself."""
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
    shown = chosen(past, plan)
    visible = shown if is_ours(layout) else [_without_truth(episode) for episode in shown]
    return layout(preamble, as_messages(task), visible, style.text(plan["instruction"]), style)


def chosen(past: Sequence[Episode], plan: Plan) -> list[Episode]:
    """The episodes that a plan shows."""
    return [episode for start, end in plan["shown"] for episode in past[start:end]]


def as_messages(task: str | Sequence[Message]) -> list[Message]:
    """A task as chat messages."""
    return [{"role": "user", "content": task}] if isinstance(task, str) else list(task)


def turns(
    preamble: Sequence[Message], task: Sequence[Message], episodes: Sequence[Episode], instruction: str, style: Style
) -> list[Message]:
    """Append-only chat turns."""
    prompt = [*preamble, *task]
    for episode in episodes:
        add_turn(prompt, episode, style)
    instruct(prompt, instruction)
    return prompt


def add_turn(prompt: list[Message], episode: Episode, style: Style) -> None:
    """Add what `turns` shows of an episode. Changes the list, and none of its messages."""
    if "response" in style.shows:
        instruct(prompt, style.text(episode["plan"]["instruction"]))
        if episode.get("steps"):  # told, not said: a model is not to learn to invent what it observes
            _say(prompt, _told_attempt(episode, style))
            return
        prompt.append({"role": "assistant", "content": episode.get("response") or NO_ANSWER})
    _say(prompt, _outcome(episode, style))


def _told_attempt(episode: Episode, style: Style) -> str:
    """An attempt with its outcome, as a text."""
    attempt = block("attempt", played(episode, style)) if "response" in style.shows else ""
    return "\n".join(filter(None, [attempt, _outcome(episode, style)]))


def instruct(prompt: list[Message], instruction: str) -> None:
    """Add an instruction. Changes the list, and none of its messages."""
    _say(prompt, _instruct(instruction))


def transcript(
    preamble: Sequence[Message], task: Sequence[Message], episodes: Sequence[Episode], instruction: str, style: Style
) -> list[Message]:
    """One message that tells all attempts, then the task and the instruction."""
    told = list(filter(None, (_told_attempt(episode, style) for episode in episodes)))
    prompt = list(task)
    _say(prompt, _instruct(instruction))
    if told:
        ended = [f"{attempt}\n\n" for attempt in told]  # each piece with its end: tokenizers never join across it
        at = next((i for i, message in enumerate(task) if message["role"] != "system"), len(task))
        behind = prompt[at : at + 1] if at in (0, len(task)) else []
        if behind and behind[0]["role"] == "user" and isinstance(behind[0]["content"], str):
            prompt[at] = {**behind[0], "content": Pieces([*ended, behind[0]["content"]])}
        else:
            prompt.insert(at, {"role": "user", "content": Pieces([*ended[:-1], told[-1]])})
    return [*preamble, *prompt]


def played(episode: Episode, style: Style) -> str:
    """An attempt as it is told: its response; of one that was played in an environment, a line for each step.

    Such a line holds the action, what came of it and, as far as a prompt may know it, the reward.
    """
    steps = episode.get("steps")
    if not steps:
        return episode.get("response") or NO_ANSWER
    shown = episode.get("shown", {}).get("steps", []) if "shown" in style.shows else []
    lines = [step_line(step) for step in steps]
    rewards = [f" ({reward_line(style.label, value)})" for value in shown]
    return "\n".join(f"{line}{reward}" for line, reward in zip_longest(lines, rewards[: len(lines)], fillvalue=""))


def step_line(step: Step) -> str:
    """A step on one line."""
    return f"{step['action']} -> {' '.join(step.get('observation', '').split())}"


def reward_line(label: str, value: float | None) -> str:
    """A reward under its label."""
    return f"{label}: {number(value)}"


LAYOUTS: Mapping[str, Layout] = {"turns": turns, "transcript": transcript}


def number(value: float | None) -> str:
    """A reward as it stands in a prompt: up to six significant digits."""
    return "unscored" if value is None else format(value, ".6g")


def _outcome(episode: Episode, style: Style) -> str:
    lines = []
    shown: Reward = episode.get("shown", {})
    if "shown" in style.shows:
        lines.append(f"{style.label}: {number(shown['value']) if 'value' in shown else 'hidden'}")
        if shown.get("steps") and not episode.get("steps"):  # else they stand with the steps
            lines.append(f"{style.label} by step: {', '.join(map(number, shown['steps']))}")
        if shown.get("feedback"):
            lines.append(block("feedback", shown["feedback"]))
    if "reflection" in style.shows and episode.get("reflection"):
        lines.append(block("reflection", episode["reflection"]))
    return "\n".join(lines)


def _instruct(text: str) -> str:
    return block("instruction", text) if text else ""


def _say(prompt: list[Message], text: str) -> None:
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

_TAGS = "attempt|feedback|reflection|instruction"
_MARKUP = re.compile(rf"<(\\*/?(?:{_TAGS})>)")
_ESCAPED = re.compile(rf"<\\(\\*/?(?:{_TAGS})>)")


def block(tag: str, text: str) -> str:
    """A text between tags, with whatever looks like our own markup in it escaped."""
    escaped = _MARKUP.sub(r"<\\\1", text)
    return f"<{tag}>\n{escaped}\n</{tag}>"


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"<\1", text)


_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_OUTCOME = re.compile(
    rf"""(?:(?P<label>[^\n:<>]{{1,60}}):\ (?P<value>unscored|hidden|{_NUMBER})
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


class Prompt(NamedTuple):
    """What a prompt says."""

    task: str
    attempts: tuple[Attempt, ...]
    instruction: str


def parse(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """Read a prompt of either layout back: the inverse of `render` for every response, reward and instruction.

    An assistant turn counts as an attempt if the user turn after it opens with an outcome or with an instruction; so
    few-shot turns ahead of the task don't, unless they imitate one. Whatever label the reward has is read. Of a task
    that is a chat, its last turn is the task. A task that holds markup of ours is not told apart from it. Of an episode
    that was played in an environment, the response is what a prompt tells of it, step by step.
    """
    texts = [_text(message.get("content")) for message in messages]
    tail = texts[-1] if texts else ""
    asked = _INSTRUCTION.search(tail)
    instruction = _unescape(asked[1]) if asked else ""
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
        told = _told(text, opens.end()) if (opens := _OPENS.search(text)) else []
        if opens and told:
            behind = text[told[-1][1] :].removeprefix("\n\n") if i == len(texts) - 1 else tail
            task = text[: opens.start()] or behind  # in turns it stands ahead of them, in a transcript behind
            return Prompt(_INSTRUCTION.sub("", task), tuple(attempt for attempt, _ in told), instruction)
    return Prompt(_INSTRUCTION.sub("", tail), (), instruction)


def _told(text: str, at: int) -> list[tuple[Attempt, int]]:
    """The attempts that are told from a place in a text on, each with the position behind it."""
    told = []
    while begun := _ATTEMPT.match(text, at):
        outcome = _OUTCOME.match(text, begun.end())
        told.append((_attempt(_unescape(begun[1]), outcome), outcome.end() if outcome else begun.end()))
        if (further := _FURTHER.match(text, told[-1][1])) is None:
            break
        at = further.end()
    return told


def _attempt(response: str, outcome: re.Match[str] | None) -> Attempt:
    if outcome is None:
        return Attempt(response, None)
    steps = outcome["steps"].split(", ") if outcome["steps"] else []
    return Attempt(
        response,
        _value(outcome["value"]),
        tuple(map(_value, steps)),
        _unescape(outcome["feedback"] or ""),
        _unescape(outcome["reflection"] or ""),
    )


def _value(text: str | None) -> float | None:
    return None if text in (None, "unscored", "hidden") else float(text)


def text_of(task: str | Sequence[Message]) -> str:
    """A task as text: of a chat, what its messages say."""
    return task if isinstance(task, str) else "\n\n".join(_text(message.get("content")) for message in task)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    told = [part["text"] for part in content or [] if isinstance(part, Mapping) and "text" in part]
    ended = [text if text.endswith("\n\n") else f"{text}\n\n" for text in told[:-1]]  # a transcript's pieces do
    return "".join([*ended, *told[-1:]])
