"""Other sizes for linear maps, embeddings and norms: new parameters in place of the old ones, and sizes that follow."""

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


def become(model: nn.Module, other: nn.Module) -> None:
    """Give `model` the parameters and sizes of `other`, a model of the same modules, in its own type and on its own device.

    New tensors take the places of old ones, so that the model can be restored (`laconic.weights.restored`).
    """
    like = next(model.parameters())
    shared: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for name, module in model.named_modules():
        twin = other.get_submodule(name)
        for size, value in vars(twin).items():
            if isinstance(value, int) and not isinstance(value, bool) and size in vars(module):
                setattr(module, size, value)
        for leaf, weight in twin.named_parameters(recurse=False, remove_duplicate=False):
            if id(weight) not in shared:
                shared[id(weight)] = nn.Parameter(weight.detach().to(like), requires_grad=False)
            setattr(module, leaf, shared[id(weight)])
