"""How the shipped learner of hidden color was made: distillation of exact posterior sampling into a small transformer.

A teacher that knows the rules samples each guess from the colors that still fit the rewards it has seen (the exact
Bayesian posterior over all 4096). The student sees the same histories and is trained towards the teacher's exact
distribution of every digit, given the history and the digits already chosen: soft labels, Kullback-Leibler loss. A
network that has learned this samples from the posterior by reading its context; no weight changes when it plays.

Half of the histories are not the teacher's alone: some begin with random guesses, in some every guess may be a careless
one, and now and then a reward is missing. So the student is trained on what follows guesses that it would not have
made. The hidden colors of training never include the held-out ones.

The recipe is fixed by iterations and seeds, not by minutes. It runs on one CPU core and needs PyTorch:
`pip install 'icrl-graph[train]'`, then `icrl train hidden-color --out DIR`.
"""

from __future__ import annotations

from dataclasses import dataclass

from icrl_graph.meta_rl import training
from icrl_graph.meta_rl.layers import Network
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.training import Progress, fit
from icrl_graph.models.learners.transformer import Shape
from icrl_graph.tasks.hidden_color import DIGITS, SPREAD, colors


@dataclass(frozen=True, kw_only=True)
class Recipe(training.Recipe):
    """What decides the weights of this learner; the shares add up to at most 1."""

    iterations: int = 22_000
    fall: float = 0.6
    batch: int = 96
    """Games per iteration, `Shape.rounds` guesses each."""
    prefixed: float = 0.25
    """Share of games that begin with 1 to 5 random guesses."""
    careless: float = 0.25
    """Share of games in which each guess is, with probability .3, moved by up to 4 steps a digit."""
    unscored: float = 0.04
    """Probability that the reward of a guess is not shown."""


def train(recipe: Recipe, progress: Progress | None = None, shape: Shape | None = None) -> Student:
    """Run the recipe.

    Args:
        recipe: what to run.
        progress: called after each iteration with its number (from 1) and the smoothed loss in nats.
        shape: the sizes of the network.
    """
    shape = shape or Shape()
    teacher = _Teacher(shape, recipe)

    def loss(student: Student, iteration: int) -> Tensor:
        guesses, levels, targets = teacher.games(recipe.batch)
        log_odds = torch.log_softmax(student(guesses, levels), -1)
        return torch.nn.functional.kl_div(log_odds, targets, reduction="none").sum(-1).mean()

    return fit(lambda: Student(shape), loss, recipe, progress)


class _Teacher:
    """Exact posterior sampling for a batch of games at once."""

    def __init__(self, shape: Shape, recipe: Recipe) -> None:
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
        shape, recipe = self.shape, self.recipe
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
        left, targets = fitting, []
        for place in range(self.shape.places):
            left = torch.where(left.any(-1, keepdim=True), left, fitting)
            odds = left.float() @ self.one_hot[:, place]
            targets.append(odds / odds.sum(-1, keepdim=True))
            left = left & (self.colors[None, :, place] == self.colors[guess, place][:, None])
        return torch.stack(targets, 1)

    def _pick(self, fitting: Tensor) -> Tensor:
        """A uniform choice among the true entries of each row."""
        count = fitting.cumsum(1, dtype=torch.int32)
        wanted = (torch.rand(len(fitting)) * count[:, -1]).int() + 1
        return torch.searchsorted(count, wanted[:, None]).squeeze(1).clamp_max(len(self.colors) - 1)

    def _index(self, digits: Tensor) -> Tensor:
        return (digits[:, 0] * DIGITS + digits[:, 1]) * DIGITS + digits[:, 2]


class Student(Network):
    """The network in PyTorch.

    Args:
        shape: its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        width = shape.width
        tables = {
            "digit": shape.digits + 1,
            "before": shape.digits + 1,
            "reward": shape.levels + 1,
            "place": shape.places,
        }
        for name, rows in tables.items():
            self.add(name, 0.5 * torch.randn(rows, width))
        self.add("round", torch.zeros(shape.rounds, width))
        shrink = 0.5 / shape.layers**0.5
        for i in range(shape.layers):
            self.add_linear(f"{i}.qkv", width, 3 * width)
            self.add_linear(f"{i}.out", width, width, shrink)
            self.add_feed_forward(str(i), 4 * width, shrink)
            self.add_norm(f"{i}.norm1")
            self.add_norm(f"{i}.norm2")
        self.add_head(shape.digits, 0.05)

    def forward(self, guesses: Tensor, levels: Tensor) -> Tensor:
        """Guesses (batch, rounds, places), levels (batch, rounds) -> scores (batch, rounds, places, digits)."""
        shape = self.shape
        batch, rounds, places = guesses.shape
        none = torch.full((batch, 1, places), shape.digits)
        before = torch.cat([none, guesses[:, :-1]], 1)
        start = torch.full((batch, rounds, 1), shape.digits)
        digit = torch.cat([start, guesses[:, :, :-1]], 2)
        reward = torch.cat([torch.full((batch, 1), shape.levels), levels[:, :-1]], 1)
        x = self.array("digit")[digit] + self.array("before")[before] + self.array("reward")[reward][:, :, None]
        x = x + self.array("place") + self.array("round")[:rounds, None]
        x = x.reshape(batch, rounds * places, shape.width)
        for i in range(shape.layers):
            q, k, v = self.heads(self.linear(f"{i}.qkv", self.norm(f"{i}.norm1", x)), 3)
            x = self.linear(f"{i}.out", self.attend(q, k, v, is_causal=True), x)
            x = self.feed_forward(str(i), self.norm(f"{i}.norm2", x), x)
        return self.head(x).view(batch, rounds, places, shape.digits)
