"""How a small language model is trained to learn in its context, on word games.

Two stages, both on trials of eight episodes, played by the loop that users deploy (`trials`):

1. Distillation (arXiv 2210.14215, 2306.14892). A teacher that knows the rules samples from the exact posterior
   (`icrl_graph.tasks.word_games.references`). The model is trained towards its odds of every token of an answer, given
   the chat before it. In a part of the trials some answers are careless, so that it sees what follows mistakes.
2. RL across episodes. The model plays, several trials of each instance; each of its answers is reinforced by what this
   and the later episodes earned above the other trials (`credit`).

Two families are trained if no others are asked for, half of the time with words of all categories and invented ones, so
that the options have to be read. The other families are held out, as are other words and wordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from icrl_graph.execution.folder_lock import lock_folder
from icrl_graph.meta_rl.adapter_training import Stage, add_gradients, fit, is_done
from icrl_graph.meta_rl.credit import Array, advantages, find_credit
from icrl_graph.meta_rl.export import check_llama, gguf
from icrl_graph.meta_rl.language_model import LanguageModel, fast_dtype
from icrl_graph.meta_rl.losses import Imitation, imitation, reinforcement, told
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.samples import Sample
from icrl_graph.meta_rl.trials import Instance, Odds, play, teach
from icrl_graph.models.gguf import facts, sha256
from icrl_graph.state.episode import Message
from icrl_graph.tasks.word_games import references
from icrl_graph.tasks.word_games.answers import earned, write_answer
from icrl_graph.tasks.word_games.families import FAMILIES
from icrl_graph.tasks.word_games.instances import instance
from icrl_graph.tasks.word_games.wordings import UNIT, Scale

TRAINED: Sequence[str] = ("prize", "amounts")
"""The families of the recipe."""
SCALES: Sequence[Scale] = (UNIT, UNIT, UNIT, (0, 10), (0, 100), (-1, 1))
"""Ranges of rewards, one drawn for each trial."""
SIZES: Sequence[int] = (2, 3, 4, 5, 6)
"""How many options there are in the first stage, if any number will do: what rewards mean is learnt from few first."""
MIXED = 1 / 2
"""The share of trials with words of all categories."""
FORMS: Sequence[Mapping[str, Any]] = (
    *(8 * ({},)),
    {"reward_label": "Score"},
    {"reward_label": "Points"},
    {"layout": "transcript"},
    {"schedule": "preset"},
)
"""How chats look, one drawn for each trial of the teacher."""
CARELESS = 1 / 3, 0.3
"""In what share of the trials answers are careless, and what share of their answers is."""


@dataclass(frozen=True, kw_only=True)
class WordGameStage(Stage):
    """What both stages have in common."""

    families: Sequence[str] = TRAINED
    """Those that are trained; the others are held out."""

    def __post_init__(self) -> None:
        if not self.families:
            raise ValueError("give at least one family of word games to train on")
        if unknown := sorted(set(self.families) - FAMILIES.keys()):
            raise ValueError(f"unknown family {unknown[0]!r}; choose of {', '.join(FAMILIES)}")


@dataclass(frozen=True, kw_only=True)
class Distillation(WordGameStage):
    """The first stage."""

    iterations: int = 200
    learning_rate: float = 1.5e-3
    trials: int = 8
    """In an iteration."""
    episodes: int = 8
    """At most: a trial has two more than its game has options."""


@dataclass(frozen=True, kw_only=True)
class Reinforcement(WordGameStage):
    """The second stage."""

    iterations: int = 36
    learning_rate: float = 4e-4
    warm_up: int = 3
    fall_to: float = 0.25
    instances: int = 4
    """In an iteration."""
    group_size: int = 8
    """Trials of each instance."""
    part: int = 8
    episodes: int = 8
    credit: str = "discounted:1"
    scale: str = "std"
    entropy: float = 0.0
    """The weight of entropy in the loss."""
    max_response_tokens: int = 8
    """Room for a word of several tokens, for each word of an answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        find_credit(self.credit)  # now, not after the first stage


LOCK = "lock"
"""The file by which other processes are kept out of the folder."""
STAGES: Sequence[str] = ("distil", "reinforce")
"""In their order; each has a folder of its name."""
Progress = Callable[[str, int, Mapping[str, Any]], None]
"""Called after each iteration with the stage, the iteration (from 1) and what it came to."""


def train(
    base: Path, folder: Path, distillation: Distillation, reinforcement: Reinforcement, progress: Progress | None = None
) -> Path:
    """Run both stages; in the same folder they go on where they were, and give the same weights as without a break.

    Args:
        base: the GGUF file, or the folder of Hugging Face's form, that is trained.
        folder: gets a folder for each stage, with its log, checkpoint and adapter, and at the end `adapter.gguf`.
        distillation: the first stage.
        reinforcement: the second one.
        progress: see `Progress`.

    Returns:
        The adapter, which `local:PATH` runs.

    Raises:
        ValueError: there is no such model, it is no Llama or has no chat template, or the folder holds a training with
            other settings, or a damaged one.
        BlockingIOError: another process trains in the folder.
    """
    if not base.exists():
        raise ValueError(f"there is no model at {base}: give a GGUF file or a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as file:
        lock_folder(file, folder)
        return _train(base, folder, distillation, reinforcement, progress)


def _train(
    base: Path, folder: Path, distillation: Distillation, reinforcement: Reinforcement, progress: Progress | None
) -> Path:
    torch.manual_seed(distillation.seed)
    torch.set_num_threads(distillation.workers)
    folders = {stage: folder / stage for stage in STAGES}
    done = is_done(folders["distil"], distillation)
    is_done(folders["reinforce"], reinforcement)  # else it would say so after the first stage
    model = LanguageModel.load(base, folders["distil"] if done else None, dtype=fast_dtype())
    check_llama(model)
    stages: tuple[tuple[str, Any, Any], ...] = (
        ("distil", distillation, distil),
        ("reinforce", reinforcement, reinforce),
    )
    for name, stage, step in stages:
        if not (name == "distil" and done):
            fit(model, step, stage, folders[name], None if progress is None else partial(progress, name))
    adapter = folder / "adapter.gguf"
    of_base = facts(base) if base.suffix == ".gguf" else {}
    gguf(
        model,
        adapter,
        base_name=base.stem,
        base_hash=sha256(base) if of_base else "",
        license=str(of_base.get("general.license", "")),
    )
    return adapter


def distil(model: LanguageModel, recipe: Distillation, iteration: int) -> dict[str, Any]:
    """An iteration of the first stage: adds up gradients, and says what it came to."""
    first = iteration * recipe.trials
    return imitate(model, recipe, [_taught(model, recipe, first + number) for number in range(recipe.trials)])


def imitate(model: LanguageModel, recipe: Stage, samples: Sequence[Sample]) -> dict[str, Any]:
    """Adds up the gradients of what a teacher wrote, whatever the games are, and says what it came to."""
    count = told(samples)

    def loss(part: Sequence[Sample]) -> tuple[Tensor, Imitation]:
        of_part = imitation(model, part)
        return of_part.loss / count, of_part

    done = add_gradients(model, recipe.parts(samples, lambda sample: len(sample.ids)), loss, recipe.workers)
    sums = dict[int, Array]()
    for of_part in done:
        for episode, of_episode in of_part.by_episode.items():
            sums[episode] = sums.get(episode, np.zeros(2)) + of_episode
    divergence = [round(whole / places, 4) for _, (whole, places) in sorted(sums.items())]
    whole = sum(of_part.loss.item() for of_part in done)
    return {"loss": whole / count, "by_episode": divergence, "tokens": sum(len(sample.ids) for sample in samples)}


def _taught(model: LanguageModel, recipe: Distillation, number: int) -> Sample:
    """What the teacher wrote in a trial; where each of its prompts is a chat of its own, in the last of them."""
    rng = Random(f"distil/{recipe.seed}/{number}")
    form, scale = rng.choice(FORMS), rng.choice(SCALES)
    played = _drawn(rng, recipe.families, recipe.seed * 10**6 + number, form, scale, SIZES)
    chance = CARELESS[1] if rng.random() < CARELESS[0] else 0.0
    episodes = min(recipe.episodes, len(played.inputs["task_data"]["options"]) + 2)
    if {"schedule", "layout"} & played.options.keys():  # each prompt is a sample of its own: one answer
        episodes = rng.randint(1, episodes)
    trial = teach(model, played, _odds, partial(_careless, chance), episodes, seed=number)
    return trial.samples[-1]


def _odds(messages: Sequence[Message]) -> Odds:
    """With a space ahead, as options are listed: most words are the same one token in both places then."""
    return {f" {write_answer(answer)}": chance for answer, chance in references.posterior_odds(messages).items()}


def _careless(chance: float, messages: Sequence[Message], rng: Random) -> str | None:
    return f" {references.uniform(messages, rng)}" if rng.random() < chance else None


def _drawn(
    rng: Random,
    families: Sequence[str],
    seed: int,
    form: Mapping[str, Any] = {},
    scale: Scale = UNIT,
    sizes: Sequence[int] = (),
) -> Instance:
    family, is_mixed = rng.choice(families), rng.random() < MIXED
    kind = FAMILIES[family]
    sizes = sizes if max(kind.lengths) == 1 and not kind.on_scale else ()  # the others have sizes of their own
    drawn = instance(family, "train", seed, scale=scale, sizes=sizes, is_mixed=is_mixed and not kind.on_scale)
    return Instance(f"{family}:train:{seed}", drawn.inputs(), earned, form)


def _prompt(sample: Sample) -> Sequence[int]:
    """The tokens ahead of its first answer."""
    return sample.ids[: sample.answers[0].start]


def reinforce(model: LanguageModel, recipe: Reinforcement, iteration: int) -> dict[str, Any]:
    """An iteration of the second stage: adds up gradients, and says what it came to."""
    rng = Random(f"reinforce/{recipe.seed}/{iteration}")
    first = 5 * 10**8 + recipe.seed * 10**6 + iteration * recipe.instances  # none that the teacher has played
    drawn = [_drawn(rng, recipe.families, first + at) for at in range(recipe.instances)]
    instances = [one for one in drawn for _ in range(recipe.group_size)]
    model.model.eval()
    room = recipe.max_response_tokens * max(max(FAMILIES[family].lengths) for family in recipe.families)
    trials = play(model, instances, recipe.episodes, seed=first, max_response_tokens=room)
    returns = [trial.returns for trial in trials]
    gains = advantages(returns, [trial.instance for trial in trials], recipe.credit, recipe.scale)
    rows = [
        (sample, gains.values[row]) for row, trial in enumerate(trials) for sample in trial.samples if gains.kept[row]
    ]

    def loss(part: Sequence[tuple[Sample, Array]]) -> tuple[Tensor, float]:
        of_part = reinforcement(
            model,
            [sample for sample, _ in part],
            np.array([gain for _, gain in part]),
            len(trials) * recipe.episodes,
            recipe.entropy,
        )
        return of_part.loss, of_part.entropy

    entropies = add_gradients(model, recipe.parts(rows, lambda row: _prompt(row[0])), loss, recipe.workers)
    by_episode = np.array(returns).mean(axis=0).round(4).tolist()
    return {
        "return": float(np.array(returns).sum(axis=1).mean()), "by_episode": by_episode, "dropped": gains.dropped,
        "entropy": float(np.mean(entropies)) if entropies else None, "samples": len(rows),
    }  # fmt: skip
