"""How the shipped learner of hidden color was made: distillation of exact posterior sampling into a small transformer.

A teacher that knows the rules samples each guess from the colors that still fit the rewards it has seen (the exact
Bayesian posterior over all 4096). The student sees the same histories and is trained towards the teacher's exact
distribution of every digit, given the history and the digits already chosen: soft labels, Kullback-Leibler loss. A
network that has learned this samples from the posterior by reading its context; no weight changes when it plays.

Half of the histories are not the teacher's own: some begin with random guesses, in some every guess may be a careless
one, and now and then a reward is missing. So the student knows what to do after guesses that it would not have made.
The hidden colors of training never include the held-out ones.

The recipe is fixed by iterations and seeds, not by minutes. It runs on one CPU core and needs PyTorch:
`pip install 'icrl-graph[train]'`, then `icrl train hidden-color --out DIR`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from icrl_graph.games.hidden_color import DIGITS, SPREAD, colors
from icrl_graph.learner.transformer import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, apart from the version of PyTorch and the processor."""

    iterations: int = 22_000
    batch: int = 96
    """Games per iteration, `Shape.rounds` guesses each."""
    learning_rate: float = 2e-3
    """Peak; 100 iterations of warm-up, then a linear fall over the last 60 % to 2 % of it."""
    weight_decay: float = 0.01
    prefixed: float = 0.25
    """Share of games that begin with 1 to 5 random guesses."""
    careless: float = 0.25
    """Share of games in which each guess is, with probability .3, moved by up to 4 steps a digit."""
    unscored: float = 0.04
    """Probability that the reward of a guess is not shown."""
    seed: int = 0


def train(recipe: Recipe, progress: Callable[[int, float], None] | None = None, shape: Shape | None = None) -> Any:
    """Run the recipe.

    Args:
        recipe: what to run.
        progress: called after each iteration with its number (from 1) and the smoothed loss in nats.
        shape: the network's measures.

    Returns:
        The trained `torch.nn.Module`; `export` writes it.
    """
    torch = _torch()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    shape = shape or Shape()
    student = network(shape)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    teacher = _Teacher(shape, recipe)
    smoothed: float | None = None
    for iteration in range(recipe.iterations):
        warm_up = min(1.0, (iteration + 1) / 100)
        decay = min(1.0, (recipe.iterations - iteration) / (0.6 * recipe.iterations))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warm_up * max(0.02, decay)
        guesses, levels, targets = teacher.games(recipe.batch)
        log_odds = torch.log_softmax(student(guesses, levels), -1)
        loss = torch.nn.functional.kl_div(log_odds, targets, reduction="none").sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        smoothed = loss.item() if smoothed is None else 0.98 * smoothed + 0.02 * loss.item()
        if progress is not None:
            progress(iteration + 1, smoothed)
    return student.eval()


def export(student: Any, path: str | PathLike[str]) -> None:
    """Write the weights, rounded to 16-bit floats, for `icrl_graph.learner.transformer.Transformer`."""
    arrays = {name: value.detach().numpy().astype(np.float16) for name, value in student.named_arrays()}
    shape = np.frombuffer(json.dumps(asdict(student.shape)).encode(), dtype=np.uint8)
    with open(path, "wb") as file:  # given a name, savez would append .npz to it
        np.savez(file, shape=shape, **arrays)


class _Teacher:
    """Exact posterior sampling for a batch of games at once."""

    def __init__(self, shape: Shape, recipe: Recipe) -> None:
        self.torch = torch = _torch()
        self.shape, self.recipe = shape, recipe
        every = sorted(colors("train") + colors("test"))
        self.colors: Tensor = torch.tensor(every)
        self.one_hot: Tensor = torch.nn.functional.one_hot(self.colors, DIGITS).float()
        self.train: Tensor = torch.tensor([every.index(c) for c in colors("train")])
        distance = torch.zeros(len(every), len(every), dtype=torch.int16)
        for place in range(shape.places):
            digit = self.colors[:, place].to(torch.int16)
            distance += (digit[:, None] - digit[None]).abs()
        self.levels: Tensor = (SPREAD - distance).clamp_min(0).to(torch.uint8)

    def games(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Guesses (batch, rounds, places), shown levels (batch, rounds), targets (batch, rounds, places, digits)."""
        torch, shape, recipe = self.torch, self.shape, self.recipe
        secrets = self.train[torch.randint(len(self.train), (batch,))]
        fitting = torch.ones(batch, len(self.colors), dtype=torch.bool)
        kind = torch.rand(batch)
        prefix = torch.where(kind < recipe.prefixed, torch.randint(1, 6, (batch,)), 0)
        careless = (kind >= recipe.prefixed) & (kind < recipe.prefixed + recipe.careless)
        guesses, shown, targets = [], [], []
        for number in range(shape.rounds):
            planned = self._pick(fitting)
            moved = (self.colors[planned] + torch.randint(-4, 5, (batch, shape.places))).clamp(0, DIGITS - 1)
            slip = careless & (torch.rand(batch) < 0.3)
            blind = number < prefix
            guess = torch.where(slip, self._index(moved), planned)
            guess = torch.where(blind, torch.randint(len(self.colors), (batch,)), guess)
            targets.append(self._posterior(fitting, guess))
            hidden = torch.rand(batch) < recipe.unscored
            level = self.levels[guess, secrets]
            fitting &= hidden[:, None] | (self.levels[guess] == level[:, None])
            guesses.append(self.colors[guess])
            shown.append(torch.where(hidden, shape.levels, level.long()))
        return torch.stack(guesses, 1), torch.stack(shown, 1), torch.stack(targets, 1)

    def _posterior(self, fitting: Tensor, guess: Tensor) -> Tensor:
        """For each place, the distribution of its digit among the fitting colors that share the guess's digits so far.

        A guess that does not come from the posterior may leave no such color; the target is then the distribution
        among all fitting colors, whatever the digits so far.
        """
        torch = self.torch
        left, targets = fitting, []
        for place in range(self.shape.places):
            left = torch.where(left.any(-1, keepdim=True), left, fitting)
            odds = left.float() @ self.one_hot[:, place]
            targets.append(odds / odds.sum(-1, keepdim=True))
            left = left & (self.colors[None, :, place] == self.colors[guess, place][:, None])
        return torch.stack(targets, 1)

    def _pick(self, fitting: Tensor) -> Tensor:
        """A uniform choice among the true entries of each row."""
        torch = self.torch
        count = fitting.cumsum(1, dtype=torch.int32)
        wanted = (torch.rand(len(fitting)) * count[:, -1]).int() + 1
        return torch.searchsorted(count, wanted[:, None]).squeeze(1).clamp_max(len(self.colors) - 1)

    def _index(self, digits: Tensor) -> Tensor:
        return (digits[:, 0] * DIGITS + digits[:, 1]) * DIGITS + digits[:, 2]


def network(shape: Shape) -> Any:
    """The network in PyTorch: `module(guesses, levels)` gives the scores (batch, rounds, places, digits)."""
    torch = _torch()
    nn = torch.nn

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.shape = shape
            width, wide = shape.width, 4 * shape.width
            self.arrays = nn.ParameterDict()
            tables = {
                "digit": shape.digits + 1,
                "before": shape.digits + 1,
                "reward": shape.levels + 1,
                "place": shape.places,
            }
            for name, rows in tables.items():
                self.arrays[name] = nn.Parameter(0.5 * torch.randn(rows, width))
            self.arrays["round"] = nn.Parameter(torch.zeros(shape.rounds, width))
            shrink = 0.5 / shape.layers**0.5
            for i in range(shape.layers):
                self._linear(f"{i}.qkv", width, 3 * width)
                self._linear(f"{i}.out", width, width, shrink)
                self._linear(f"{i}.up", width, wide)
                self._linear(f"{i}.down", wide, width, shrink)
                self._norm(f"{i}.norm1")
                self._norm(f"{i}.norm2")
            self._norm("norm")
            self._linear("head", width, shape.digits, 0.05)

        def named_arrays(self) -> Any:
            return ((name.replace("/", "."), value) for name, value in self.arrays.items())

        def _linear(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
            key = name.replace(".", "/")  # a parameter's name must not hold a dot
            self.arrays[key] = nn.Parameter(scale / rows**0.5 * torch.randn(rows, columns))
            self.arrays[key + "_bias"] = nn.Parameter(torch.zeros(columns))

        def _norm(self, name: str) -> None:
            self.arrays[name.replace(".", "/")] = nn.Parameter(
                torch.stack([torch.ones(shape.width), torch.zeros(shape.width)])
            )

        def forward(self, guesses: Tensor, levels: Tensor) -> Tensor:
            w, (batch, rounds, places) = self.arrays, guesses.shape
            none = torch.full((batch, 1, places), shape.digits)
            before = torch.cat([none, guesses[:, :-1]], 1)
            start = torch.full((batch, rounds, 1), shape.digits)
            digit = torch.cat([start, guesses[:, :, :-1]], 2)
            reward = torch.cat([torch.full((batch, 1), shape.levels), levels[:, :-1]], 1)
            x = w["digit"][digit] + w["before"][before] + w["reward"][reward][:, :, None]
            x = x + w["place"] + w["round"][:rounds, None]
            x = x.reshape(batch, rounds * places, shape.width)
            for i in range(shape.layers):
                y = norm(x, w[f"{i}/norm1"])
                parts = (y @ w[f"{i}/qkv"] + w[f"{i}/qkv_bias"]).view(
                    batch, -1, 3, shape.heads, shape.width // shape.heads
                )
                q, k, v = parts.permute(2, 0, 3, 1, 4)
                mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = x + mixed.transpose(1, 2).reshape(batch, -1, shape.width) @ w[f"{i}/out"] + w[f"{i}/out_bias"]
                y = norm(x, w[f"{i}/norm2"])
                x = x + torch.relu(y @ w[f"{i}/up"] + w[f"{i}/up_bias"]) @ w[f"{i}/down"] + w[f"{i}/down_bias"]
            scores = norm(x, w["norm"]) @ w["head"] + w["head_bias"]
            return scores.view(batch, rounds, places, shape.digits)

    def norm(x: Tensor, scale_and_shift: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (shape.width,), scale_and_shift[0], scale_and_shift[1])

    return Network()


def _torch() -> Any:
    try:
        import torch
    except ImportError as missing:
        from icrl_graph.errors import missing_extra

        raise missing_extra("torch", "train") from missing
    return torch
