"""Training across episodes by TRL. Needs the extra `train`: on CI always, elsewhere where it is installed."""

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_language_model import tiny_language_model

pytestmark = [
    pytest.mark.skipif(
        find_spec("trl") is None and not os.environ.get("CI"), reason="needs TRL: pip install 'icrl-graph[train]'"
    ),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),  # by TRL itself
]
RECIPE = Path(__file__).parents[1] / "examples" / "meta_rl"


def _capitals(response: str) -> float:
    """The share of the two bytes of an answer that are capital letters."""
    return sum("A" <= sign <= "Z" for sign in response) / 2


def _instances(count: int, evaluator: Callable[..., float] = _capitals) -> list[Any]:
    from icrl_graph.meta_rl.trials import Instance

    return [Instance(f"game {number}", {"task": "Say it.", "task_data": {}}, evaluator) for number in range(count)]


def _trainer(
    folder: Path, instances: int | Sequence[Any] = 2, episodes: int = 2, *, parts: Any = None, **settings: Any
) -> Any:
    """A trainer of the tiny model: four trials of one instance a step, unless that is changed."""
    from trl import GRPOConfig

    from icrl_graph.meta_rl.trl_grpo import ORBIT, TrialTrainer

    usual = {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 64,
        "learning_rate": 3e-2,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    args = GRPOConfig(str(folder), **{**ORBIT, **usual, **settings})
    games = _instances(instances) if isinstance(instances, int) else instances
    base = str(tiny_language_model(folder / "base"))
    return TrialTrainer(
        **{"model": base, "max_response_tokens": 2, **(parts or {})}, instances=games, episodes=episodes, args=args
    )


def _logged(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


def _weights(trainer: Any) -> list[Any]:
    return [weight.tolist() for weight in trainer.model.parameters()]


def _trial(instance: str, returns: Sequence[float], *samples: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
    """A trial by hand: of each sample what was read, and what was written then; an episode each."""
    from icrl_graph.meta_rl.samples import Answer, Sample
    from icrl_graph.meta_rl.trials import Trial

    made, episode = [], 0
    for turns in samples:
        sample = Sample()
        for read, written in turns:
            start = len(sample.ids) + len(read)
            sample.ids += [*read, *written]
            sample.answers.append(Answer(start, start + len(written), episode, (-0.5,) * len(written)))
            episode += 1
        made.append(sample)
    return Trial(instance, tuple(returns), ("",) * len(returns), tuple(made), ())


def _batch_of(trainer: Any, trials: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The batch that TRL gets if these trials are played."""
    monkeypatch.setattr("icrl_graph.meta_rl.trl_grpo.play", lambda *_, **__: trials)
    batch: dict[str, Any] = trainer._generate_and_score_completions([{"prompt": trial.instance} for trial in trials])
    return batch


_PROMPT, _READ = [2, 5, 6, 1, 3], [2, 8, 9, 1, 3]
"""Tokens of a first prompt, and of what is read between two answers."""


def _two_groups() -> list[Any]:
    """Two trials of an instance that differ, and two of another that do not."""
    short = [(_PROMPT, [11]), (_READ, [11]), (_READ, [11])]
    return [
        _trial("game 0", (0, 1, 1), [(_PROMPT, [11, 1]), (_READ, [12]), (_READ, [13, 1])]),
        _trial("game 0", (1, 0, 0), short),
        _trial("game 1", (1, 1, 1), short),
        _trial("game 1", (1, 1, 1), short),
    ]


def test_only_what_was_written_is_trained_and_each_token_has_the_advantage_of_its_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(tmp_path, episodes=3, num_generations=2, scale_rewards="none", parts={"credit": "discounted:1"})
    batch = _batch_of(trainer, _two_groups(), monkeypatch)
    nothing, five = [0] * 15, [0] * 5
    assert batch["prompt_ids"].tolist() == [_PROMPT] * 4
    assert batch["completion_ids"][0].tolist() == [11, 1, *_READ, 12, *_READ, 13, 1]
    assert (batch["completion_mask"] * batch["tool_mask"]).tolist() == [
        [1, 1, *five, 1, *five, 1, 1],
        *(3 * [[1, *five, 1, *five, 1, 0, 0]]),
    ]
    assert batch["sampling_per_token_logps"][0].tolist() == [-0.5, -0.5, *five, -0.5, *five, -0.5, -0.5]
    assert batch["advantages"].tolist() == [
        [0.5, 0.5, *five, 1, *five, 0.5, 0.5],
        [-0.5, *five, -1, *five, -0.5, 0, 0],
        nothing,
        nothing,
    ]


def test_advantages_are_divided_by_the_deviation_of_their_group_as_scale_rewards_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(tmp_path, episodes=3, num_generations=2, parts={"credit": "own"})
    batch = _batch_of(trainer, _two_groups(), monkeypatch)
    ones = batch["advantages"][:, [0, 7]].round(decimals=4).tolist()
    assert ones == [[-1, 1], [1, 0], [0, 0], [0, 0]]


def test_the_gradient_is_that_of_a_mean_over_the_written_tokens_of_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    trainer = _trainer(tmp_path, episodes=3, num_generations=2, scale_rewards="none", parts={"credit": "discounted:1"})
    batch = _batch_of(trainer, _two_groups(), monkeypatch)
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, batch).backward()
    by_trl = [weight.grad.clone() for weight in trainer.model.parameters()]
    trainer.model.zero_grad()
    gains = ([0.5, 0.5, 1, 0.5, 0.5], [-0.5, -1, -0.5])
    losses = []
    for trial, of_tokens in zip(_two_groups(), gains, strict=False):
        (sample,) = trial.samples
        logprobs = trainer.model(input_ids=torch.tensor([sample.ids])).logits[0].log_softmax(-1)
        written = [logprobs[before, sample.ids[before + 1]] for before, _ in sample.places()]
        losses.append(-sum(gain * each for gain, each in zip(of_tokens, written, strict=True)) / len(written))
    (sum(losses) / 4).backward()  # the two trials without variance count as 0
    for expected, weight in zip(by_trl, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected)


def test_of_a_trial_of_several_samples_one_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(
        tmp_path, num_generations=2, per_device_train_batch_size=2, scale_rewards="none", parts={"credit": "own"}
    )
    trials = [_trial("game 0", each, [(_PROMPT, [11])], [(_READ, [12])]) for each in ((0, 4), (2, 0))]
    seen = set()
    for trainer.state.global_step in range(12):
        batch = _batch_of(trainer, trials, monkeypatch)
        firsts = (batch[name][:, 0].tolist() for name in ("completion_ids", "advantages"))
        seen |= set(zip(*firsts, strict=True))
    assert seen == {(11, -1), (11, 1), (12, 2), (12, -2)}


def test_twenty_steps_teach_what_the_rewards_pay_for(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, 4, max_steps=20, learning_rate=6e-2)
    trainer.train()
    returns = _logged(trainer, "reward")
    assert sum(returns[:4]) / 4 < 0.7 < 1.3 < sum(returns[-4:]) / 4  # of two episodes
    halves = [_logged(trainer, f"return/episode_{number}") for number in (1, 2)]
    assert [sum(each) for each in zip(*halves, strict=True)] == pytest.approx(returns)
    assert _logged(trainer, "groups/dropped")[-1] == (returns[-1] == 2)


def test_a_training_that_is_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 3}  # an epoch has two
    whole = _trainer(tmp_path, **changes)
    whole.train()
    resumed = _trainer(tmp_path, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert _weights(resumed) == _weights(whole)


def test_the_example_trains_an_adapter_that_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl

    from icrl_graph.meta_rl.language_model import LanguageModel

    base, out = tiny_language_model(tmp_path / "base"), tmp_path / "out"
    config, fewer = trl.GRPOConfig, {"gradient_accumulation_steps": 2}
    monkeypatch.setattr(trl, "GRPOConfig", lambda *args, **kwargs: config(*args, **{**kwargs, **fewer}))
    monkeypatch.setattr(sys, "argv", ["train_words.py", str(base), str(out), "1"])
    trained = runpy.run_path(str(RECIPE / "train_words.py"))["trainer"].model
    loaded = LanguageModel.load(base, out).model
    adapters = [{name: w for name, w in each.named_parameters() if "lora_" in name} for each in (trained, loaded)]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(adapters[1][name].equal(weight) for name, weight in adapters[0].items())
    assert any(weight.any() for name, weight in adapters[1].items() if "lora_B" in name)  # 0 before


def test_what_the_model_raises_ends_the_training(tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("no more memory")

    trainer = _trainer(tmp_path, max_steps=1)
    trainer.model.model.forward = fails
    with pytest.raises(MemoryError, match="no more memory"):
        trainer.train()


def test_a_trial_that_may_become_too_long_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, max_steps=1, max_completion_length=33)
    with pytest.raises(
        ValueError, match=r"may have 34 tokens .* of 26: 30 that are read, and 2 answers of up to 2.* is 33,"
    ):
        trainer.train()


def test_a_context_that_is_too_short_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, max_steps=1)
    trainer.model.config.max_position_embeddings = 50
    with pytest.raises(ValueError, match="the context of the model 50: .* fewer episodes or shorter answers"):
        trainer.train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"credit": "summ"}}, "unknown credit 'summ'"),
        ({"scale_rewards": "batch"}, "unknown scale_rewards 'batch'; choose one of 'group', 'none'"),
        ({"use_vllm": True}, "use_vllm=True has no part in trials"),
        ({"top_p": 0.9}, "top_p=0.9 has no part in trials, .* leave it at 1.0"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions=True has no part"),
        ({"instances": 1, "num_generations": 2}, r"a batch has 2 instances .*, got 1"),
    ],
)
def test_what_can_not_be_trained_is_an_error_when_the_trainer_is_made(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"chat_template": None}, "base has no chat template"), ({"eos_token": "a"}, "does not end an answer by 'a'")],
)
def test_a_tokenizer_that_can_not_write_chats_is_an_error(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_language_model(tmp_path / "base"), **changes)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path, parts={"processing_class": tokenizer})


def test_two_instances_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two instances are named 'game 0'"):
        _trainer(tmp_path, [*_instances(2), *_instances(1)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multi_gpu", {}),
        ("zero2", {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}),
        ("zero3", {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}),
        ("fsdp", {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}),
    ],
)
def test_accelerate_takes_the_configurations(
    name: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands import launch

    given = ["--config_file", str(RECIPE / f"{name}.yaml"), "--main_process_port", "0", "train_words.py"]
    args, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(given))
    args.deepspeed_fields_from_accelerate_config = ""
    env = launch.prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else launch.prepare_multi_gpu_env(args)
    assert {"ACCELERATE_MIXED_PRECISION": "bf16", **expected}.items() <= env.items()
    if name == "fsdp":
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        assert FullyShardedDataParallelPlugin().reshard_after_forward is True
