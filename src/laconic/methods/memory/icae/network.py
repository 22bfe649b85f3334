"""ICAE's network: the encoder, and one table with the memory tokens and the embeddings that say what is wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded
from laconic.memory.encoder import Encoder


class MemorySlots(Compressor):
    """``encoder([segment ; memory tokens])`` at the memory tokens, after the final norm.

    Args:
        slots: memory tokens there are, of which a smaller share uses the first.
    """

    def __init__(self, model: PreTrainedModel, segment: int, slots: int):
        super().__init__(segment)
        self.slots, self.encoder = slots, Encoder(model)
        embeddings: Any = model.get_input_embeddings()
        table = embeddings.weight.detach().float()
        self.table = nn.Parameter(table.mean(0) + table.std() * torch.randn(slots + 2, table.shape[1]))
        """Memory tokens, then the two that ask for the text and for an answer."""

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        tokens = self.table[:slots].expand(len(ids), -1, -1)
        hidden: Tensor = self.encoder(torch.cat([embedded(model, ids), tokens], 1))
        return hidden[:, -slots:]

    def closing(self) -> Tensor:
        """The embedding that asks for an answer, [1, d]."""
        return self.table[self.slots + 1 :]

    def restoring(self) -> Tensor:
        """The embedding that asks for the text, [1, d]."""
        return self.table[self.slots : self.slots + 1]

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return decoder_flops(shape, tokens + slots)
