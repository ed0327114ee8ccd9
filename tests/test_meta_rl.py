"""The recipes of the shipped learners. Needs PyTorch: on CI always, elsewhere where it is installed."""

import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from icrl_graph.models.learners.transformer import Shape, Transformer
from icrl_graph.tasks.hidden_color import colors
from tests.command_line import ROOT, process

try:
    import torch
except ImportError:
    if os.environ.get("CI"):
        raise
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed: pip install 'icrl-graph[train]'")


@needs_torch
def test_numpy_computes_what_pytorch_was_trained_as(tmp_path: Path) -> None:
    from icrl_graph.meta_rl.hidden_color import Student
    from icrl_graph.meta_rl.layers import export

    torch.manual_seed(0)
    student = Student(Shape())
    export(student, tmp_path / "weights.npz")
    with torch.no_grad():
        for name, array in student.named_arrays():  # as they are on disk, in half precision
            array.copy_(array.half().float())
            assert array.shape, name
    exported = Transformer(tmp_path / "weights.npz")
    guesses, levels = torch.randint(16, (4, 8, 3)), torch.randint(22, (4, 8))
    with torch.no_grad():
        expected = student(guesses, levels).numpy()
    for game in range(4):
        for number in range(8):
            history = [(guesses[game, k].tolist(), _level(int(levels[game, k]))) for k in range(number)]
            chosen: list[int] = guesses[game, number].tolist()
            for place in range(3):
                scores = exported.logits(history, chosen[:place])
                np.testing.assert_allclose(scores, expected[game, number, place], atol=1e-4)


def _level(shown: int) -> int | None:
    return None if shown == 21 else shown


@needs_torch
def test_the_recipe_is_repeatable_and_its_loss_falls(tmp_path: Path) -> None:
    from icrl_graph.meta_rl.hidden_color import Recipe, train
    from icrl_graph.meta_rl.layers import export

    losses: list[float] = []
    for name in ("one", "two"):
        small = Shape(width=32, layers=1, heads=2, rounds=4)
        recipe = Recipe(iterations=100, batch=16, learning_rate=0.02)
        student = train(recipe, lambda done, loss: losses.append(loss), small)
        export(student, tmp_path / name)
    assert losses[:100] == losses[100:]
    assert losses[99] < losses[0]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert len(Transformer(tmp_path / "one").guess([], Random(0))) == 3


@needs_torch
def test_the_teacher_never_hides_a_held_out_color_and_its_targets_are_exact() -> None:
    from icrl_graph.meta_rl.hidden_color import Recipe, _Teacher

    torch.manual_seed(0)
    teacher = _Teacher(Shape(), Recipe(prefixed=0.0, careless=0.0, unscored=0.0))
    held_out = {colors("test").index(c) for c in colors("test")}
    assert len(held_out) == 1000
    hidden: Any = {tuple(teacher.colors[i].tolist()) for i in teacher.train}
    assert not hidden & set(colors("test"))
    guesses, levels, targets = teacher.games(3)
    for game in range(3):
        fitting = teacher.colors.tolist()
        for number in range(8):
            for place in range(3):
                chosen = guesses[game, number, :place].tolist()
                left = [c for c in fitting if c[:place] == chosen]
                odds = [sum(c[place] == digit for c in left) / len(left) for digit in range(16)]
                np.testing.assert_allclose(targets[game, number, place], odds, atol=1e-5)
            guess, shown = guesses[game, number].tolist(), int(levels[game, number])
            fitting = [
                c for c in fitting if max(0, 20 - sum(abs(a - b) for a, b in zip(c, guess, strict=True))) == shown
            ]


# ---------------------------------------------------------------------------------------------------------- game of 24


@pytest.fixture(scope="module")
def board() -> Any:
    from icrl_graph.meta_rl.game24 import Board

    return Board()


def _games(board: Any, student: Any = None, **changes: Any) -> Any:
    from icrl_graph.meta_rl.game24 import Recipe, draw, play

    torch.manual_seed(1)
    return play(board, draw(board, Recipe(batch=12, **changes)), 5, student)


@needs_torch
def test_numpy_computes_what_the_cross_attention_was_trained_as(tmp_path: Path, board: Any) -> None:
    from icrl_graph.meta_rl.game24 import _SLICES, Student
    from icrl_graph.meta_rl.layers import export
    from icrl_graph.models.learners.cross_attention import CrossAttention, Shape, Token

    torch.manual_seed(0)
    student = Student(Shape())
    export(student, tmp_path / "weights.npz")
    with torch.no_grad():
        for _, array in student.named_arrays():
            array.copy_(array.half().float())
    games, rounds = _games(board, student), torch.tensor([4, 0, 2])
    with torch.no_grad():
        torch.manual_seed(7)
        expected = student(games, rounds)
    torch.manual_seed(7)
    codes = torch.randn(len(board.states), 64).numpy()
    exported = CrossAttention(tmp_path / "weights.npz")
    for game in range(3):
        for at, number in enumerate(rounds.tolist()):
            history = [
                Token(i, *(int(part[game, k, i]) for part in (games.before, games.after, games.shown)))
                for k in range(number)
                for i in range(3)
            ]
            judge = exported.read(history, lambda state: codes[state])
            for step, part in enumerate(_SLICES):
                options, base = games.options[game, number, part].tolist(), games.base[game, number, part].tolist()
                np.testing.assert_allclose(judge(step, options, base), expected[game, at, part], atol=2e-3)


@needs_torch
def test_numpy_computes_what_the_valuation_was_trained_as(tmp_path: Path) -> None:
    from icrl_graph.meta_rl.game24_base import Student
    from icrl_graph.meta_rl.layers import export
    from icrl_graph.models.learners.valuation import Shape, Valuation

    torch.manual_seed(0)
    student = Student(Shape())
    export(student, tmp_path / "weights.npz")
    states = torch.randint(0, 400, (50, 3))
    with torch.no_grad():
        for _, array in student.named_arrays():
            array.copy_(array.half().float())
        expected = student(states)
    np.testing.assert_allclose(Valuation(tmp_path / "weights.npz").values(states.tolist()), expected, atol=1e-3)


@needs_torch
def test_the_teacher_of_a_batch_is_the_teacher_that_plays(board: Any) -> None:
    from icrl_graph.meta_rl.game24 import _SLICES
    from icrl_graph.models.learners.cross_attention import NOT_SHOWN
    from icrl_graph.tasks.game24.game import Tried, prune

    games = _games(board, prefixed=0.5)
    for game in range(12):
        history: list[Tried] = []
        for number in range(5):
            judge = prune(history, Random(0))
            for step, part in enumerate(_SLICES):
                legal = games.legal[game, number, part]
                options = [board.states[i] for i in games.options[game, number, part][legal].tolist()]
                scores = judge(step, options, games.base[game, number, part][legal].tolist())
                odds = torch.softmax(torch.tensor(scores), -1)
                np.testing.assert_allclose(games.teacher[game, number, part][legal], odds, atol=1e-5)
            for i in range(3):
                before, after, shown = (int(x[game, number, i]) for x in (games.before, games.after, games.shown))
                reward = None if shown == NOT_SHOWN else float(shown)
                history.append(Tried(i, board.states[before], board.states[after], reward))


@needs_torch
def test_no_training_plays_a_held_out_puzzle(board: Any) -> None:
    from icrl_graph.meta_rl.game24 import Recipe, draw
    from icrl_graph.meta_rl.game24_base import RECIPES, _positions
    from icrl_graph.tasks.game24.game import split

    train = set(split("train"))
    assert {board.states[i] for i in draw(board, Recipe(batch=2000)).puzzles.tolist()} <= train
    for recipe in RECIPES.values():
        (first, *_) = _positions(board, board.puzzles("train")[: recipe.puzzles])
        assert {board.states[i] for i in first.tolist()} <= train
        assert len(first) == recipe.puzzles


@needs_torch
def test_the_modes_show_every_step_or_the_outcome_or_nothing() -> None:
    from icrl_graph.meta_rl.game24 import _shown

    truth = torch.tensor([[1, 1, 1], [1, 0, 0]] * 3)
    mode = torch.tensor([0, 0, 1, 1, 2, 2])
    assert _shown(truth, mode).tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1], [2, 2, 0], [2, 2, 2], [2, 2, 2]]


@needs_torch
def test_the_recipes_of_game_of_24_are_repeatable(tmp_path: Path) -> None:
    from icrl_graph.meta_rl import game24, game24_base
    from icrl_graph.meta_rl.layers import export

    base_losses: list[float] = []
    for name in ("one", "two"):
        export(game24.train(game24.Recipe(iterations=9, batch=16, rounds=6, graded=2)), tmp_path / name)
        recipe = game24_base.Recipe(puzzles=5, iterations=30)
        base = game24_base.train(recipe, lambda done, loss: base_losses.append(loss))
        export(base, tmp_path / f"{name}_base")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one_base").read_bytes() == (tmp_path / "two_base").read_bytes()
    assert base_losses[29] < base_losses[0]


@needs_torch
def test_the_learning_rate_rises_then_falls_to_2_percent() -> None:
    from icrl_graph.meta_rl.training import Recipe

    recipe = Recipe(iterations=1000, learning_rate=0.5, warm_up=10, fall=0.25)
    rates = [recipe.learning_rate_at(iteration) for iteration in range(1000)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9:750] == [0.5] * 741
    assert rates[875] == pytest.approx(0.25)
    assert rates[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("learner", ["hidden-color", "game24"])
def test_without_pytorch_the_extra_is_named(learner: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError")
    done = process("train", learner, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert "pip install 'icrl-graph[train]'" in done.stderr
