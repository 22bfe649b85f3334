"""The small convolution network that turns first-layer attention into relevance (arXiv 2506.01097)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from laconic.artifact import Artifact

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


def load(artifact: Artifact) -> RelevanceNet:
    """The trained network, frozen and in eval mode: its batch norms must not look at single prompts."""
    return artifact.restore(RelevanceNet(artifact.data["kernel"]))
