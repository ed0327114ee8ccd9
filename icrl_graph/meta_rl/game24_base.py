"""How the base policies of Game of 24 were made: a value network, trained on the exact trees of some puzzles.

The fewer puzzles it has seen, the weaker it is on others. In each position that can still be won, the network is
trained towards the moves that keep it so, all alike (cross-entropy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from icrl_graph.meta_rl import training
from icrl_graph.meta_rl.game24 import WIDTHS, Board
from icrl_graph.meta_rl.layers import Network
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.training import Progress, fit
from icrl_graph.models.learners.valuation import MODULI, Shape, features


@dataclass(frozen=True, kw_only=True)
class Recipe(training.Recipe):
    """What decides the weights of a base policy."""

    puzzles: int
    """How many puzzles of the training split it is trained on: the first of them."""
    batches: tuple[int, int, int] = (96, 96, 64)
    """Positions with four, three and two numbers, of each iteration."""
    weight_decay: float = 0.1
    dropout: float = 0.1


RECIPES: Mapping[str, Recipe] = {
    "weak": Recipe(puzzles=5, iterations=1500),
    "strong": Recipe(puzzles=846, iterations=4000),
}
"""Of the shipped base policies."""


def train(recipe: Recipe, progress: Progress | None = None, shape: Shape | None = None) -> Student:
    """Run the recipe; arguments and result as of `icrl_graph.meta_rl.game24.train`."""
    board = Board()
    positions = _positions(board, board.puzzles("train")[: recipe.puzzles])
    numbers = _numbers(board)

    def loss(student: Student, iteration: int) -> Tensor:
        losses = []
        for size, width, count, some in zip((3, 2, 1), WIDTHS, recipe.batches, positions, strict=True):
            before = some[torch.randint(len(some), (count,))]
            options, legal = board.moves[before, :width], board.legal[before, :width]
            odds = torch.log_softmax(student(numbers[options][..., :size]).masked_fill(~legal, -1e9), -1)
            wanted = board.alive[options] * legal
            losses.append(-(wanted / wanted.sum(1, keepdim=True) * odds).sum(1).mean())
        return torch.stack(losses).sum()

    return fit(lambda: Student(shape or Shape(), recipe.dropout), loss, recipe, progress)


def _positions(board: Board, puzzles: Tensor) -> list[Tensor]:
    """The winnable positions that the puzzles lead to, with four, three and two numbers."""
    levels = [puzzles]
    for _ in range(2):
        after = board.moves[levels[-1]][board.legal[levels[-1]]].unique()
        levels.append(after[board.alive[after] > 0])
    return levels


def _numbers(board: Board) -> Tensor:
    """The numbers of every state, (states, 4); where there is none, 0."""
    return torch.tensor([[*state, *([0] * (4 - len(state)))] for state in board.states])


class Student(Network):
    """The network in PyTorch.

    Args:
        shape: its sizes.
        dropout: probability of dropping an input of the head in training.
    """

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__(shape, dropout)
        width = shape.width
        self.add("number", 0.5 * torch.randn(shape.numbers + 1, width))
        self.add_linear("feature", 2 + 2 * len(MODULI), width)
        self.add_linear("mix", width, width)
        for i in range(shape.layers):
            self.add_norm(f"{i}.norm")
            self.add_feed_forward(str(i), 2 * width)
        self.add_head(1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers of states in the last axis, as integers -> a score for each state."""
        encoded = torch.from_numpy(features(numbers.numpy()))
        x = self.array("number")[numbers.clamp_max(self.shape.numbers)] + self.linear("feature", encoded)
        x = (x + self.linear("mix", torch.relu(x))).sum(-2)
        for i in range(self.shape.layers):
            x = self.feed_forward(str(i), self.norm(f"{i}.norm", x), x)
        return self.head(x).squeeze(-1)
