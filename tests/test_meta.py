"""The recipe of the shipped learner. Needs PyTorch: on CI always, elsewhere where it is installed."""

import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from icrl_graph.errors import MissingExtra
from icrl_graph.games.hidden_color import colors
from icrl_graph.learner.transformer import Shape, Transformer

try:
    import torch
except ImportError:
    if os.environ.get("CI"):
        raise
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed: pip install 'icrl-graph[train]'")


@needs_torch
def test_numpy_computes_what_pytorch_was_trained_as(tmp_path: Path) -> None:
    from icrl_graph.meta.hidden_color import network
    from icrl_graph.meta.layers import export

    torch.manual_seed(0)
    student = network(Shape())
    export(student, tmp_path / "weights.npz")
    with torch.no_grad():
        for name, array in student.named_arrays():  # as they are on disk, in half precision
            array.copy_(array.half().float())
            assert array.shape, name
    frozen = Transformer(tmp_path / "weights.npz")
    guesses, levels = torch.randint(16, (4, 8, 3)), torch.randint(22, (4, 8))
    with torch.no_grad():
        expected = student(guesses, levels).numpy()
    for game in range(4):
        for number in range(8):
            history = [(guesses[game, k].tolist(), _level(int(levels[game, k]))) for k in range(number)]
            begun: list[int] = guesses[game, number].tolist()
            for place in range(3):
                scores = frozen.logits(history, begun[:place])
                np.testing.assert_allclose(scores, expected[game, number, place], atol=1e-4)


def _level(shown: int) -> int | None:
    return None if shown == 21 else shown


@needs_torch
def test_the_recipe_is_repeatable_and_its_loss_falls(tmp_path: Path) -> None:
    from icrl_graph.meta.hidden_color import Recipe, train
    from icrl_graph.meta.layers import export

    losses: list[float] = []
    for name in ("one", "two"):
        small = Shape(width=32, layers=1, heads=2, rounds=4)
        student = train(Recipe(iterations=150, batch=16), lambda done, loss: losses.append(loss), small)
        export(student, tmp_path / name)
    assert losses[:150] == losses[150:]
    assert losses[149] < losses[0]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert len(Transformer(tmp_path / "one").guess([], Random(0))) == 3


@needs_torch
def test_the_teacher_never_hides_a_held_out_color_and_its_targets_are_exact() -> None:
    from icrl_graph.meta.hidden_color import Recipe, _Teacher

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
                begun = guesses[game, number, :place].tolist()
                left = [c for c in fitting if c[:place] == begun]
                odds = [sum(c[place] == digit for c in left) / len(left) for digit in range(16)]
                np.testing.assert_allclose(targets[game, number, place], odds, atol=1e-5)
            guess, shown = guesses[game, number].tolist(), int(levels[game, number])
            fitting = [
                c for c in fitting if max(0, 20 - sum(abs(a - b) for a, b in zip(c, guess, strict=True))) == shown
            ]


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from icrl_graph.meta.hidden_color import Recipe, train

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"icrl-graph\[train\]"):
        train(Recipe(iterations=1))
