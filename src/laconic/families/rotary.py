"""RoPE phases at any positions, without a trace on the model.

A rotary module of transformers is no pure function: with "dynamic" and "longrope" scaling, a call at positions farther out
(or nearer) than before replaces its frequency table, and the model rotates every later token by it. What laconic asks at
future, pseudo, negative or renumbered positions is therefore asked of a copy that shares the table and cannot replace it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def phases(
    rotary: nn.Module, x: Tensor, positions: Tensor, layer_type: str | None = None, reach: int | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, sin) at `positions`, by the table that the model uses now.

    Args:
        rotary: the decoder's rotary module; it stays as it is.
        x: any tensor on the device and of the dtype that the phases are for.
        positions: [B, m], or [3, B, m] for modules with several positions per token.
        layer_type: for modules with a table per layer type.
        reach: the table is the one that the model will use in a pass whose last position this is; None: the one that it
            used last.
    """
    frozen: Any = copy.copy(rotary)
    frozen._buffers = dict(rotary._buffers)  # what an update registers stays in the copy
    by_type = {} if layer_type is None else {"layer_type": layer_type}
    if reach is not None:
        last = torch.full(tuple(1 for _ in positions.shape), reach, device=positions.device, dtype=positions.dtype)
        frozen(x, last, **by_type)  # transformers' own rule decides which table that is
    kind = getattr(rotary, "rope_type", None)
    if kind is not None:
        frozen.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
    cos, sin = frozen(x, positions, **by_type)
    return cos, sin
