"""How a language model is trained to learn in its context. Needs PyTorch: on CI always, elsewhere where it is there."""

import json
import os
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from icrl_graph.cli.shared import app
from icrl_graph.meta_rl.samples import Recorder
from icrl_graph.state.episode import Message
from icrl_graph.tasks.word_games import references, wordings
from icrl_graph.tasks.word_games.answers import data, earned, write_answer
from icrl_graph.tasks.word_games.families import FAMILIES
from icrl_graph.tasks.word_games.instances import instance
from tests.tiny_language_model import language_model_of_words, tiny_language_model

needs_torch = pytest.mark.skipif(
    not os.environ.get("CI") and None in map(find_spec, ("torch", "transformers", "peft")),
    reason="PyTorch, transformers or peft is not installed: pip install 'icrl-graph[train]'",
)


def chat(*texts: str) -> list[Message]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def rendered(messages: Any) -> str:
    return "".join(f"<{message['role']}>{message['content']}</>" for message in messages) + "<assistant>"


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


# ------------------------------------------------------------------------------------------- what was read and written


def test_a_chat_that_grows_is_one_sample_with_the_answers_masked_in() -> None:
    recorder = Recorder(letters, rendered)
    recorder.read(chat("Guess."))
    recorder.wrote("cat", letters("cat</>"), 0, end="</>")
    recorder.read(chat("Guess.", "cat", "Reward: 1"))
    recorder.wrote("cat", letters("cat</>"), 1, end="</>")
    (sample,) = recorder.samples
    assert "".join(map(chr, sample.ids)) == rendered(chat("Guess.", "cat", "Reward: 1")) + "cat</>"
    assert ["".join(map(chr, sample.ids[a.start : a.stop])) for a in sample.answers] == ["cat</>", "cat</>"]
    assert {episode for _, episode in sample.places()} == {0, 1}
    assert recorder.chat == chat("Guess.", "cat", "Reward: 1", "cat")


def test_sampled_tokens_are_kept_as_they_were_sampled() -> None:
    recorder = Recorder(letters, rendered)
    recorder.read(chat("Guess."))
    recorder.wrote("cat", [9999, 8888], 0, end="</>")  # a pair of tokens that no encoder would have made of it
    recorder.read(chat("Guess.", "cat", "Reward: 1"))
    (sample,) = recorder.samples
    assert sample.ids[sample.answers[0].start : sample.answers[0].stop] == [9999, 8888]
    assert "".join(map(chr, sample.ids[sample.answers[0].stop :])) == "<user>Reward: 1</><assistant>"


def test_a_template_that_drops_earlier_thoughts_begins_a_new_sample() -> None:
    recorder = Recorder(letters, rendered)
    recorder.read(chat("Guess."))
    recorder.wrote("hm... cat", letters("hm... cat</>"), 0, end="</>")
    recorder.read(chat("Guess.", "cat", "Reward: 1"))
    recorder.wrote("dog", letters("dog</>"), 1, end="</>")
    first, second = recorder.samples
    assert "".join(map(chr, second.ids)) == rendered(chat("Guess.", "cat", "Reward: 1")) + "dog</>"
    assert [[answer.episode for answer in sample.answers] for sample in (first, second)] == [[0], [1]]


# ------------------------------------------------------------------------------------------------------------- teachers


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_odds_of_a_teacher_are_those_by_which_it_draws(family: str, seed: int) -> None:
    game, secret = (drawn := instance(family, "train", seed)).game, drawn.secret
    kind, rng = FAMILIES[family], Random(seed)
    seen: list[tuple[tuple[str, ...], float]] = []
    for _ in range(rng.randrange(4)):
        answer = rng.choice([*kind.odds(game, seen)])
        seen.append((answer, kind.pay(game.options, answer, secret)))
    odds, draws = kind.odds(game, seen), 200
    assert sum(odds.values()) == pytest.approx(1)
    drawn_answers = [kind.best(game.options, world) for _ in range(draws) if (world := kind.fitting(game, seen, rng))]
    for answer, chance in odds.items():
        assert drawn_answers.count(answer) / draws == pytest.approx(
            chance, abs=5 * (chance * (1 - chance) / draws) ** 0.5 + 1e-9
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_where_no_secret_fits_the_odds_are_even(family: str) -> None:
    game = instance(family, "train", 3).game
    task = instance(family, "train", 3).task
    impossible = [{"role": "user", "content": task}]
    for reward in ("0.123", "0.456"):
        impossible += [{"role": "assistant", "content": ", ".join(game.options[: game.length])}]
        impossible += [{"role": "user", "content": f"Reward: {reward}"}]
    odds = references.posterior_odds(impossible)
    assert len(set(odds.values())) == 1
    assert sum(odds.values()) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def model(base: Path) -> Any:
    from icrl_graph.meta_rl.language_model import LanguageModel, Lora

    return LanguageModel.load(base, lora=Lora(first_layer=0))


def prizes(count: int) -> list[Any]:
    from icrl_graph.meta_rl.trials import Instance

    drawn = [instance("prize", "train", seed) for seed in range(count)]
    return [Instance(f"prize:train:{seed}", one.inputs(), earned) for seed, one in enumerate(drawn)]


@needs_torch
def test_the_odds_of_an_answers_tokens_follow_from_those_of_whole_answers() -> None:
    from icrl_graph.meta_rl.losses import token_odds

    odds = [([1, 2, 9], 0.5), ([1, 3, 9], 0.25), ([4, 9], 0.25)]
    assert token_odds(odds, [1, 3, 9]) == [{1: 0.75, 4: 0.25}, {2: 2 / 3, 3: 1 / 3}, {9: 1.0}]
    assert token_odds(odds, [7, 9]) == [{1: 0.75, 4: 0.25}, {}]


@needs_torch
def test_a_model_that_answers_by_the_teachers_odds_has_no_loss(model: Any) -> None:
    import torch

    from icrl_graph.meta_rl.losses import imitation
    from icrl_graph.meta_rl.samples import Answer, Sample

    sample = Sample([1, 2, 3, 4])
    with torch.no_grad():
        network = model.model(torch.tensor([sample.ids])).logits[0].softmax(-1)
    targets = tuple({token: float(chance) for token, chance in enumerate(network[place])} for place in (1, 2))
    sample.answers.append(Answer(2, 4, 0, targets=targets))
    assert imitation(model, [sample]).loss.item() == pytest.approx(0, abs=1e-5)


@needs_torch
def test_log_probabilities_recorded_while_playing_are_those_of_the_whole_sequence(model: Any) -> None:
    import torch

    from icrl_graph.meta_rl.trials import play

    trials = play(model, [*prizes(2), *prizes(1)], 3, seed=1)  # of the same instance are two
    samples = [sample for trial in trials for sample in trial.samples]
    recorded = [logprob for sample in samples for answer in sample.answers for logprob in answer.logprobs]
    with torch.no_grad():
        logprobs = model.logprobs(samples)
    written = torch.tensor([sample.ids[at + 1] for sample in samples for at, _ in sample.places()])
    assert recorded == pytest.approx(logprobs.gather(1, written[:, None])[:, 0].tolist(), abs=1e-4)
    assert [len(trial.returns) for trial in trials] == [3, 3, 3]


@needs_torch
@pytest.mark.parametrize("ids", [[[5, 6, 7, 8, 9], [5, 6, 7, 10]], [[5, 6, 7, 8, 9], [6, 6, 7, 8]], [[5, 6, 7, 8]] * 2])
def test_what_sequences_begin_with_in_common_is_read_once_and_nothing_else_changes(
    model: Any, ids: list[list[int]]
) -> None:
    import torch

    from icrl_graph.meta_rl.samples import Answer, Sample

    samples = [Sample(one, [Answer(2, 4, 0)]) for one in ids]
    alone = torch.cat([model.model(torch.tensor([one])).logits[0, 1:3].log_softmax(-1) for one in ids])
    together = model.logprobs(samples)
    assert torch.allclose(together, alone, atol=1e-5)
    gradients = [torch.autograd.grad(of[:, 3].sum(), model.parameters()) for of in (together, alone)]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))


@needs_torch
def test_an_adapter_is_of_float32_where_the_frozen_weights_are_of_bfloat16(base: Path) -> None:
    import torch

    from icrl_graph.meta_rl.language_model import LanguageModel, Lora
    from icrl_graph.meta_rl.trials import play
    from icrl_graph.meta_rl.word_learner import Distillation, distil

    model = LanguageModel.load(base, lora=Lora(first_layer=0), dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    distil(model, Distillation(trials=2, episodes=2), 0)
    assert {weight.grad.dtype for weight in model.parameters()} == {torch.float32}
    (trial,) = play(model, prizes(1), 2, seed=1)
    assert len(trial.returns) == 2


@needs_torch
def test_the_policy_gradient_is_the_advantage_of_the_tokens_own_episode(model: Any) -> None:
    import torch

    from icrl_graph.meta_rl.losses import reinforcement
    from icrl_graph.meta_rl.samples import Answer, Sample

    sample = Sample([5, 6, 7, 8, 9], [Answer(1, 3, 0), Answer(4, 5, 1)])
    with torch.no_grad():
        logprobs = model.model(torch.tensor([sample.ids])).logits[0].log_softmax(-1)
    expected = 2.0 * (logprobs[0, 6] + logprobs[1, 7]) - 3.0 * logprobs[3, 9]
    loss = reinforcement(model, [sample], np.array([[2.0, -3.0]]), episodes=4, weight=0.0).loss
    assert loss.item() == pytest.approx(-expected.item() / 4, rel=1e-4)


@needs_torch
@pytest.mark.parametrize("stage", ["distil", "reinforce"])
def test_a_training_that_is_resumed_gives_the_same_weights(stage: str, base: Path, tmp_path: Path) -> None:
    from icrl_graph.meta_rl import word_learner
    from icrl_graph.meta_rl.adapter_training import fit
    from icrl_graph.meta_rl.language_model import LanguageModel, Lora

    class Killed(Exception):
        pass

    def kill(done: int, facts: Any) -> None:
        if done == 3:
            raise Killed

    kinds: dict[str, Any] = {
        "distil": (word_learner.distil, word_learner.Distillation(iterations=4, trials=2, episodes=2, save_every=2)),
        "reinforce": (
            word_learner.reinforce,
            word_learner.Reinforcement(iterations=4, instances=1, group_size=2, episodes=2, save_every=2),
        ),
    }
    step, recipe = kinds[stage]

    def trained(folder: Path, progress: Any = None) -> Any:
        import torch

        torch.manual_seed(0)
        model = LanguageModel.load(base, lora=Lora(first_layer=0))
        fit(model, step, recipe, folder, progress)
        return [weight.detach().clone() for weight in model.parameters()]

    whole = trained(tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", kill)
    resumed = trained(tmp_path / "killed")
    assert all(bool((one == other).all()) for one, other in zip(whole, resumed, strict=True))
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["iteration"] for line in logs[0].splitlines()] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="holds a training with other settings, seed 0 -> 1: choose another folder"):
        fit(LanguageModel.load(base, lora=Lora(first_layer=0)), step, replace(recipe, seed=1), tmp_path / "whole")


@needs_torch
def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    from icrl_graph.meta_rl.language_model import LanguageModel

    with pytest.raises(ValueError, match="has no chat template"):
        LanguageModel.load(tiny_language_model(tmp_path, template=None))


@needs_torch
def test_what_can_not_be_trained_is_refused_before_the_first_stage(base: Path, tmp_path: Path) -> None:
    from icrl_graph.meta_rl.word_learner import Distillation, Reinforcement, train

    with pytest.raises(ValueError, match="credit"):
        Reinforcement(credit="theirs")
    with pytest.raises(ValueError, match="unknown family 'prizes'; choose of prize, amounts, closeness"):
        Distillation(families=("amounts", "prizes"))
    with pytest.raises(ValueError, match="at least one family"):
        Reinforcement(families=())
    with pytest.raises(ValueError, match="there is no model at"):
        train(tmp_path / "none", tmp_path, Distillation(), Reinforcement())
    assert not (tmp_path / "distil").exists()


@needs_torch
def test_both_stages_make_an_adapter_that_names_its_base(base: Path, tmp_path: Path) -> None:
    from icrl_graph.meta_rl.word_learner import Distillation, Reinforcement, train
    from icrl_graph.models.gguf import facts

    told: list[Any] = []
    first = Distillation(iterations=2, trials=2, episodes=2)
    second = Reinforcement(iterations=1, instances=2, group_size=2, episodes=2)
    adapter = train(base, tmp_path, first, second, lambda *iteration: told.append(iteration[:2]))
    assert told == [("distil", 1), ("distil", 2), ("reinforce", 1)]
    of_adapter = facts(adapter)
    assert (of_adapter["general.type"], of_adapter["general.base_model.0.name"]) == ("adapter", base.stem)
    assert of_adapter["adapter.lora.alpha"] == 32.0


def trained_shortly(base: Path, folder: Path) -> Path:
    from icrl_graph.meta_rl.word_learner import Distillation, Reinforcement, train

    first = Distillation(iterations=1, trials=1, episodes=2)
    return train(base, folder, first, Reinforcement(iterations=1, instances=1, group_size=2, episodes=2))


@needs_torch
@pytest.mark.parametrize(
    ("file", "left", "told"),
    [
        ("distil/checkpoint.pt", 500, "checkpoint.pt is damaged"),
        ("reinforce/checkpoint.pt", 0, "checkpoint.pt is damaged"),
        ("distil/adapter_model.safetensors", 100, "distil can't be read as a whole adapter"),
    ],
)
def test_a_file_of_a_training_that_was_cut_off_is_named(
    file: str, left: int, told: str, base: Path, tmp_path: Path
) -> None:
    adapter = trained_shortly(base, tmp_path).read_bytes()
    os.truncate(tmp_path / file, left)
    with pytest.raises(ValueError, match=told):
        trained_shortly(base, tmp_path)
    assert (tmp_path / "adapter.gguf").read_bytes() == adapter


@needs_torch
def test_a_base_that_is_no_whole_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty can't be read as a whole model"):
        trained_shortly(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"cut.gguf can't be read as a whole model"):
        trained_shortly(tmp_path / "cut.gguf", tmp_path / "out")


@needs_torch
def test_the_command_says_how_the_adapter_of_another_base_is_run(base: Path, tmp_path: Path) -> None:
    short = ["--iterations", "1", "--episodes", "1", "--instances", "1", "--family", "order"]
    done = CliRunner().invoke(app, ["train", "words", "--base", str(base), "--out", str(tmp_path), *short])
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "base='base.gguf') runs it" in told
    assert "meta-eval" not in told  # which could not run it


@needs_torch
def test_two_processes_do_not_train_in_one_folder(base: Path, tmp_path: Path) -> None:
    from icrl_graph.execution.folder_lock import lock_folder
    from icrl_graph.meta_rl.word_learner import LOCK

    with open(tmp_path / LOCK, "ab") as file:
        lock_folder(file, tmp_path)
        with pytest.raises(BlockingIOError, match="another process works in"):
            trained_shortly(base, tmp_path)
    assert trained_shortly(base, tmp_path).exists()


@needs_torch
def test_every_family_of_games_can_be_trained_and_the_others_are_held_out(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icrl_graph.meta_rl import word_learner

    drawn: set[str] = set()

    def watched(family: Any, *args: Any, **options: Any) -> Any:
        drawn.add(family)
        return instance(family, *args, **options)

    monkeypatch.setattr(word_learner, "instance", watched)
    trained = ("closeness", "order", "mastermind")
    word_learner.distil(model, word_learner.Distillation(trials=8, episodes=2, families=trained), 0)
    assert drawn == set(trained)
    recipe = word_learner.Reinforcement(instances=2, group_size=2, episodes=2, families=("order",))
    word_learner.reinforce(model, recipe, 0)
    assert drawn == set(trained)


@needs_torch
def test_queries_and_keys_match_in_the_order_of_llama_cpp_as_in_that_of_transformers() -> None:
    from icrl_graph.meta_rl.export import _rotary_order

    heads, width, angle = 2, 8, np.outer([3.0, 5.0], 0.7 ** np.arange(4))  # of two places
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, heads * width, 1)).astype(np.float32)

    def halves(x: Any, turn: Any) -> Any:
        a, b = x[:, :4], x[:, 4:]
        return np.concatenate([a * np.cos(turn) - b * np.sin(turn), a * np.sin(turn) + b * np.cos(turn)], 1)

    def neighbours(x: Any, turn: Any) -> Any:
        a, b = x[:, ::2], x[:, 1::2]
        return np.stack([a * np.cos(turn) - b * np.sin(turn), a * np.sin(turn) + b * np.cos(turn)], 2).reshape(x.shape)

    def scores(rotate: Any, q: Any, k: Any) -> Any:
        q, k = (rotate(x.reshape(heads, width), turn) for x, turn in zip((q, k), angle, strict=True))
        return (q * k).sum(1)

    ordered = (_rotary_order(x, heads) for x in (queries, keys))
    assert scores(neighbours, *ordered) == pytest.approx(scores(halves, queries, keys), rel=1e-4)


@needs_torch
def test_whole_weights_answer_as_the_base_with_its_adapter(model: Any, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from icrl_graph.meta_rl.export import whole

    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05)
        expected = model.model(torch.tensor([[1, 2, 3]])).logits
        whole(model, tmp_path)
        assert torch.allclose(
            AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor([[1, 2, 3]])).logits, expected, atol=1e-4
        )
        assert torch.equal(model.model(torch.tensor([[1, 2, 3]])).logits, expected)


@needs_torch
def test_records_for_verl_mask_what_was_read(model: Any) -> None:
    from icrl_graph.meta_rl.export import verl_records
    from icrl_graph.meta_rl.trials import play

    (trial,) = play(model, prizes(1), 2, seed=1)
    (record,) = verl_records(trial, np.array([1.5, -0.5]))
    (sample,) = trial.samples
    assert record["prompt_ids"] + record["response_ids"] == sample.ids
    written = [token for token, mask in zip(record["response_ids"], record["response_mask"], strict=True) if mask]
    assert written == [sample.ids[at + 1] for at, _ in sample.places()]
    assert [gain for gain in record["advantages"] if gain] == [
        {0: 1.5, 1: -0.5}[episode] for _, episode in sample.places()
    ]
    assert record["reward_score"] == sum(trial.returns)


# ---------------------------------------------------------------------------------------- a training in its short form


def prize_of_two(name: str, told: tuple[str, ...]) -> Any:
    """A hidden prize behind one of two words, in one of these wordings."""
    from icrl_graph.meta_rl.trials import Instance

    rng = Random(name)
    game = wordings.Game("prize", tuple(rng.sample(["cat", "dog"], 2)))
    task = wordings.write(game, rng.choice(told), "animal", "This never changes.")
    return Instance(name, {"task": task, "task_data": data(game, (rng.choice(game.options),))}, earned)


def learner_from_scratch(folder: Path, told: tuple[str, ...], seed: int = 0) -> Any:
    """A model of random weights that has seen what the teacher does in games with these wordings."""
    from icrl_graph.meta_rl.adapter_training import fit
    from icrl_graph.meta_rl.language_model import LanguageModel
    from icrl_graph.meta_rl.trials import teach
    from icrl_graph.meta_rl.word_learner import Distillation, imitate

    words = re.findall(r"\w+|[^\w\s]", " ".join([*told, "cat dog animal This never changes. Reward: 0 1"]))
    model = LanguageModel.load(language_model_of_words(folder, words, seed))
    for name, weight in model.model.named_parameters():
        weight.requires_grad_("lora" not in name)  # there is nothing yet that could be adapted

    def odds(messages: Any) -> dict[str, float]:
        return {write_answer(answer): chance for answer, chance in references.posterior_odds(messages).items()}

    def careless(messages: Any, rng: Random) -> str | None:
        return references.uniform(messages, rng) if rng.random() < 0.2 else None

    games = [prize_of_two(f"train/{seed}/{number}", told) for number in range(96)]
    taught = [teach(model, game, odds, careless, 4).samples[-1] for game in games]

    def step(model: Any, recipe: Any, iteration: int) -> dict[str, Any]:
        return imitate(model, recipe, Random(f"{recipe.seed}/{iteration}").sample(taught, recipe.trials))

    recipe = Distillation(iterations=120, learning_rate=6e-3, trials=16, part=16, workers=1, save_every=120, seed=seed)
    fit(model, step, recipe, folder / "training")
    return model


def mean_rewards(model: Any, told: tuple[str, ...], **options: Any) -> Any:
    from icrl_graph.meta_rl.trials import play

    games = [prize_of_two(f"held out/{number}", told) for number in range(32)]
    trials = play(model, games, 4, max_response_tokens=2, **options)
    return np.array([trial.returns for trial in trials]).mean(axis=0)


@needs_torch
@pytest.mark.slow
def test_a_trained_model_learns_from_its_rewards_in_games_told_in_new_wordings(tmp_path: Path) -> None:
    model = learner_from_scratch(tmp_path, wordings.TRAINING["prize"])
    learned = mean_rewards(model, wordings.HELD_OUT["prize"])
    zeroed = mean_rewards(model, wordings.HELD_OUT["prize"], show="zero")
    assert learned[-1] > max(learned[0], zeroed[-1]) + 0.25
    assert zeroed[-1] < zeroed[0] + 0.2
