"""What a language model is trained by: its teacher's odds of the answers, or the advantages of its own episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from icrl_graph.meta_rl.credit import Array
from icrl_graph.meta_rl.language_model import LanguageModel
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.samples import Odds, Sample


def token_odds(odds: Sequence[tuple[Sequence[int], float]], ids: Sequence[int]) -> list[Odds]:
    """Of the tokens of an answer, what each would be by the odds of whole answers, given the tokens before it.

    Args:
        odds: answers as tokens, and how likely each is.
        ids: the answer that was written; a place at which nothing likely begins like it has no odds.
    """
    targets: list[Odds] = []
    left = [(list(answer), chance) for answer, chance in odds if chance > 0]
    for place, token in enumerate(ids):
        left = [(answer, chance) for answer, chance in left if len(answer) > place]
        whole, here = sum(chance for _, chance in left), dict[int, float]()
        for answer, chance in left:
            here[answer[place]] = here.get(answer[place], 0.0) + chance / whole
        targets.append(here)
        left = [(answer, chance) for answer, chance in left if answer[place] == token]
    return targets


class Imitation(NamedTuple):
    """How far a model is from its teacher."""

    loss: Tensor
    """The divergence (Kullback-Leibler) from the teacher's odds, in nats, summed over the tokens that have some."""
    by_episode: Mapping[int, tuple[float, int]]
    """Of each episode its sum, and of how many tokens."""


def told(samples: Sequence[Sample]) -> int:
    """How many tokens have a teacher's odds."""
    return sum(bool(target) for sample in samples for answer in sample.answers for target in answer.targets)


def imitation(model: LanguageModel, samples: Sequence[Sample]) -> Imitation:
    """The loss of distillation: the cross-entropy to the teacher's odds at each token, less their own entropy."""
    logprobs = model.logprobs(samples)
    targets = [target for sample in samples for answer in sample.answers for target in answer.targets]
    entries = [
        (place, token, chance) for place, target in enumerate(targets) for token, chance in target.items() if chance > 0
    ]
    places, tokens = (torch.tensor([entry[i] for entry in entries]) for i in (0, 1))
    chances = torch.tensor([entry[2] for entry in entries])
    apart = chances * (chances.log() - logprobs[places, tokens])
    by_place = torch.zeros(len(targets)).index_add(0, places, apart)
    episodes, shown = [episode for sample in samples for _, episode in sample.places()], by_place.tolist()
    by_episode: dict[int, tuple[float, int]] = {}
    for episode, target, value in zip(episodes, targets, shown, strict=True):
        if target:
            whole, count = by_episode.get(episode, (0.0, 0))
            by_episode[episode] = whole + value, count + 1
    return Imitation(by_place.sum(), by_episode)


class Reinforcement(NamedTuple):
    """A step along the policy gradient."""

    loss: Tensor
    entropy: float
    """Mean over the tokens of the answers, in nats."""


def reinforcement(
    model: LanguageModel, samples: Sequence[Sample], advantages: Array, episodes: int, weight: float
) -> Reinforcement:
    """The loss of REINFORCE (Williams 1992): each token of an answer is as likely again as its episode was good.

    Every batch is used once, so there is no ratio to clip.

    Args:
        model: what sampled the answers.
        samples: what it read and wrote.
        advantages: (samples, episodes).
        episodes: in the whole batch, of which the samples may be a part; the loss is a mean over them.
        weight: of the entropy, which keeps answers varied.
    """
    logprobs = model.logprobs(samples)
    places = [(row, at, episode) for row, sample in enumerate(samples) for at, episode in sample.places()]
    written = torch.tensor([samples[row].ids[at + 1] for row, at, _ in places])
    gains = torch.tensor([advantages[row, episode] for row, _, episode in places], dtype=torch.float32)
    chosen = logprobs.gather(1, written[:, None])[:, 0]
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return Reinforcement(-(chosen * gains + weight * entropy).sum() / episodes, entropy.detach().mean().item())
