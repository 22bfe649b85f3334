"""The small convolution network that turns first-layer attention into relevance, and its file (arXiv 2506.01097)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic import learned

CHANNELS = (1, 32, 64, 128, 256, 512)


class RelevanceNet(nn.Module):
    """Five depth-wise separable convolutions along the visual tokens, 1 -> 32 -> 64 -> 128 -> 256 -> 512 channels, then 1x1
    to one. Fully convolutional, so it takes any number of tokens.

    Attention is divided by its mean over the tokens first, so that it does not shrink with their number.

    Args:
        kernel: width of the convolutions, odd.
    """

    def __init__(self, kernel: int = 5):
        super().__init__()
        self.kernel = kernel
        blocks = []
        for before, after in pairwise(CHANNELS):
            blocks += [
                nn.Conv1d(before, before, kernel, padding=kernel // 2, groups=before),
                nn.Conv1d(before, after, 1),
                nn.BatchNorm1d(after),
                nn.ReLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv1d(CHANNELS[-1], 1, 1)

    def forward(self, attention: Tensor) -> Tensor:
        """Attention that visual tokens get from the instruction, [B, v] -> logits of their relevance, fp32 [B, v]."""
        x = attention.float()
        x = x / x.mean(-1, keepdim=True).clamp(min=1e-12)
        return self.head(self.blocks(x[:, None]))[:, 0]


@dataclass
class Compressor:
    """A trained network and what it belongs to.

    Attributes:
        model, fingerprint: the host that it was trained for; the fingerprint is None for any host.
        made: how it was made, for people.
    """

    net: RelevanceNet
    model: str = ""
    fingerprint: str | None = None
    made: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, fp32."""
        learned.save(path, "explainability", self, self.net, torch.float32, kernel=self.net.kernel)


def load(path: str | Path) -> Compressor:
    """The network in a safetensors file, frozen, in eval mode (its batch norms must not see single prompts); raises
    `RecipeError` when it is none."""
    return learned.load(path, "explainability", _built)


def _built(about: Mapping[str, Any], tensors: dict[str, Tensor]) -> Compressor:
    net = RelevanceNet(about["kernel"])
    net.load_state_dict(tensors)
    return Compressor(net.eval().requires_grad_(False), about["model"], about["fingerprint"], about["made"])


def find(model: nn.Module, given: str | None) -> Compressor:
    """The network for `model`; see `laconic.learned.find`."""
    return learned.find(model, "explainability", given, load)
