"""The smallest learner across episodes: a table over full histories, trained by policy gradient on hidden arms.

One of K arms pays, the same one in all E episodes of a trial; beside them a safe arm may pay with a probability. The
policy is a softmax over the arms for each history of pulls and outcomes. It knows no instance, so all that it gains
from one episode to the next it gains from the history. In seconds it shows what a credit leads to:

    recipe = Recipe(safe=0.4, entropy=0.1)
    print(success(train("sum", recipe), recipe), success(train("own", recipe), recipe))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from icrl_graph.meta_rl.credit import Array, Credit, advantages
from icrl_graph.state.choices import pick

Policy = list[Array]
"""By episode a row of logits for each history before it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the policy."""

    arms: int = 4
    episodes: int = 4
    safe: float = 0.0
    """The probability with which a further arm pays; 0: there is none."""
    instances: int = 16
    """In an iteration, each with a group of trials."""
    group_size: int = 16
    iterations: int = 600
    learning_rate: float = 1.0
    entropy: float = 0.0
    """The weight of the policy's entropy. Without it, whoever finds the safe arm first may never try another."""
    scale: str = "std"
    seed: int = 0

    @property
    def pulls(self) -> int:
        """The arms, with the safe one."""
        return self.arms + (self.safe > 0)


class Episode(NamedTuple):
    """An episode of many trials side by side."""

    histories: NDArray[np.int64]
    chances: Array
    """(trials, arms): the policy's probabilities."""
    pulled: NDArray[np.int64]
    rewards: Array


Show = Callable[[Array, np.random.Generator], Array]
FEEDBACK: Mapping[str, Show] = {
    "true": lambda rewards, rng: rewards,
    "zero": lambda rewards, rng: np.zeros_like(rewards),
    "shuffled": lambda rewards, rng: rng.permutation(rewards),
}
"""What a history shows of the rewards: all, 0, or those of other trials."""


def train(credit: str | Credit, recipe: Recipe) -> Policy:
    """Train a policy by the advantages of a credit."""
    rng = np.random.default_rng(recipe.seed)
    policy = [np.zeros(((2 * recipe.pulls) ** episode, recipe.pulls)) for episode in range(recipe.episodes)]
    instances = np.repeat(np.arange(recipe.instances), recipe.group_size).tolist()
    for _ in range(recipe.iterations):
        episodes = _play(policy, recipe, recipe.instances, recipe.group_size, FEEDBACK["true"], rng)
        returns = np.stack([episode.rewards for episode in episodes], axis=1)
        gains = advantages(returns, instances, credit, recipe.scale).values
        for logits, episode, gain in zip(policy, episodes, gains.T, strict=True):
            step = _gradient(episode, gain, recipe.entropy) * (recipe.learning_rate * recipe.episodes / len(gain))
            np.add.at(logits, episode.histories, step)
    return policy


def success(policy: Policy, recipe: Recipe, feedback: str = "true", trials: int = 4096) -> list[float]:
    """The mean reward of each episode, over new trials.

    Raises:
        ValueError: there is no such feedback.
    """
    rng = np.random.default_rng(recipe.seed + 1)
    episodes = _play(policy, recipe, trials, 1, pick("feedback", feedback, FEEDBACK), rng)
    return [float(episode.rewards.mean()) for episode in episodes]


def _play(
    policy: Policy, recipe: Recipe, instances: int, group_size: int, show: Show, rng: np.random.Generator
) -> list[Episode]:
    """A group of trials for each of some new instances."""
    paying = np.repeat(rng.integers(recipe.arms, size=instances), group_size)
    histories, episodes = np.zeros(len(paying), dtype=np.int64), list[Episode]()
    for logits in policy:
        chances = _softmax(logits[histories])
        pulled = (chances.cumsum(axis=1) > rng.random((len(paying), 1))).argmax(axis=1)
        is_safe = rng.random(len(paying)) < recipe.safe
        rewards = np.where(pulled == recipe.arms, is_safe, pulled == paying).astype(float)
        episodes.append(Episode(histories, chances, pulled, rewards))
        histories = 2 * (histories * recipe.pulls + pulled) + (show(rewards, rng) > 0)
    return episodes


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _gradient(episode: Episode, gain: Array, entropy: float) -> Array:
    """Of the gain times the logarithm of the pull's probability, and of the entropy, by the logits."""
    chances = episode.chances
    surprise = -np.log(chances + 1e-9)
    of_entropy = chances * (surprise - (chances * surprise).sum(axis=1, keepdims=True))
    return gain[:, None] * (np.eye(chances.shape[1])[episode.pulled] - chances) + entropy * of_entropy  # type: ignore[no-any-return]
