"""The training loop that all recipes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from icrl_graph.meta_rl.layers import Network
from icrl_graph.meta_rl.pytorch import Tensor, torch

Student = TypeVar("Student", bound=Network)
Progress = Callable[[int, float], None]
"""Called after each iteration with its number (from 1) and the smoothed loss in nats."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the weights, apart from the version of PyTorch and the processor."""

    iterations: int
    learning_rate: float = 2e-3
    """Peak of the schedule: a linear rise over `warm_up` iterations, then a linear fall to 2 % of the peak."""
    warm_up: int = 100
    """Iterations of the rise."""
    fall: float = 1.0
    """Share of all iterations, the last ones, over which the learning rate falls: above 0, at most 1."""
    weight_decay: float = 0.01
    smoothing: float = 0.98
    """Weight of the past in the loss that is reported, 0 to below 1."""
    seed: int = 0

    def learning_rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / self.warm_up)
        fall = min(1.0, (self.iterations - iteration) / (self.fall * self.iterations))
        return self.learning_rate * rise * max(0.02, fall)


def fit(
    create: Callable[[], Student],
    loss: Callable[[Student, int], Tensor],
    recipe: Recipe,
    progress: Progress | None = None,
) -> Student:
    """Train a network on one CPU core, by AdamW with clipped gradients.

    The same recipe gives the same weights: all random numbers, those of `create` and `loss` too, come from its seed.

    Args:
        create: makes the network.
        loss: makes a batch and returns its loss in nats; called with the network and the iteration, from 0.
        recipe: iterations, schedule and seed.
        progress: called after each iteration.

    Returns:
        The trained network, in evaluation mode; `icrl_graph.meta_rl.layers.export` writes it.
    """
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    student = create()
    optimizer = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    smoothed: float | None = None
    for iteration in range(recipe.iterations):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(iteration)
        batch_loss = loss(student, iteration)
        optimizer.zero_grad()
        batch_loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        latest = batch_loss.item()
        before = latest if smoothed is None else smoothed
        smoothed = recipe.smoothing * before + (1 - recipe.smoothing) * latest
        if progress is not None:
            progress(iteration + 1, smoothed)
    student.eval()
    return student
