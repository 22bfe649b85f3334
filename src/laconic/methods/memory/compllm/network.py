"""CompLLM's network: the segment, then copies of the end-of-text embedding whose last states are the concept embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded
from laconic.memory.encoder import Encoder


class ConceptEmbeddings(Compressor):
    """Steps 2 and 3 of the paper's method: ``linear(encoder([segment ; markers]))`` at the markers.

    Args:
        marker: the token whose embedding every slot starts from, that of the end of a text.
    """

    def __init__(self, model: PreTrainedModel, segment: int, marker: int):
        super().__init__(segment)
        self.marker, self.encoder = marker, Encoder(model)
        width = model.config.get_text_config().hidden_size
        self.linear = nn.Linear(width, width)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        markers = ids.new_full((len(ids), slots), self.marker)
        hidden = self.encoder(embedded(model, torch.cat([ids, markers], 1)))
        soft: Tensor = self.linear(hidden[:, -slots:])
        return soft

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return decoder_flops(shape, tokens + slots) + slots * 2 * self.linear.weight.numel()
