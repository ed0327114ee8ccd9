"""Trials: several episodes of one hidden instance in one growing context, played by the loop that users deploy.

A trial is a run of `create_icrl`: its rounds are the episodes, its thread is the trial. So what is trained is what is
used, in any layout, memory and schedule, and an ablation shows what a model would do without its rewards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from icrl_graph.api import Result, aimprove
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.meta_rl.language_model import LanguageModel
from icrl_graph.meta_rl.losses import token_odds
from icrl_graph.meta_rl.sampler import Sampler
from icrl_graph.meta_rl.samples import Recorder, Sample
from icrl_graph.state.episode import Message

Odds = Mapping[str, float]
"""How likely each answer is."""


@dataclass(frozen=True)
class Instance:
    """A hidden instance of a family of tasks.

    Attributes:
        name: of family, split and seed; trials of one name are compared with each other.
        inputs: `task` and `task_data`, the input of a graph.
        evaluator: gives the reward.
        options: of `create_icrl`, such as layout and schedule.
    """

    name: str
    inputs: Mapping[str, Any]
    evaluator: Evaluator
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A trial that was played.

    Attributes:
        instance: the name of its instance.
        returns: the reward of each episode; an episode without a score counts 0.
        answers: what was answered in each.
        samples: what the model read and wrote.
        chat: the last prompt with its answer.
    """

    instance: str
    returns: tuple[float, ...]
    answers: tuple[str, ...]
    samples: tuple[Sample, ...]
    chat: tuple[Message, ...]


def play(
    model: LanguageModel,
    instances: Sequence[Instance],
    episodes: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    max_response_tokens: int = 8,
    **options: Any,
) -> list[Trial]:
    """Play a trial of each instance by a model, all side by side.

    Args:
        model: samples the answers.
        instances: one for each trial; the same one may be given more than once.
        episodes: of each trial.
        seed: of all that is drawn.
        temperature: of sampling, above 0.
        max_response_tokens: of an answer, its end included.
        options: of `create_icrl`, ahead of those of the instances, such as `show="zero"`.
    """
    sampler = Sampler(model, len(instances), seed=seed, temperature=temperature, max_tokens=max_response_tokens)

    async def trial(number: int, instance: Instance) -> Trial:
        recorder = model.recorder()
        try:
            run = await _run(instance, sampler.player(number, recorder), episodes, seed, options)
        finally:
            sampler.ended()
        return _trial(instance, run, recorder)

    async def all_trials() -> list[Trial]:
        return list(await asyncio.gather(*(trial(*one) for one in enumerate(instances))))

    trials = asyncio.run(all_trials())
    if sampler.error is not None:
        raise sampler.error
    return trials


def teach(
    model: LanguageModel,
    instance: Instance,
    teacher: Callable[[Sequence[Message]], Odds],
    careless: Callable[[Sequence[Message], Random], str | None],
    episodes: int,
    *,
    seed: int = 0,
) -> Trial:
    """A trial that a teacher plays, recorded as if the model had written its answers, with the odds of all others.

    Args:
        model: whose tokens and template it is recorded in.
        instance: what is played.
        teacher: the odds of the answers to a prompt.
        careless: an answer that is given in place of the teacher's, so that what follows mistakes is learnt, too; or
            None.
        episodes: of the trial.
        seed: of all that is drawn.
    """
    recorder = model.recorder()
    rng = Random(f"teacher/{seed}/{instance.name}")
    rounds = 0

    def answer(messages: Sequence[Message]) -> str:
        nonlocal rounds
        recorder.read(messages)
        odds = teacher(messages)
        text = careless(messages, rng) or rng.choices([*odds], [*odds.values()])[0]
        end = model.end_text()
        ids = model.encode(text + end)
        told = [(model.encode(other + end), chance) for other, chance in odds.items()]
        recorder.wrote(text, ids, rounds, end=end, targets=token_odds(told, ids))
        rounds += 1
        return text

    run = asyncio.run(_run(instance, answer, episodes, seed, {}))
    return _trial(instance, run, recorder)


async def _run(instance: Instance, player: Any, episodes: int, seed: int, options: Mapping[str, Any]) -> Result:
    task, task_data = instance.inputs["task"], instance.inputs["task_data"]
    settings = {"schedule": "plain", **instance.options, **options}
    return await aimprove(
        task, instance.evaluator, model=player, task_data=task_data, rounds=episodes, seed=seed, **settings
    )


def _trial(instance: Instance, run: Result, recorder: Recorder) -> Trial:
    answers = tuple(str(episode.get("response") or "") for episode in run.episodes)
    return Trial(
        instance.name,
        tuple(reward or 0.0 for reward in run.rewards),
        answers,
        tuple(recorder.samples),
        tuple(recorder.chat),
    )
