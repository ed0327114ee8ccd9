"""What the networks share in PyTorch: layers over named arrays, stored as `models.learners.layers` reads them."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from icrl_graph.errors import missing_extra

if TYPE_CHECKING:
    from torch import Tensor


def pytorch() -> Any:
    """PyTorch, loaded when it is first needed.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import torch
    except ImportError as missing:
        raise missing_extra("torch", "train") from missing
    return torch


@cache
def network_class() -> Any:
    """The base class of the networks: a module that keeps its arrays by the names under which they are stored."""
    torch = pytorch()
    functional = torch.nn.functional

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, shape: Any) -> None:
            super().__init__()
            self.shape = shape
            self.arrays = torch.nn.ParameterDict()

        def named_arrays(self) -> Any:
            """All arrays with their names, for `export`."""
            return ((key.replace("/", "."), value) for key, value in self.arrays.items())

        def array(self, name: str) -> Tensor:
            return self.arrays[_key(name)]

        def add(self, name: str, value: Tensor) -> None:
            self.arrays[_key(name)] = torch.nn.Parameter(value)

        def add_linear(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
            self.add(name, scale / rows**0.5 * torch.randn(rows, columns))
            self.add(f"{name}_bias", torch.zeros(columns))

        def add_norm(self, name: str) -> None:
            self.add(name, torch.stack([torch.ones(self.shape.width), torch.zeros(self.shape.width)]))

        def linear(self, name: str, x: Tensor, onto: Any = 0.0) -> Tensor:
            return onto + x @ self.array(name) + self.array(f"{name}_bias")

        def norm(self, name: str, x: Tensor) -> Tensor:
            scale, shift = self.array(name)
            return functional.layer_norm(x, (self.shape.width,), scale, shift)

        def feed_forward(self, name: str, x: Tensor, onto: Tensor) -> Tensor:
            return self.linear(f"{name}.down", torch.relu(self.linear(f"{name}.up", x)), onto)

        def heads(self, x: Tensor, count: int = 1) -> Any:
            """(batch, positions, count * width) -> `count` tensors (batch, heads, positions, width of a head)."""
            heads, width = self.shape.heads, self.shape.width // self.shape.heads
            return x.view(x.shape[0], -1, count, heads, width).permute(2, 0, 3, 1, 4)

        def attend(self, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
            """Mix the values; the heads side by side again: (batch, positions, width)."""
            mixed = functional.scaled_dot_product_attention(query, key, value, **kwargs)
            return mixed.transpose(1, 2).reshape(mixed.shape[0], -1, self.shape.width)

    return Network


class Descent:
    """AdamW with clipped gradients.

    Args:
        student: the network to train.
        weight_decay: of AdamW.
        memory: how much of the smoothed loss stays at each step.
    """

    def __init__(self, student: Any, weight_decay: float, memory: float) -> None:
        self._student, self._memory = student, memory
        self._optimizer = pytorch().optim.AdamW(student.parameters(), betas=(0.9, 0.98), weight_decay=weight_decay)
        self._smoothed: float | None = None

    def step(self, loss: Tensor, learning_rate: float) -> float:
        """Go down the gradient of a loss; gives the smoothed loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        loss.backward()
        pytorch().nn.utils.clip_grad_norm_(self._student.parameters(), 1.0)
        self._optimizer.step()
        before = loss.item() if self._smoothed is None else self._smoothed
        self._smoothed = self._memory * before + (1 - self._memory) * loss.item()
        return self._smoothed


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name must not hold a dot


def export(student: Any, path: str | PathLike[str]) -> None:
    """Write the arrays of a network, rounded to 16-bit floats, and its shape."""
    arrays = {name: value.detach().numpy().astype(np.float16) for name, value in student.named_arrays()}
    shape = np.frombuffer(json.dumps(asdict(student.shape)).encode(), dtype=np.uint8)
    with open(path, "wb") as file:  # given a name, savez would append .npz to it
        np.savez(file, shape=shape, **arrays)
