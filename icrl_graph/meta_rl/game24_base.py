"""How the base policies of Game of 24 were made: a value network, trained on the exact trees of some puzzles.

The fewer puzzles it has seen, the weaker it is on others. In each position that can still be won, the network is
trained towards the moves that keep it so, all alike (cross-entropy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icrl_graph.meta_rl.game24 import WIDTHS, Board
from icrl_graph.meta_rl.layers import Descent, network_class, pytorch
from icrl_graph.models.learners.valuation import MODULI, Shape, features

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, apart from the version of PyTorch and the processor."""

    puzzles: int
    """How many puzzles of the training split it is trained on: the first of them."""
    iterations: int
    batches: tuple[int, int, int] = (96, 96, 64)
    """Positions with four, three and two numbers, of each iteration."""
    learning_rate: float = 2e-3
    """Peak; 100 iterations of warm-up, then a linear fall to 2 % of it."""
    weight_decay: float = 0.1
    dropout: float = 0.1
    seed: int = 0


RECIPES: Mapping[str, Recipe] = {
    "weak": Recipe(puzzles=5, iterations=1500),
    "strong": Recipe(puzzles=846, iterations=4000),
}
"""Of the shipped base policies."""


def train(recipe: Recipe, progress: Callable[[int, float], None] | None = None, shape: Shape | None = None) -> Any:
    """Run the recipe; arguments and result as of `icrl_graph.meta_rl.game24.train`."""
    torch = pytorch()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    board = Board()
    student = network(shape or Shape(), recipe.dropout)
    descent = Descent(student, recipe.weight_decay, memory=0.98)
    positions = _positions(board, board.puzzles("train")[: recipe.puzzles])
    numbers = _numbers(board)
    for iteration in range(recipe.iterations):
        warm_up, decay = min(1.0, (iteration + 1) / 100), 1 - iteration / recipe.iterations
        losses = []
        for size, width, count, some in zip((3, 2, 1), WIDTHS, recipe.batches, positions, strict=True):
            asked = some[torch.randint(len(some), (count,))]
            options, legal = board.moves[asked, :width], board.legal[asked, :width]
            odds = torch.log_softmax(student(numbers[options][..., :size]).masked_fill(~legal, -1e9), -1)
            wanted = board.alive[options] * legal
            losses.append(-(wanted / wanted.sum(1, keepdim=True) * odds).sum(1).mean())
        smoothed = descent.step(torch.stack(losses).sum(), recipe.learning_rate * warm_up * max(0.02, decay))
        if progress is not None:
            progress(iteration + 1, smoothed)
    return student.eval()


def _positions(board: Board, puzzles: Tensor) -> list[Tensor]:
    """The positions below the puzzles that can be won, with four, three and two numbers."""
    found = [puzzles]
    for _ in range(2):
        after = board.moves[found[-1]][board.legal[found[-1]]].unique()
        found.append(after[board.alive[after] > 0])
    return found


def _numbers(board: Board) -> Tensor:
    """The numbers of every state, (states, 4); where there is none, 0."""
    return pytorch().tensor([[*state, *([0] * (4 - len(state)))] for state in board.states])


def network(shape: Shape, dropout: float = 0.0) -> Any:
    """The network in PyTorch: `module(numbers)`, with the numbers of states in the last axis, gives their scores."""
    torch = pytorch()

    class Valuation(network_class()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(shape)
            width = shape.width
            self.dropout = torch.nn.Dropout(dropout)
            self.add("number", 0.5 * torch.randn(shape.numbers + 1, width))
            self.add_linear("feature", 2 + 2 * len(MODULI), width)
            self.add_linear("mix", width, width)
            for i in range(shape.layers):
                self.add_norm(f"{i}.norm")
                self.add_linear(f"{i}.up", width, 2 * width)
                self.add_linear(f"{i}.down", 2 * width, width)
            self.add_norm("norm")
            self.add_linear("head", width, 1)

        def forward(self, numbers: Tensor) -> Tensor:
            told = torch.from_numpy(features(numbers.numpy()))
            x = self.array("number")[numbers.clamp_max(shape.numbers)] + self.linear("feature", told)
            x = (x + self.linear("mix", torch.relu(x))).sum(-2)
            for i in range(shape.layers):
                x = self.feed_forward(str(i), self.norm(f"{i}.norm", x), x)
            scores: Tensor = self.linear("head", self.dropout(self.norm("norm", x))).squeeze(-1)
            return scores

    return Valuation()
