"""The learned part of DyVTE, a small network per layer that says whether visual tokens may leave after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from laconic.artifact import Artifact


class Gate(nn.Module):
    """``W2 GELU(W1 [m; e])`` without biases, W1 [width, 2D], W2 [2, width]; Xavier uniform (arXiv 2411.19628)."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(2 * hidden, width, bias=False), nn.Linear(width, 2, bias=False)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.xavier_uniform_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, 2D] -> logits [B, 2]: stay, leave."""
        weight = self.first.weight
        return self.second(nn.functional.gelu(self.first(features.to(weight))))


def question_feature(question: Tensor) -> Tensor:
    """Hidden states of a question [q, D] -> [2D]: the mean without the last token, and the last token. A question of one
    token is its own mean.

    Raises:
        ValueError: no token at all.
    """
    if not len(question):
        raise ValueError("dyvte decides by the text after the images, but a prompt ends with its image.")
    return torch.cat([(question[:-1] if len(question) > 1 else question).mean(0), question[-1]])


def load(artifact: Artifact) -> nn.ModuleList:
    """The gate after each decoder layer but the last, fp32 and frozen."""
    layers = nn.ModuleList()
    while (name := f"{len(layers)}.first.weight") in artifact.tensors:
        width, twice = artifact.tensors[name].shape
        layers.append(Gate(twice // 2, width))
    return artifact.restore(layers)
