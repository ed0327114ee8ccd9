"""PyTorch, or the error that names the extra that installs it: the one place that imports it."""

from __future__ import annotations

from icrl_graph.errors import missing_extra

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise missing_extra("torch", "train") from error

__all__ = ["Tensor", "torch"]
