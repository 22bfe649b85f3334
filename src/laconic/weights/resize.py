"""Slices of linear maps, embeddings and norms: new parameters in place of the old ones, and sizes that follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def resize(module: Any, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep these rows and columns of a module's weight [out, in], or these numbers of a norm's [n]; None: all."""
    weight = module.weight.detach()
    weight = weight if rows is None else weight[rows]
    weight = weight if columns is None else weight[:, columns]
    module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if rows is not None and getattr(module, "bias", None) is not None:
        module.bias = nn.Parameter(module.bias.detach()[rows], requires_grad=False)
    for name, kept in (("out_features", rows), ("in_features", columns), ("embedding_dim", columns)):
        if kept is not None and hasattr(module, name):
            setattr(module, name, len(kept))


def scaled(weight: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Parameter:
    """A weight whose rows and columns are multiplied, in fp32."""
    made = weight.detach().float()
    if rows is not None:
        made = made * (rows if made.ndim == 1 else rows[:, None])
    if columns is not None:
        made = made * columns
    return nn.Parameter(made.to(weight.dtype), requires_grad=False)


def channels(heads: Tensor, size: int) -> Tensor:
    """The channels of these heads, `size` each, in order."""
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()
