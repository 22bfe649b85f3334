"""500xCompressor's network: an encoder and a table of memory tokens, whose keys and values are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import PrefixCompressor, decoder_flops, embedded, slots_of
from laconic.memory.encoder import Encoder
from laconic.memory.prefix import Prefix, read


class KeyValueSlots(PrefixCompressor):
    """Entries of ``encoder([segment ; memory tokens])`` at the memory tokens.

    Positions go on over segments and their memory tokens, so a question begins where both of the last one end.

    Args:
        slots: memory tokens there are, of which a smaller share uses the first.
    """

    def __init__(self, model: PreTrainedModel, segment: int, slots: int):
        super().__init__(segment)
        self.slots, self.encoder = slots, Encoder(model)
        embeddings: Any = model.get_input_embeddings()
        table = embeddings.weight.detach().float()
        self.table = nn.Parameter(table.mean(0) + table.std() * torch.randn(slots, table.shape[1]))

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        made = read(model, opening.expand(len(ids), -1)) if len(opening) else None
        for piece in ids.split(self.segment, 1):
            made = self._segment(model, piece, slots_of(piece.shape[1], keep), made)
        assert made is not None
        return made

    def _segment(self, model: PreTrainedModel, ids: Tensor, slots: int, before: Prefix | None) -> Prefix:
        """`before`, then the entries of one segment [B, s]. The encoder sees nothing of `before`."""
        tokens = self.table[:slots].expand(len(ids), -1, -1)
        start = 0 if before is None else before.seen
        cache = self.encoder.entries(torch.cat([embedded(model, ids), tokens], 1), start)
        found = Prefix.of(cache, ids.shape[1], seen=start + ids.shape[1] + slots)
        return found if before is None else before.followed_by(found)

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        sizes = [min(self.segment, tokens - start) for start in range(0, tokens, self.segment)]
        return decoder_flops(shape, opening) + sum(decoder_flops(shape, size + slots_of(size, keep)) for size in sizes)
