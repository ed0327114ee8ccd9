"""Memory: which earlier episodes a prompt shows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

from icrl_graph.prompts.text import CHARACTERS, step_line
from icrl_graph.state.choices import INTEGER, POSITIVE_SHARE, Numbered, choices, find
from icrl_graph.state.episode import Episode

Memory = Callable[..., list[int]]
"""Which of the earlier episodes to show, as indices. It sees the episodes without their true reward. One that chooses
by their shown rewards says so by `@ranks_by_reward`: methods that hide rewards refuse it. One that draws takes a second
argument, `random`, a generator of the attempt's own: it is asked anew for each attempt of a round."""
_Any = TypeVar("_Any", bound=Memory)


def ranks_by_reward(memory: _Any) -> _Any:
    """Mark a memory that chooses by shown rewards."""
    memory.ranks_by_reward = True  # type: ignore[attr-defined]
    return memory


def draws(memory: Memory) -> bool:
    """Whether a memory takes a random generator beside the episodes."""
    try:
        return "random" in inspect.signature(memory).parameters
    except (TypeError, ValueError):  # of some builtins nobody knows it
        return False


def remembered(memory: Memory, past: Sequence[Episode], random: Random | None) -> list[int]:
    """What a memory chooses; one that draws does so from the generator."""
    return memory(past, random) if draws(memory) else memory(past)


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

    @ranks_by_reward
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

    @ranks_by_reward
    def choose(past: Sequence[Episode]) -> list[int]:
        earned = [i for i, episode in enumerate(past) if (episode.get("shown", {}).get("value") or 0.0) > 0]
        seeds = (f"{len(past)}/{i}/{past[i].get('response')}".encode(errors="surrogatepass") for i in earned)
        draws = (Random(seed).random() for seed in seeds)
        return [i for i, draw in zip(earned, draws, strict=True) if draw < share]

    return choose


def sample(k: int) -> Memory:
    """The latest round with answers: k of its attempts, drawn for each attempt of the next; all, if it has fewer.

    With the schedule "aggregate" that of recursive self-aggregation (arXiv 2509.26626), whose population is a round.
    """

    def choose(past: Sequence[Episode], random: Random) -> list[int]:
        answered = [i for i, episode in enumerate(past) if "response" in episode]
        latest = [i for i in answered if past[i]["round"] == past[answered[-1]]["round"]]
        return random.sample(latest, min(k, len(latest)))

    choose.drawn = k  # type: ignore[attr-defined]
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
    response = "".join(steps) or episode.get("response", "")
    texts = (response, episode.get("shown", {}).get("feedback", ""), episode.get("reflection", ""))
    return sum(map(len, texts)) // CHARACTERS + 16


_NAMED: Mapping[str, Memory] = {"all": everything, "none": nothing}
_NUMBERED: Numbered[Memory] = {
    "last": (last, INTEGER),
    "best": (best, INTEGER),
    "tokens": (tokens, INTEGER),
    "reflections": (reflections, INTEGER),
    "positive": (positive, POSITIVE_SHARE),
    "sample": (sample, INTEGER),
}
MEMORIES = choices(_NAMED, _NUMBERED)


def memory(spec: str, *, imports: bool = True) -> Memory:
    """The memory of a name, such as "all", "none", "last:5", "best:3" or "positive:0.5"; or a custom one.

    Raises:
        ValueError: there is no such memory, or its number is out of range; names the choices.
    """
    return find("memory", spec, _NAMED, _NUMBERED, imports=imports)
