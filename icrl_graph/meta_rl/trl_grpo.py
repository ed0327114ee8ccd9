"""RL across episodes for models of Hugging Face, by TRL's GRPOTrainer: on one processor or, by Accelerate, on many.

TRL keeps the optimiser, its schedule, checkpoints and logs. Here its trainer plays trials by the loop that users deploy
(`trials`), and each token of an answer gets the advantage of its episode (`credit`). A trial is one row of TRL's batch:
its first prompt, and behind it all that was written, which is trained, and read, which is not.

Where a prompt does not continue the one before (`samples`), a trial is several sequences, and TRL's batch has a row for
one. It is drawn, each being as likely, so that on average all of them count.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np

from icrl_graph.errors import missing_extra
from icrl_graph.meta_rl.credit import Array, Credit, advantages, find_credit
from icrl_graph.meta_rl.export import verl_records
from icrl_graph.meta_rl.language_model import LanguageModel, check_template
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.samples import Sample
from icrl_graph.meta_rl.trials import Instance, Trial, play
from icrl_graph.state.choices import pick

try:
    from accelerate.utils import gather_object
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.models import unwrap_model_for_generation
except ImportError as error:
    raise missing_extra("trl", "train") from error

ORBIT: Mapping[str, Any] = {
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "loss_type": "grpo",
    "scale_rewards": "group",
    "temperature": 1.0,
    "shuffle_dataset": False,
}
"""Settings for `GRPOConfig` as in ORBIT (arXiv 2602.04089): no KL, ratios clipped to .8 and 1.28, the mean over the
tokens of a trial and then over trials, advantages divided by the standard deviation of their group. Instances come in
their order, so that a training that is resumed in a later epoch goes on with the same ones."""

_WITHOUT_PART: Mapping[str, Any] = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "generation_kwargs": None,
    "use_vllm": False,
    "use_transformers_continuous_batching": False,
    "mask_truncated_completions": False,
}
"""Settings of TRL's own generation, each with the value that it must keep."""


class TrialTrainer(GRPOTrainer):  # type: ignore[misc]
    """Trains a model across the episodes of trials.

    Its logs have what TRL's have, where `reward` is the mean return of a trial, and the mean return of each episode
    (`return/episode_1` and so on), the groups of a batch without variance (`groups/dropped`; their advantages are 0),
    and how many sequences a trial is (`trial/samples`), of which one is trained.

    Args:
        model: a causal language model, its name or its folder.
        instances: what is played. Each batch has `num_generations` trials of each of its instances.
        episodes: of a trial.
        args: of TRL, as `GRPOConfig(folder, **ORBIT, ...)`. Its `scale_rewards` is "group" or "none", and its
            `max_completion_length` has room for all of a trial behind the first prompt.
        max_response_tokens: of an answer, its end included.
        credit: how the returns of a trial count for its episodes (`credit.CREDITS`).
        options: of `create_icrl`, such as layout and memory, ahead of those of the instances.
        kwargs: of `GRPOTrainer`, such as `processing_class`, the tokenizer, or `peft_config`.

    Raises:
        ValueError: the model has no chat template, or one that ends answers by another token than its tokenizer; the
            credit is unknown; two instances have one name, or there are too few; a setting has no part in trials.
    """

    def __init__(
        self,
        model: Any,
        instances: Sequence[Instance],
        episodes: int,
        args: GRPOConfig,
        *,
        max_response_tokens: int,
        credit: str | Credit = "sum",
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_settings(args)
        self._credit = find_credit(credit)
        self._scale = pick("scale_rewards", args.scale_rewards, {"group": "std", "none": "mean"})
        self._instances = _by_name(instances, args.generation_batch_size // args.num_generations)
        self._episodes, self._max_response_tokens = episodes, max_response_tokens
        self._options = dict(options or {})
        self._rows: list[tuple[Trial, int]] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
            super().__init__(
                model,
                reward_funcs=trial_return,
                args=args,
                train_dataset=Dataset.from_dict({"prompt": [*self._instances]}),
                rollout_func=self._roll_out,
                **kwargs,
            )
        check_template(self._tokenizer, self._tokenizer.name_or_path)
        _check_end(LanguageModel(self.model, self._tokenizer))

    def _roll_out(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        """What TRL calls for a batch: plays a trial for each prompt, which names an instance.

        TRL has repeated each prompt for all the trials of its group.
        """
        rng = Random(f"{self.args.seed}/{self._at()}/{self.accelerator.process_index}")
        with self._whole_weights() as weights:
            trials = play(
                LanguageModel(weights, self._tokenizer),
                [self._instances[name] for name in prompts],
                self._episodes,
                seed=rng.getrandbits(32),
                temperature=self.temperature,
                max_response_tokens=self._max_response_tokens,
                **self._options,
            )
        for trial in trials:
            for sample in trial.samples:
                self._check_room(sample, trial.instance)
        self._rows = [(trial, rng.randrange(len(trial.samples))) for trial in trials]
        records = [verl_records(trial)[drawn] for trial, drawn in self._rows]
        return {
            "prompt_ids": [record["prompt_ids"] for record in records],
            "completion_ids": [record["response_ids"] for record in records],
            "logprobs": [record["response_logprobs"] for record in records],
            "env_mask": [record["response_mask"] for record in records],
            "returns": [trial.returns for trial in trials],
            "samples": [len(trial.samples) for trial in trials],
        }

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, in which each token has the advantage of its episode."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        returns, names = zip(*gather_object([(trial.returns, trial.instance) for trial, _ in self._rows]), strict=True)
        gains = advantages(returns, names, self._credit, self._scale, group_size=self.num_generations)
        here = slice(first := self.accelerator.process_index * len(self._rows), first + len(self._rows))
        batch["advantages"] = _by_token(self._rows, gains.values[here], batch["completion_ids"])
        self._metrics["train"]["groups/dropped"].append(gains.dropped)
        return batch

    def _at(self) -> tuple[int, int]:
        """Where the training stands, also if it was resumed: the step of the optimiser, and the part of it."""
        return self.state.global_step, self._step % self.args.gradient_accumulation_steps

    @contextmanager
    def _whole_weights(self) -> Iterator[Any]:
        """The model with all its weights on this processor, without dropout.

        Processors play for as long as their trials last, so none may wait for the weights of another in between.
        """
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        ) as model:
            parts = [part for part in model.modules() if hasattr(part, "unshard")]  # under FSDP2
            model.eval()
            for part in parts:
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()
            yield model
            for part in parts:
                part.set_reshard_after_forward(part is not model, recurse=False)
                part.reshard()
            model.train()

    def _check_room(self, sample: Sample, instance: str) -> None:
        """Raise `ValueError` where the longest answers would make a trial too long: now, not after hours."""
        first, answered = sample.answers[0].start, sum(answer.stop - answer.start for answer in sample.answers)
        read, longest = len(sample.ids) - first - answered, len(sample.answers) * self._max_response_tokens
        limit = self.args.max_completion_length
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", math.inf)
        if read + longest > limit or first + read + longest > context:
            raise ValueError(
                f"a trial of {instance!r} may have {read + longest} tokens behind its first prompt of {first}: {read} "
                f"that are read, and {len(sample.answers)} answers of up to {self._max_response_tokens}. "
                f"max_completion_length is {limit}, and the context of the model {context}: raise the former, or play "
                "fewer episodes or shorter answers"
            )


def trial_return(
    returns: Sequence[Sequence[float]],
    samples: Sequence[int],
    log_metric: Callable[[str, float], None],
    **_: Any,
) -> list[float]:
    """The rewards in TRL's logs, the sum of each trial's returns; logs the mean return of each episode, too."""
    log_metric("trial/samples", float(np.mean(samples)))
    for number in range(max(map(len, returns))):
        played = [trial[number] for trial in returns if len(trial) > number]
        log_metric(f"return/episode_{number + 1}", float(np.mean(played)))
    return [sum(trial) for trial in returns]


def _by_token(rows: Sequence[tuple[Trial, int]], gains: Array, completion_ids: Tensor) -> Tensor:
    """The advantage of each token of a batch, (rows, tokens): that of its episode where it was written, else 0."""
    by_token = torch.zeros_like(completion_ids, dtype=torch.float32)
    for row, (trial, drawn) in enumerate(rows):
        of_tokens = verl_records(trial, gains[row])[drawn]["advantages"]
        by_token[row, : len(of_tokens)] = torch.tensor(of_tokens)
    return by_token


def _by_name(instances: Sequence[Instance], least: int) -> dict[str, Instance]:
    named = {instance.name: instance for instance in instances}
    if len(named) < len(instances):
        twice = Counter(instance.name for instance in instances).most_common(1)[0][0]
        raise ValueError(f"trials of one name are compared with each other, but two instances are named {twice!r}")
    if len(named) < least:
        raise ValueError(f"a batch has {least} instances (generation_batch_size / num_generations), got {len(named)}")
    return named


def _check_settings(args: GRPOConfig) -> None:
    for name, kept in _WITHOUT_PART.items():
        if (value := getattr(args, name)) != kept:
            raise ValueError(f"{name}={value!r} has no part in trials, which are sampled here: leave it at {kept!r}")


def _check_end(model: LanguageModel) -> None:
    chat = [{"role": role, "content": role.upper()} for role in ("user", "assistant", "user")]
    if not model.render(chat).partition("ASSISTANT")[2].lstrip().startswith(model.end_text()):
        raise ValueError(
            f"the chat template does not end an answer by {model.end_text()!r}, the eos_token of the tokenizer, so "
            "answers would have no end: set that to what the template writes"
        )
