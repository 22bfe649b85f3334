"""C3's network: the smaller model, its queries, and the linear layer between the two models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from laconic.errors import BudgetError
from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops, slots_of


class Cascade(Compressor):
    """``linear(small([text ; start ; queries]))`` at the queries, after the smaller model's final norm.

    Args:
        small: a decoder with embeddings of its own, in fp32; all its weights are trained.
        width: of the embeddings of the model that answers.
        latents: queries there are; a smaller share uses the first.
    """

    def __init__(self, small: Any, width: int, segment: int, latents: int):
        super().__init__(segment)
        self.small = small
        table: Tensor = small.get_input_embeddings().weight.detach()
        own = table.shape[1]
        self.queries = nn.Parameter(table.mean(0) + table.std() * torch.randn(latents, own))
        self.start = nn.Parameter(table.mean(0) + table.std() * torch.randn(1, own))
        self.linear = nn.Linear(own, width)

    def count(self, tokens: int, keep: float) -> int:
        """The same for every segment, however short."""
        return slots_of(self.segment, keep)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        if slots > len(self.queries):
            raise BudgetError(f"c3: {slots} latent tokens: there are {len(self.queries)} queries; use a smaller keep=.")
        rows = len(ids)
        text = self.small.get_input_embeddings()(ids)
        begin, queries = self.start.expand(rows, -1, -1), self.queries[:slots].expand(rows, -1, -1)
        hidden = self.small(inputs_embeds=torch.cat([text, begin, queries], 1), use_cache=False).last_hidden_state
        soft: Tensor = self.linear(hidden[:, -slots:])
        return soft

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        own = Shape.of(self.small, self.small)
        return decoder_flops(own, tokens + 1 + slots) + slots * 2 * self.linear.weight.numel()


def decoder_of(config: dict[str, Any]) -> PreTrainedModel:
    """A fresh decoder, in fp32, as its configuration describes it."""
    settings = dict(config)
    made: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    return made.float()
