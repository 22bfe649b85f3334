"""GMSA's network: an encoder of the model's first layers, group merging, and layer semantic alignment."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded
from laconic.memory.encoder import Encoder


class MergedGroups(Compressor):
    """``align(merge(encode(segment)))``; causal, positions from 0 among the tokens and again among the groups.

    Args:
        layers: of the encoder. `aligning`: decoder blocks that align the means; 0: none.
    """

    def __init__(self, model: PreTrainedModel, segment: int, layers: int, aligning: int = 1):
        super().__init__(segment)
        self.layers, self.aligning = layers, aligning
        self.encoder = Encoder(model, layers)
        self.align = Encoder(model, aligning) if aligning else None

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        groups = merged(self.encoder(embedded(model, ids)), slots)
        return groups if self.align is None else self.align(groups)  # type: ignore[no-any-return]

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return decoder_flops(shape, tokens, self.layers) + decoder_flops(shape, slots, self.aligning)


def merged(states: Tensor, groups: int) -> Tensor:
    """Means of groups of ``ceil(n / groups)`` neighbouring states, the last group maybe shorter: [B, n, d] -> [B, G, d]."""
    size = -(-states.shape[1] // groups)
    return torch.stack([group.mean(1) for group in states.split(size, 1)], 1)
