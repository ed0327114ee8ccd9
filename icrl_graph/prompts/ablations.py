"""What of a reward the prompts may see: the whole truth, or less, to find out whether the rewards are what helps.

An ablation is one function. It is called once for each judged attempt, on arrival; what it returns is stored as
`shown`, and everything that builds a prompt reads that alone. So an ablated run can't leak a reward by another road:
not in a later prompt, not in the feedback, not by what a memory ranks first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from icrl_graph.state.choices import REAL, SHARE, Numbered, choices, find
from icrl_graph.state.reward import Reward, as_reward

Show = Callable[[Reward, Random], Reward]
"""(what the prompt would show, a generator seeded by run and episode) -> what it shows instead."""


def true(reward: Reward, rng: Random) -> Reward:
    """Everything: the number, the numbers of the steps, the feedback."""
    return reward


def zero(reward: Reward, rng: Random) -> Reward:
    """Every number is 0, also that of an unscored attempt; no feedback."""
    return _numbers(0.0, [0.0] * len(reward.get("steps", ())))


def hidden(reward: Reward, rng: Random) -> Reward:
    """No number and no feedback: the model sees its attempts alone."""
    return Reward()


def outcome(reward: Reward, rng: Random) -> Reward:
    """The number alone: no numbers of the steps, no feedback. A total that is graded still tells what it is made of."""
    return _numbers(reward["value"], [])


def no_feedback(reward: Reward, rng: Random) -> Reward:
    """The number and the numbers of the steps, without words."""
    return _numbers(reward["value"], reward.get("steps", []))


def constant(value: float) -> Show:
    """Every number is the same, also that of an unscored attempt; no feedback."""
    return lambda reward, rng: _numbers(value, [value] * len(reward.get("steps", ())))


def random(lowest: float = 0.0, highest: float = 1.0) -> Show:
    """Every number is drawn uniformly from a range, also that of an unscored attempt; no feedback."""

    def draw(reward: Reward, rng: Random) -> Reward:
        steps = [rng.uniform(lowest, highest) for _ in reward.get("steps", ())]
        return _numbers(rng.uniform(lowest, highest), steps)

    return draw


def flipped(p: float, lowest: float = 0.0, highest: float = 1.0) -> Show:
    """With probability p all numbers of an attempt are turned over within their range, high to low; no feedback.

    Noise of a known size; in the range 0 to 1 a reward r becomes 1 - r.
    """

    def flip(reward: Reward, rng: Random) -> Reward:
        if rng.random() >= p:
            return no_feedback(reward, rng)
        turned = [None if r is None else lowest + highest - r for r in (reward["value"], *reward.get("steps", []))]
        return _numbers(turned[0], turned[1:])

    return flip


def shuffled(pool: Sequence[float | Reward]) -> Show:
    """Rewards of the right kind with the wrong content: each is drawn, once, from a pool of other rewards.

    Args:
        pool: the rewards to draw from, such as those that another run got on other tasks.

    Raises:
        ValueError: the pool is empty, or holds something that is not a finite number.
    """
    rewards = [as_reward(reward) for reward in pool]
    wrong = [drawn for drawn, reward in zip(pool, rewards, strict=True) if reward.get("value") is None]
    if not rewards or wrong:
        raise ValueError(f"a pool of rewards to draw from holds finite numbers, got {wrong[:3] or 'none'}")

    def draw(reward: Reward, rng: Random) -> Reward:
        other = rng.choice(rewards)
        return _numbers(other["value"], other.get("steps", []))

    draw.__name__ = "shuffled"
    return draw


def _numbers(value: float | None, steps: Sequence[float | None]) -> Reward:
    return Reward(value=value, steps=list(steps)) if steps else Reward(value=value)


_NAMED: Mapping[str, Show] = {
    "true": true,
    "zero": zero,
    "hidden": hidden,
    "outcome": outcome,
    "no_feedback": no_feedback,
    "random": random(),
}
_NUMBERED: Numbered[Show] = {"constant": (constant, REAL), "flip": (flipped, SHARE)}
ABLATIONS = choices(_NAMED, _NUMBERED)


def ablation(spec: str, *, imports: bool = True) -> Show:
    """The ablation of a name, such as "true", "zero", "hidden", "constant:1" or "flip:0.2"; or a custom one.

    Random and flip are of rewards from 0 to 1; for another range, or the rewards of other tasks, give `random(0, 10)`,
    `flipped(0.2, 0, 10)` or `shuffled(pool)` itself.

    Raises:
        ValueError: there is no such ablation, or its number is out of range; names the choices.
    """
    return find("ablation", spec, _NAMED, _NUMBERED, imports=imports)


def show(reward: Reward, ablation: Show, rng: Random) -> Reward:
    """What prompts may see of a reward; never its metric, nor why it is unscored."""
    visible = Reward(value=reward.get("value"))
    if "steps" in reward:
        visible["steps"] = [*reward["steps"]]
    if "feedback" in reward:
        visible["feedback"] = reward["feedback"]
    shown = ablation(visible, rng)
    if not isinstance(shown, Mapping) or not shown.keys() <= {"value", "feedback", "steps"}:
        raise TypeError(f"an ablation returns a Reward with value, feedback and steps or less, got {shown!r}")
    return shown
