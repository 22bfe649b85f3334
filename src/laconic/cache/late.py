"""The late cut: entries of all layers and heads compete for one budget, once a prefill pass has run through the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from laconic.ops.select import best

if TYPE_CHECKING:
    from laconic.cache.hooks import RefitsEntries
    from laconic.cache.layer import CompressedLayer


@dataclass
class LateCut:
    """What a pass leaves to be cut: its layers, whole, with a rank for every entry.

    Attributes:
        layers: those that wait. `ranks`: fp32 [B, Hkv, n] each, padding at -inf, what must stay at the top.
        targets: entries per head that may stay in each batch row of each layer; only their sum over layers is kept to.
        nbytes: most bytes of keys and values that have waited at once so far.
        references: what a method that refits needs of each layer's pass; None for others.
    """

    layers: list[CompressedLayer] = field(default_factory=list)
    ranks: list[torch.Tensor] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)
    nbytes: int = 0

    def wait(self, layer: CompressedLayer, rank: torch.Tensor, targets: list[int], reference: Any = None) -> None:
        """`layer` has stored everything, and its entries are ranked."""
        self.layers.append(layer)
        self.ranks.append(rank)
        self.targets.append(targets)
        self.references.append(reference)

    def cut(self, refits: RefitsEntries | None = None) -> list[tuple[CompressedLayer, int]]:
        """Keep the best entries of each batch row over all layers and heads; equal ranks go to the earlier layer, head and
        entry. The layers that were shortened, with what each stored before; nothing waits afterwards.

        Args:
            refits: the method, where it changes the entries that stay.
        """
        layers, ranks, targets, references = self.layers, self.ranks, self.targets, self.references
        self.layers, self.ranks, self.targets, self.references = [], [], [], []
        if not layers:
            return []
        self.nbytes = max(self.nbytes, sum(layer.nbytes for layer in layers))
        flat = torch.cat([rank.flatten(1) for rank in ranks], 1)
        counts = [sum(row) * ranks[0].shape[1] for row in zip(*targets, strict=True)]
        real = (~torch.isneginf(flat)).sum(-1).tolist()
        if all(count >= have for count, have in zip(counts, real, strict=True)):
            return []
        kept = best(flat, torch.tensor(counts, device=flat.device)) & ~torch.isneginf(flat)
        before = [layer.stored for layer in layers]
        masks = kept.split([rank[0].numel() for rank in ranks], 1)
        for layer, mask, rank, reference in zip(layers, masks, ranks, references, strict=True):
            entries, mask = layer.restored(), mask.view_as(rank)
            if refits is not None:
                entries, mask = refits.refit(entries, rank, mask, reference)
            layer.keep(entries, mask)
        return list(zip(layers, before, strict=True))
