"""Schedules, spreads, and the plan of a prompt: which episodes it shows, and what it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import takewhile
from operator import index
from random import Random
from typing import Any

from icrl_graph.prompts.memory import Memory, remembered
from icrl_graph.prompts.templates import DIFFER, fill
from icrl_graph.state.episode import Episode, Plan
from icrl_graph.state.unicode import cleaned

Schedule = Callable[[int, Sequence[Episode]], str]
"""The name of the instruction for a round (from 0), or its text. It sees what a memory sees."""

Spread = Callable[[str, int, int], str]
"""What one of several attempts of a round is asked for, of the round's instruction, its number (from 0) and theirs."""


def _preset(round: int, past: Sequence[Episode]) -> str:
    return "explore" if round % 2 == 0 else "exploit"


def always(name: str) -> Schedule:
    """Asks for the same in every round."""
    return lambda round, past: name


def _after_the_first(name: str) -> Schedule:
    return lambda round, past: name if past else "plain"


SCHEDULES: Mapping[str, Schedule] = {
    "preset": _preset,
    **{name: always(name) for name in ("autonomous", "explore", "exploit", "plain", "cot", "long_cot")},
    **{name: _after_the_first(name) for name in ("retry", "refine", "aggregate")},
}
"""preset: even rounds explore, odd rounds exploit, counted from 0 (arXiv 2506.06303). retry, refine and
aggregate: the first round is plain. The others never change."""


def _same(instruction: str, candidate: int, width: int) -> str:
    return instruction


def _explore(instruction: str, candidate: int, width: int) -> str:
    return "explore" if candidate else instruction


def _differ(instruction: str, candidate: int, width: int) -> str:
    return fill(DIFFER, width=width, number=candidate + 1) if width > 1 else instruction


SPREADS: Mapping[str, Spread] = {"same": _same, "explore": _explore, "differ": _differ}
"""same: all of them the same. explore: all but the first explore. differ: each is told its number, and by that to go
another way than the others."""


def spread_plans(plans: Sequence[Plan], spread: Spread) -> list[Plan]:
    """The plans of the attempts of a round, each asked for what the spread says."""
    asked = [spread(plan["instruction"], candidate, len(plans)) for candidate, plan in enumerate(plans)]
    for instruction in asked:
        if not isinstance(instruction, str):
            raise ValueError(f"the spread must return the name of an instruction or a text, got {instruction!r:.80}")
    return [{**plan, "instruction": cleaned(text)} for plan, text in zip(plans, asked, strict=True)]


def make_plan(
    round: int,
    past: Sequence[Episode],
    memory: Memory,
    schedule: Schedule,
    warmup: int = 0,
    switched: int | None = None,
    random: Random | None = None,
) -> Plan:
    """Decide what the prompt of a round is made of; the first `warmup` rounds show no history.

    `switched` is the round from which on the run plays with another model, memory or schedule, if it does; `random`
    what a memory draws from, if it draws.
    """
    try:
        shown = sorted(map(index, remembered(memory, _visible_to(memory, past), random))) if round >= warmup else []
    except TypeError as error:
        raise ValueError(f"the memory must return the indices of the episodes to show: {error}") from error
    if shown and not 0 <= shown[0] <= shown[-1] < len(past):
        raise ValueError(f"the memory chose the episodes {shown}; there are {len(past)}, counted from 0")
    instruction = schedule(round, _visible_to(schedule, past))
    if not isinstance(instruction, str):
        raise ValueError(f"the schedule must return the name of an instruction or a text, got {instruction!r:.80}")
    plan = Plan(shown=_ranges(shown), instruction=cleaned(instruction), left_out=len(past) - len(set(shown)))
    if switched is not None:
        plan["switched"] = switched
    first = max((each.get("plan", {}).get("first", 0) for each in latest_round(past)), default=0)
    return _from(plan, first) if first else plan


def latest_round(past: Sequence[Episode]) -> list[Episode]:
    """The attempts of the latest round."""
    return list(takewhile(lambda episode: episode["round"] == past[-1]["round"], reversed(past)))[::-1]


def _visible_to(part: Callable[..., Any], past: Sequence[Episode]) -> Sequence[Episode]:
    """What a memory or a schedule is handed: a custom one gets copies, without the true reward."""
    return past if is_builtin(part) else [_hide_true_reward(episode) for episode in past]


def shrink(plan: Plan) -> Plan | None:
    """A plan for a prompt that did not fit: without the older half of what it showed; None if it showed nothing.

    Half of it, so that the prompts of the next rounds fit too, and only grow again: a prompt cache misses once.
    """
    shown = [i for start, end in plan["shown"] for i in range(start, end)]
    if not shown:
        return None
    left = shown[(len(shown) + 1) // 2 :]
    return _from(plan, left[0] if left else shown[-1] + 1)


def _from(plan: Plan, first: int) -> Plan:
    """The plan without the episodes before one."""
    shown = [i for start, end in plan["shown"] for i in range(start, end)]
    left = [i for i in shown if i >= first]
    left_out = plan["left_out"] + len(shown) - len(left)
    return {**plan, "shown": _ranges(left), "left_out": left_out, "first": first}


def is_builtin(part: Callable[..., Any]) -> bool:
    """Whether it is one of this package, and so needs no copies: it changes nothing and never reads the true reward."""
    return getattr(part, "__module__", "").rpartition(".")[0] == __package__


def _hide_true_reward(episode: Episode) -> Episode:
    """What memories, schedules and layouts are handed: a copy, without the true reward and the model's reasoning."""
    hidden = ("reward", "passes", "retests", "reported", "selection", "reasoning")
    visible: Any = {key: value for key, value in episode.items() if key not in hidden}
    if "steps" in visible:
        names = ("action", "thought", "observation")
        visible["steps"] = [{name: step[name] for name in names if name in step} for step in visible["steps"]]
    copy: Episode = deepcopy(visible)
    return copy


def _ranges(indices: Sequence[int]) -> list[list[int]]:
    out: list[list[int]] = []
    for i in indices:
        if out and out[-1][1] >= i:
            out[-1][1] = i + 1
        else:
            out.append([i, i + 1])
    return out


def chosen(past: Sequence[Episode], plan: Plan) -> list[Episode]:
    """The episodes that a plan shows."""
    return [episode for start, end in plan["shown"] for episode in past[start:end]]
