"""The network of mean pooling: the frozen model's last hidden states, pooled, and a projector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded
from laconic.memory.pooling import group_means


class PooledStates(Compressor):
    """Means of the model's last hidden states over near-equal runs of tokens, through Linear - GELU - Linear, added to the
    means of the tokens' embeddings, which they begin as.

    Args:
        model: whose hidden states are pooled, and whose width the projector has.
    """

    def __init__(self, model: PreTrainedModel, segment: int):
        super().__init__(segment)
        width = model.config.get_text_config().hidden_size
        last = nn.Linear(width, width)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        with torch.no_grad():
            states = family_of(model).stack(model)(input_ids=ids, use_cache=False).last_hidden_state
        soft: Tensor = group_means(embedded(model, ids), slots) + self.projector(group_means(states.float(), slots))
        return soft

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return decoder_flops(shape, tokens) + slots * sum(2 * p.numel() for p in self.projector.parameters() if p.ndim == 2)
