"""The late cut: entries of all layers and heads compete for one budget, once a prefill pass has run through the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from laconic.ops.select import best, from_mask

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer
    from laconic.cache.observe import Observation


@dataclass
class LateCut:
    """What a pass leaves to be cut: its layers, whole, with a rank for every entry.

    Attributes:
        layers: those that wait. `ranks`: fp32 [B, Hkv, n] each, padding at -inf, what must stay at the top.
        targets: entries per head that may stay in each batch row of each layer; only their sum over layers is kept to.
    """

    layers: list[CompressedLayer] = field(default_factory=list)
    ranks: list[torch.Tensor] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)

    def wait(self, layer: CompressedLayer, obs: Observation, rank: torch.Tensor) -> None:
        """`layer` has stored everything, and its entries are ranked."""
        self.layers.append(layer)
        self.ranks.append(rank)
        self.targets.append(obs.targets)

    def cut(self) -> list[tuple[CompressedLayer, int]]:
        """Keep the best entries of each batch row over all layers and heads; equal ranks go to the earlier layer, head and
        entry. The layers that were shortened, with what each stored before; nothing waits afterwards."""
        layers, ranks, targets = self.layers, self.ranks, self.targets
        self.layers, self.ranks, self.targets = [], [], []
        if not layers:
            return []
        flat = torch.cat([rank.flatten(1) for rank in ranks], 1)
        counts = [sum(row) * ranks[0].shape[1] for row in zip(*targets, strict=True)]
        real = (~torch.isneginf(flat)).sum(-1).tolist()
        if all(count >= have for count, have in zip(counts, real, strict=True)):
            return []
        kept = best(flat, torch.tensor(counts, device=flat.device)) & ~torch.isneginf(flat)
        before = [layer.stored for layer in layers]
        for layer, mask, rank in zip(layers, kept.split([rank[0].numel() for rank in ranks], 1), ranks, strict=True):
            layer.keep(from_mask(mask.view_as(rank)))
        return list(zip(layers, before, strict=True))
