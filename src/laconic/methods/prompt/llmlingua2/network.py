"""LLMLingua-2's classifier: every token of a chunk sees the whole chunk, and gets the probability that it stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from laconic.measure.cost import parameters_of
from laconic.shortening.scorer import Scorer

POSITIONS = 512
"""Most tokens of a chunk."""


class TokenClassifier(nn.Module):
    """A bidirectional transformer over the frozen input embeddings of a language model, which are not part of it.

    Args:
        embedding: width of those embeddings. `width`, `layers`, `heads`: of the encoder.
    """

    def __init__(self, embedding: int, width: int, layers: int, heads: int):
        super().__init__()
        self.width = width
        self.enter = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, width))
        self.positions = nn.Parameter(0.02 * torch.randn(POSITIONS, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.leave = nn.Linear(width, 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [B, T, embedding], T at most `POSITIONS` -> logits of staying [B, T]."""
        hidden = self.enter(embeddings) + self.positions[: embeddings.shape[1]]
        found: Tensor = self.leave(self.encoder(hidden))
        return found[..., 0]

    def flops(self, tokens: int) -> int:
        """What one chunk of this many tokens costs."""
        weights = parameters_of(self) - self.positions.numel()
        return 2 * weights * tokens + 4 * self.width * tokens * tokens * len(self.encoder.layers)


class Classifier:
    """A trained classifier as methods use it, and what it has cost so far.

    Args:
        scorer: the model whose tokenizer and embeddings the network was trained on; its layers never run.
    """

    def __init__(self, scorer: Scorer, network: TokenClassifier):
        self.scorer, self.network = scorer, network
        self.name, self.tokenizer, self.flops = scorer.name, scorer.tokenizer, 0

    def probabilities(self, ids: Sequence[int]) -> list[float]:
        """The probability that each token stays; more than `POSITIONS` tokens are read piece by piece."""
        table = self.scorer.model.get_input_embeddings()
        found: list[float] = []
        for start in range(0, len(ids), POSITIONS):
            piece = torch.tensor([list(ids[start : start + POSITIONS])], device=self.scorer.model.device)
            with torch.inference_mode():
                found += self.network(table(piece).float())[0].sigmoid().tolist()
            self.flops += self.network.flops(piece.shape[1])
        return found
