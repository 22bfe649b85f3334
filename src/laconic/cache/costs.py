"""What one layer's pass costs, by formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer


def count(layer: CompressedLayer, q: torch.Tensor, keys: torch.Tensor) -> None:
    """Add the cost of a pass to the cache's figures: q [B, H, T, D] against all that is stored and the T new keys
    [B, Hkv, T, D]."""
    cache = layer.cache
    flops, step = cache.figures.flops, cache.step
    if flops is None or step is None:
        return
    batch, tokens = q.shape[0], q.shape[2]
    stored = sum(part.entries for part in layer.attended) // keys.shape[1]
    pairs = tokens * stored + step.pairs(batch, tokens)
    number = cache.layer_ids[layer.number]
    flops.layer(number, batch, step.rows + step.pseudo, pairs, step.prefill)
    if step.shown is not None:
        flops.image(number, float(step.shown.sum()) / batch)
