"""The state of a loop: plain JSON-able dictionaries, and pure functions over them.

An episode is a record that the nodes fill in: `build_context` opens it with its plan, `generate` answers it,
`evaluate` scores it. Each node writes a *patch* that names its episode by (round, candidate); the reducer `upsert`
merges it. So a response is stored once, a failure is just a field, and the same nodes serve a loop and a fan-out.

`reward` is the truth, `shown` is what prompts may see of it. Whatever builds a prompt reads `shown` only; whatever
stops, selects or reports reads `reward` only.

The channels are delta channels: LangGraph stores the writes, not the whole list again after every step. What is
written once and never changes (the task, the settings) is stored once too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, Literal, NotRequired

from langgraph.channels import DeltaChannel, EphemeralValue
from pydantic import Field
from typing_extensions import TypedDict

from icrl_graph.state.reward import Reward
from icrl_graph.state.unicode import cleaned

Message = dict[str, Any]
"""A chat message in OpenAI's format: role and content."""


class Plan(TypedDict):
    """What a prompt was made of; with the earlier episodes it makes the same prompt again."""

    shown: list[list[int]]
    """Half-open ranges into the list of episodes: what the prompt shows."""
    instruction: str
    """The name of the instruction, or the text that a schedule gave."""
    left_out: int
    """How many earlier episodes it does not show."""
    first: NotRequired[int]
    """No prompt from here on shows an episode before this one: with them it did not fit into the model's context."""
    switched: NotRequired[int]
    """The round from which on the run plays with another model, memory or schedule; absent before it."""
    program: NotRequired[str]
    """The program of another library that wrote the prompts: they can't be made again."""


class Step(TypedDict, total=False):
    """One turn of an episode that was played in an environment."""

    action: str
    thought: str
    """What the model wrote before its action."""
    reasoning: str
    """The reasoning that came with it. Never shown to a model or an evaluator."""
    cut: bool
    """Whether the reply that it was read from ended at the limit of its tokens."""
    observation: str
    reward: float
    """The truth, like the episode's. Never read by anything that builds a prompt."""
    done: bool
    success: bool
    info: dict[str, Any]
    """What else the environment gives; of the last step only."""


class Usage(TypedDict, total=False):
    """What was spent."""

    calls: int
    """Paid calls."""
    input: int
    """Tokens read, the cached ones included."""
    cached: int
    """Of these, tokens served from the provider's prompt cache."""
    written: int
    """Of these, tokens that the provider has put into its prompt cache, and may charge more for. Absent where none."""
    written_1h: int
    """Of these, tokens that it keeps for an hour."""
    output: int
    """Tokens written, reasoning included."""
    reasoning: int
    """Of these, reasoning tokens."""
    usd: float
    """US dollars, as far as prices are known."""
    unpriced: int
    """Replies with tokens whose price is unknown."""
    estimated: int
    """Replies whose tokens are estimated by their text, because the server reported none. Absent where none."""
    breaks: int
    """Prompts that did not begin with the one before: a provider's prompt cache was of no use."""
    seconds: float
    """Time waited for."""


class Episode(TypedDict, total=False):
    """One attempt at the task, keyed by round and candidate."""

    round: int
    """From 0."""
    candidate: int
    """From 0; above 0 only where several attempts share a round: side by side, none sees the others."""
    model: str
    """Which of a topology's models wrote it, by its name there. Absent where there is one model alone."""
    plan: Plan
    response: str
    """The model's words, verbatim but for its reasoning. Absent if there are none; `error` then says why."""
    reasoning: str
    """Its reasoning, as far as it came along. For reports alone: neither a model nor an evaluator sees it."""
    finish_reason: str
    """Why the reply ended, in its provider's word. Absent where it does not say."""
    cut: bool
    """Whether it ended at the limit of its tokens, not where the model meant it to."""
    answer: Any
    """What `extract` made of the response. Absent without `extract`."""
    steps: list[Step]
    costs: dict[str, Usage]
    """What each node has spent on it: generate, evaluate, reflect, select."""
    error: str
    """Why there is no response or no answer."""
    error_kind: Literal["reply", "call", "cap"]
    """Where it comes from: "reply", the model has replied, and was paid, without an answer; "call", the call failed;
    "cap", it would have passed a cap. Runs of earlier versions have none."""
    reward: Reward
    """The truth. Never read by anything that builds a prompt."""
    shown: Reward
    """What prompts may see of the reward."""
    reflection: str
    """What the model wrote about the attempt: Reflexion's reflection, Self-Refine's feedback."""
    reflection_error: str
    """Why there is no reflection where there should be one."""
    passes: list[float | None]
    """What its evaluator gave it, pass by pass, where a success takes several and it came to a second one."""
    retests: list[float]
    """What its evaluator gave it when it was judged again, as one of the leaders, as often as all of them could be."""
    reported: list[Reward]
    """Of the answer, where the leaders were to be judged again: the later judgements that did not choose it, which are
    what is reported; value and metric alone. A single unscored one says why there are none."""
    selection: Reward
    """What the selector gave it, where one other than the reward selects."""
    warning: str
    """What the server seems to have done without a word, such as cutting the prompt; told once in a run."""


def upsert(episodes: list[Episode] | None, writes: Sequence[list[Episode]]) -> list[Episode]:
    """The reducer: append new episodes, merge patches into known ones.

    Pure; folding the writes in one go or one by one gives the same list.
    """
    out = list(episodes or [])
    for patch in (patch for write in writes for patch in write):
        at = next((i for i in range(len(out) - 1, -1, -1) if _key(out[i]) <= _key(patch)), -1)
        if at >= 0 and _key(out[at]) == _key(patch):
            out[at] = {**out[at], **patch}
        else:
            out.insert(at + 1, patch)
    return out


def _key(episode: Episode) -> tuple[int, int]:
    return episode["round"], episode["candidate"]


def keep_last(old: Any, writes: Sequence[Any]) -> Any:
    """The reducer of a value that is written rarely."""
    return writes[-1] if writes else old


def latest(old: str | None, new: str | None) -> str | None:
    """The reducer of a value that several nodes may write in one step: the last one counts."""
    return new


class Input(TypedDict, total=False):
    """What a graph takes."""  # described in its schema, for Studio and /mcp

    task: Annotated[str | list[Message], Field(description="The task: text, or chat messages in OpenAI's format.")]
    task_data: Annotated[
        dict[str, Any],
        Field(description="For the evaluator and the environment only; it never reaches a prompt."),
    ]
    more: Annotated[
        int, Field(description="Instead of a task: resume the thread's latest run for this many more rounds.")
    ]


class Output(TypedDict, total=False):
    """What a graph gives, written once at the end."""

    answer: Any
    """The answer of the episode that the method chose, the best by its reward or another (what `extract` made of its
    response); None if no attempt gave one, or if a selector could value none."""
    reward: float | None
    """The reward of that episode; None if it is unscored. With `retests` the mean of those judgements that did not
    choose it, None if there are none: what it was chosen by is too good on average."""
    metric: float | None
    """Its metric; where the evaluator gives it with the reward, of the same judgements as that."""
    regret: float | None
    """How much higher the best metric among all attempts is than that of the answer: what an oracle would have selected
    better. None if either is missing, and with `retests` where no separate metric is there: the best of noisy numbers
    is too good on average."""
    rewarded_by: str | None
    """Who gave the rewards: "oracle" (a function or tool), "judged" (what may hold a model), "self-judged" (the model
    itself) or "human"."""
    rounds_done: int
    stopped: str | None
    """Why it ended: rounds, success, plateau, gain, calls, tokens, usd, time, failures (of the model), evaluator,
    error (a program of another library has raised) or agent (other middleware has ended it)."""
    usage: Usage


_Once: Any = DeltaChannel(keep_last, snapshot_frequency=1000)
_Episodes: Any = DeltaChannel(upsert, snapshot_frequency=1000)  # counts patches, three a round


class _Cleaned(EphemeralValue[Any]):
    """An input, cleaned before it is stored: PostgreSQL would refuse NUL in it before `prepare` sees it."""

    def update(self, values: Sequence[Any]) -> bool:
        return super().update(cleaned(values))


class LoopState(Output, total=False):
    """All that a checkpoint holds."""

    stopped: Annotated[str | None, latest]
    """As in the output; several attempts of a round may be stopped at once."""
    task: Annotated[str | list[Message], _Cleaned]
    """The input; `prepare` alone sees it, and saves it under `inputs`."""
    task_data: Annotated[dict[str, Any], _Cleaned]
    more: Annotated[int, EphemeralValue]
    inputs: Annotated[dict[str, Any], _Once]
    """The task, checked, and the task data, under their names."""
    settings: Annotated[dict[str, Any], _Once]
    """The run's settings, saved by `prepare`, with the schema version, a run id and the names of the parts."""
    episodes: Annotated[list[Episode], _Episodes]


def value_of(episode: Episode) -> float | None:
    """The reward's value; None while or if there is none."""
    return episode.get("reward", {}).get("value")


def rewards_of(episodes: Iterable[Episode]) -> list[float | None]:
    """The reward of each attempt; None of one without a score."""
    return [reward.get("value") if (reward := episode.get("reward")) else None for episode in episodes]


def is_reflected_on(episode: Episode) -> bool:
    """Whether words about the attempt were asked for, in vain or not."""
    return "reflection" in episode or "reflection_error" in episode


def answer_of(episode: Episode) -> Any:
    """What `extract` made of the response, or the response; None if there is neither."""
    return episode["answer"] if "answer" in episode else episode.get("response")


def answer_text(output: Mapping[str, Any]) -> str:
    """The answer of a run that has ended, as text, for whoever takes nothing else: one with a form as JSON."""
    answer = output.get("answer")
    if answer is None:
        return f"No answer was found; it ended by: {output.get('stopped')}."
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def error_of(episode: Episode) -> str | None:
    """What went wrong with an attempt, its judgement or the words about it; None if nothing did."""
    return episode.get("error") or episode.get("reward", {}).get("error") or episode.get("reflection_error")


def reasoning_of(episode: Episode) -> str:
    """Its reasoning; of one that was played in an environment, that of each action."""
    steps = [f"{step['action']}: {step['reasoning']}" for step in episode.get("steps", []) if "reasoning" in step]
    return "\n\n".join(filter(None, [*steps, episode.get("reasoning")]))


def warnings_of(episodes: Iterable[Episode]) -> list[str]:
    """What the server seems to have done without a word, each thing once."""
    return list(dict.fromkeys(episode["warning"] for episode in episodes if "warning" in episode))


def outgrown(episodes: Iterable[Episode]) -> str | None:
    """That the history has outgrown the model's context, and from which round on; None if it has not."""
    cut = next((episode["round"] + 1 for episode in episodes if episode.get("plan", {}).get("first")), None)
    if cut is None:
        return None
    return (
        f"from round {cut} on prompts leave out the oldest attempts: all together do not fit into the model's context"
    )


def switched(episode: Episode) -> int | None:
    """The round from which on a run plays with what it has switched to, as of an episode; None before it."""
    return episode.get("plan", {}).get("switched")


def told_switch(episodes: Iterable[Episode]) -> str | None:
    """That a run has switched to another model, memory or schedule, and when; None if it has not."""
    since = next((at for each in episodes if (at := switched(each)) is not None), None)
    return None if since is None else f"switched before round {since + 1}, as nothing had improved"


def is_lost(episode: Episode) -> bool:
    """Whether the provider has lost the attempt: its call failed, so that nothing is known of the method.

    A reply without an answer, empty, refused or not in the asked-for form, is an attempt that the method has made.
    """
    return "response" not in episode and "error" in episode and episode.get("error_kind", "call") == "call"


def add_usage(*usages: Usage) -> Usage:
    """The sum, key by key."""
    total: Any = {}
    for usage in usages:
        for key, amount in usage.items():
            total[key] = total.get(key, 0) + amount
    summed: Usage = total
    return summed


def side_by_side(usages: Sequence[Usage]) -> Usage:
    """The sum, but the longest time, of what ran side by side."""
    total = add_usage(*usages)
    if "seconds" in total:
        total["seconds"] = max(usage.get("seconds", 0.0) for usage in usages)
    return total


def cost_of(episode: Episode) -> Usage:
    """What an episode has cost so far, all nodes together."""
    return add_usage(*episode.get("costs", {}).values())


def paid_calls(episode: Episode, node: str) -> int:
    """How many paid calls a node has made for an episode so far."""
    return episode.get("costs", {}).get(node, {}).get("calls", 0)


def spent(episodes: Iterable[Episode]) -> Usage:
    """What all these episodes have cost; each node serves the candidates of a round side by side."""
    total: Any = {"calls": 0, "seconds": 0.0}
    for _, group in groupby(episodes, key=itemgetter("round")):
        candidates = list(group)  # mostly one: after each round all rounds are summed, so this has to be quick
        costs = candidates[0].get("costs", {}).values() if len(candidates) == 1 else [_of_round(candidates)]
        for usage in costs:
            for key, amount in usage.items():
                total[key] = total.get(key, 0) + amount
    whole: Usage = total
    return whole


def _of_round(candidates: Sequence[Episode]) -> Usage:
    nodes = dict.fromkeys(node for each in candidates for node in each.get("costs", {}))
    return add_usage(*(side_by_side([each.get("costs", {}).get(node, {}) for each in candidates]) for node in nodes))


def spent_by_model(episodes: Iterable[Episode], words_of: str | None = None) -> dict[str, Usage]:
    """What these episodes have cost, told apart by who was paid, in the order of the first call.

    Args:
        episodes: of one run.
        words_of: a part other than the models of the attempts that writes the words about them, such as "reflector".

    Returns:
        By the names that the models have in the graph, "model" and others; of judges, and of what judged the leaders
        again, by the names of their nodes, evaluate and select.
    """
    shares: dict[str, list[Usage]] = {}
    others = {"evaluate": "evaluate", "select": "select"} | ({"reflect": words_of} if words_of else {})
    for episode in episodes:
        for node, usage in episode.get("costs", {}).items():
            if usage.get("calls"):
                shares.setdefault(others.get(node) or episode.get("model", "model"), []).append(usage)
    return {name: add_usage(*usages) for name, usages in shares.items()}


MAX_DEPTH = 100
"""Of values within values; JSON that is nested deeper is not read alike everywhere."""


def plain(value: Any, where: str, depth: int = MAX_DEPTH) -> Any:
    """A copy in JSON's own types, so that it is the same after it was stored; texts are `cleaned`.

    Args:
        value: numbers of at most 64 bits, texts, lists, mappings by text, None.
        where: what to call it in the error.
        depth: how deeply it may be nested.

    Raises:
        ValueError: something in it is none of these, or too deep; says what and where.
    """
    if depth < 0:
        raise ValueError(f"{where.partition('[')[0]} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {cleaned(key): plain(held, f"{where}[{key!r}]", depth - 1) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held, f"{where}[{i}]", depth - 1) for i, held in enumerate(value)]
    if value is None or isinstance(value, str | bool):
        return cleaned(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"{where} must hold JSON values only (numbers of at most 64 bits), got {value!r:.80}")
