"""The layers of the networks in PyTorch, over named arrays that `icrl_graph.models.learners.layers` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np

from icrl_graph.meta_rl.pytorch import Tensor, torch


class Network(torch.nn.Module):  # type: ignore[misc]
    """A module that holds its arrays by the names under which they are stored.

    Args:
        shape: its sizes; a dataclass with at least `width`, and `heads` where it attends.
        dropout: probability of dropping an input of the head in training.
    """

    def __init__(self, shape: Any, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.arrays = torch.nn.ParameterDict()
        self.dropout = torch.nn.Dropout(dropout)

    def named_arrays(self) -> Iterator[tuple[str, Tensor]]:
        """All arrays with their names."""
        return ((key.replace("/", "."), value) for key, value in self.arrays.items())

    def array(self, name: str) -> Tensor:
        """An array by its name."""
        return self.arrays[_key(name)]

    def add(self, name: str, value: Tensor) -> None:
        """Add an array."""
        self.arrays[_key(name)] = torch.nn.Parameter(value)

    def add_linear(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        """Add a dense layer, drawn with the standard deviation `scale` / sqrt(rows)."""
        self.add(name, scale / rows**0.5 * torch.randn(rows, columns))
        self.add(f"{name}_bias", torch.zeros(columns))

    def add_norm(self, name: str) -> None:
        """Add a layer normalisation."""
        self.add(name, torch.stack([torch.ones(self.shape.width), torch.zeros(self.shape.width)]))

    def add_feed_forward(self, name: str, wide: int, scale: float = 1.0) -> None:
        """Add two dense layers with `wide` units between them."""
        self.add_linear(f"{name}.up", self.shape.width, wide)
        self.add_linear(f"{name}.down", wide, self.shape.width, scale)

    def add_head(self, columns: int, scale: float = 1.0) -> None:
        """Add the head: a layer normalisation and a dense layer."""
        self.add_norm("norm")
        self.add_linear("head", self.shape.width, columns, scale)

    def linear(self, name: str, x: Tensor, onto: Any = 0.0) -> Tensor:
        """A dense layer, added to `onto`."""
        return onto + x @ self.array(name) + self.array(f"{name}_bias")

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Layer normalisation."""
        scale, shift = self.array(name)
        return torch.nn.functional.layer_norm(x, (self.shape.width,), scale, shift)

    def feed_forward(self, name: str, x: Tensor, onto: Tensor) -> Tensor:
        """Two dense layers with a ReLU between them, added to `onto`."""
        return self.linear(f"{name}.down", torch.relu(self.linear(f"{name}.up", x)), onto)

    def head(self, x: Tensor) -> Tensor:
        """The scores of the last axis."""
        return self.linear("head", self.dropout(self.norm("norm", x)))

    def heads(self, x: Tensor, count: int = 1) -> Any:
        """(batch, positions, count * width) -> `count` tensors (batch, heads, positions, width of a head)."""
        heads, width = self.shape.heads, self.shape.width // self.shape.heads
        return x.view(x.shape[0], -1, count, heads, width).permute(2, 0, 3, 1, 4)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        """Mix the values by attention and join the heads: (batch, positions, width)."""
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, **kwargs)
        return mixed.transpose(1, 2).reshape(mixed.shape[0], -1, self.shape.width)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name must not hold a dot


def export(student: Network, path: str | PathLike[str]) -> None:
    """Write the arrays of a network, rounded to 16-bit floats, and its shape."""
    arrays: dict[str, Any] = {name: value.detach().numpy().astype(np.float16) for name, value in student.named_arrays()}
    shape = np.frombuffer(json.dumps(asdict(student.shape)).encode(), dtype=np.uint8)
    with open(path, "wb") as file:  # given a name, savez would append .npz to it
        np.savez(file, shape=shape, **arrays)
