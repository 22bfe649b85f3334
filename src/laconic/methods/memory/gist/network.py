"""The network of gist tokens: an encoder and the embedding of the token that all gists are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import PrefixCompressor, decoder_flops, embedded, slots_of
from laconic.memory.encoder import Encoder
from laconic.memory.prefix import Prefix, read


class GistTokens(PrefixCompressor):
    """Entries of ``encoder([opening ; context ; gist, gist, ...])`` at the gists, which differ by position alone."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(0)  # a context is read as a whole
        self.encoder = Encoder(model)
        embeddings: Any = model.get_input_embeddings()
        self.gist = nn.Parameter(embeddings.weight.detach().float().mean(0))

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        rows, gists = len(ids), slots_of(ids.shape[1], keep)
        text = torch.cat([opening.expand(rows, -1), ids], 1)
        cache = self.encoder.entries(torch.cat([embedded(model, text), self.gist.expand(rows, gists, -1)], 1))
        made = Prefix.of(cache, text.shape[1])
        return read(model, opening.expand(rows, -1)).followed_by(made) if len(opening) else made

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        return decoder_flops(shape, opening) + decoder_flops(shape, opening + tokens + slots_of(tokens, keep))
