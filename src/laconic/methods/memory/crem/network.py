"""CREM's network: chorus tokens, whose entries are a memory and whose states are an embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.memory.compressor import embedded
from laconic.memory.summary import SummaryTokens


class Chorus(SummaryTokens):
    """A fixed number of learned tokens after an image or a text, `chorus`, each with an embedding of its own."""

    def __init__(self, model: PreTrainedModel, chorus: int):
        super().__init__(model, chorus)

    def embedding(self, model: PreTrainedModel, opening: Tensor, ids: Tensor) -> Tensor:
        """What stands for contexts in a search: the mean of the final states at the chorus, of length 1, fp32 [B, d].

        Args:
            opening: ids [o] before every context. `ids`: of the contexts [B, n], or their embeddings [B, n, d].
        """
        rows, count = len(ids), len(self.tokens)
        parts = [embedded(model, opening.expand(rows, -1)), embedded(model, ids), self.summaries(rows, count)]
        return F.normalize(self.encoder(torch.cat(parts, 1))[:, -count:].mean(1), dim=-1)


def info_nce(queries: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean of -log softmax over a batch's targets of each query's own; both [B, d], of length 1.

    Every other target of the batch is a negative. Equal similarities give log B.
    """
    return F.cross_entropy(queries @ targets.T / temperature, torch.arange(len(queries), device=queries.device))
