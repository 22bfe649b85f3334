"""AutoCompressor's network: an encoder and a table of summary embeddings."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded, slots_of
from laconic.memory.encoder import Encoder


class Summaries(Compressor):
    """``encoder([earlier summaries ; segment ; summary embeddings])`` at the summary embeddings.

    Args:
        slots: summary embeddings there are, of which a smaller share uses the first.
        marker: the token whose embedding they start from, that of the end of a text.
    """

    independent: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel, segment: int, slots: int, marker: int):
        super().__init__(segment)
        self.encoder = Encoder(model)
        start = embedded(model, torch.tensor([[marker]], device=model.device))[0]
        self.table = nn.Parameter(start.expand(slots, -1) + 0.02 * torch.randn(slots, start.shape[1]).to(start))

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int, before: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`. `before`: the summaries of earlier segments, [B, k, d]."""
        parts = [embedded(model, ids), self.table[:slots].expand(len(ids), -1, -1)]
        hidden: Tensor = self.encoder(torch.cat(parts if before is None else [before, *parts], 1))
        return hidden[:, -slots:]

    def contexts(self, model: PreTrainedModel, ids: Tensor, keep: float) -> Tensor:
        """Segments one after another, the summaries so far before each: ids [B, n] -> [B, m, d]."""
        summaries: Tensor | None = None
        for piece in ids.split(self.segment, 1):
            own = self.gain * self(model, piece, slots_of(piece.shape[1], keep), summaries)
            summaries = own if summaries is None else torch.cat([summaries, own], 1)
        assert summaries is not None
        return summaries

    def context_flops(self, shape: Shape, tokens: int, keep: float) -> int:
        total = summaries = 0
        for start in range(0, tokens, self.segment):
            size = min(self.segment, tokens - start)
            slots = slots_of(size, keep)
            total += decoder_flops(shape, summaries + size + slots)
            summaries += slots
        return total
