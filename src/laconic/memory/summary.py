"""Summary tokens: learned tokens after a context, whose keys and values stand for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import PrefixCompressor, decoder_flops, embedded, slots_of
from laconic.memory.encoder import Encoder
from laconic.memory.prefix import Prefix, read


class SummaryTokens(PrefixCompressor):
    """Entries of ``encoder([opening ; context ; token, token, ...])`` at the tokens, where the encoder is a trained copy.

    A question that is asked of these entries alone gets what one pass gives under a mask that hides the context from it.

    Args:
        count: vectors of their own, of which a budget uses the first; None: one vector, repeated as often as it asks.
    """

    def __init__(self, model: PreTrainedModel, count: int | None = None):
        super().__init__(0)  # a context is read as a whole
        self.encoder, self.repeated = Encoder(model), count is None
        embeddings: Any = model.get_input_embeddings()
        mean, spread = embeddings.weight.detach().float().mean(0), embeddings.weight.detach().float().std()
        self.tokens = nn.Parameter(mean[None] if count is None else mean + spread * torch.randn(count, len(mean)))

    def summaries(self, rows: int, count: int) -> Tensor:
        """Embeddings of the tokens that follow a context [rows, count, d].

        Raises:
            ValueError: more than there are.
        """
        if self.repeated:
            return self.tokens.expand(rows, count, -1)
        if count > len(self.tokens):
            raise ValueError(
                f"this context asks for {count} summary tokens, and {len(self.tokens)} were trained; lower keep."
            )
        return self.tokens[:count].expand(rows, -1, -1)

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        rows, count = len(ids), slots_of(ids.shape[1], keep)
        before = embedded(model, opening.expand(rows, -1))
        cache = self.encoder.entries(torch.cat([before, embedded(model, ids), self.summaries(rows, count)], 1))
        made = Prefix.of(cache, len(opening) + ids.shape[1])
        return read(model, opening.expand(rows, -1)).followed_by(made) if len(opening) else made

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        return decoder_flops(shape, opening) + decoder_flops(shape, opening + tokens + slots_of(tokens, keep))
