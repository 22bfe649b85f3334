"""xRAG's network: a frozen retriever, and the projector from its space into that of the model's embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, embedded


class ProjectedEmbedding(Compressor):
    """``W_2 gelu(W_1 e)`` of a document's embedding ``e = cos(f(mean of its token embeddings))``; f is drawn once and kept.

    Args:
        segment: tokens of a document. `width`: of the retriever's embeddings.
    """

    def __init__(self, model: PreTrainedModel, segment: int, width: int):
        super().__init__(segment)
        hidden = model.config.get_text_config().hidden_size
        self.features: Tensor
        self.phase: Tensor
        self.register_buffer("features", torch.randn(hidden, width))
        self.register_buffer("phase", 2 * torch.pi * torch.rand(width))
        self.projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def embedding(self, model: PreTrainedModel, ids: Tensor) -> Tensor:
        """Of documents [B, s], as the retriever sees them: [B, width]; the order of tokens does not count."""
        states = embedded(model, ids)
        mean = states.mean(1) * states.shape[1] ** 0.5 / states.norm(dim=-1).mean(1, keepdim=True)
        return torch.cos(mean @ self.features + self.phase)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        soft: Tensor = self.projector(self.embedding(model, ids))[:, None]
        return soft

    def count(self, tokens: int, keep: float) -> int:
        return 1

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        return 2 * (self.features.numel() + sum(p.numel() for p in self.projector.parameters() if p.ndim == 2))
