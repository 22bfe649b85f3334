"""RoPE phases at any positions, without a trace on the model.

A rotary module of transformers is no pure function: with "dynamic" and "longrope" scaling, a call at positions farther out
(or nearer) than before replaces its frequency table, and the model rotates every later token by it. What laconic asks at
future, pseudo, negative or renumbered positions is therefore asked of a copy that shares the table and cannot replace it.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def phases(
    rotary: nn.Module, x: Tensor, positions: Tensor, layer_type: str | None = None, within: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, sin) at `positions`, by the table of one pass; whatever else the module returns, where it is no such pair.

    Args:
        rotary: the decoder's rotary module; it stays as it is.
        x: any tensor on the device and of the dtype that the phases are for.
        positions: [B, m], or [3, B, m] for modules with several positions per token; any numbers.
        layer_type: for modules with a table per layer type.
        within: positions of the pass whose table it is, [B, T] or [3, B, T], which has run or is still to come; None: the
            pass that the module has seen last.
    """
    frozen: Any = copy.copy(rotary)
    frozen._buffers = dict(rotary._buffers)  # what an update registers stays in the copy
    # the class's function: hooks, and a `forward` that a dispatcher has put on the instance, belong to the original
    forward: Any = type(rotary).forward
    by_type = {} if layer_type is None else {"layer_type": layer_type}
    if within is not None:
        forward(frozen, x, within.max().expand([1] * within.ndim), **by_type)  # transformers' own rule picks the table
    kind = getattr(rotary, "rope_type", None)
    if kind is not None:
        frozen.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
    found: tuple[Tensor, Tensor] = forward(frozen, x, positions, **by_type)
    return found
