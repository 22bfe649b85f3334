"""UniICL's network: a learned slot, repeated after the text, and a linear layer; the frozen model does the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, embedded


class VirtualTokens(Compressor):
    """``linear(model([text ; slots]))`` at the slots, after the final norm; the model is frozen, its gradient flows.

    Args:
        model: its last row of embeddings, a token that is rarely used, is what the slot starts from.
    """

    def __init__(self, model: PreTrainedModel, segment: int):
        super().__init__(segment)
        self.gain.requires_grad_(False)  # a constant: the linear layer has a scale of its own
        table: Any = model.get_input_embeddings()
        self.slot = nn.Parameter(table.weight[-1].detach().float().clone())
        self.linear = nn.Linear(len(self.slot), len(self.slot), bias=False)
        nn.init.eye_(self.linear.weight)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        whole = torch.cat([embedded(model, ids), self.slot.expand(len(ids), slots, -1)], 1).to(model.dtype)
        hidden = family_of(model).stack(model)(inputs_embeds=whole, use_cache=False).last_hidden_state
        soft: Tensor = self.linear(hidden[:, -slots:].float())
        return soft

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return decoder_flops(shape, tokens + slots) + slots * 2 * self.linear.weight.numel()
