"""Oryx's dynamic compressor: the mean of a region attends to its members (arXiv 2409.12961)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.families.vision import vision_family_of
from laconic.stream.readout import readout


def regions(x: Tensor, side: int) -> Tensor:
    """x [B, H, W, C] in regions of side x side in raster order, [B, regions, side^2, C]; `side` divides H and W."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
    return x.reshape(batch, -1, side**2, channels)


class RegionAttention(nn.Module):
    """``p + softmax(W_q p . (W_k f)^T / sqrt(d)) f`` for every region of members f [r^2, C] and mean p; values are not
    projected, so a region of one patch gives 2 f whatever was learned.

    Args:
        width: C. `inner`: d, 256 as published. W_q begins at zero: training starts from 2 p.
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        for weight in self.query.parameters():
            nn.init.zeros_(weight)

    def forward(self, patches: Tensor, side: int) -> Tensor:
        """Encoder features [B, H, W, C] -> [B, H W / side^2, C] in raster order."""
        members = regions(patches, side)
        mean = members.mean(2)
        logits = torch.einsum("bgd,bgnd->bgn", self.query(mean), self.key(members)) * self.query.out_features**-0.5
        out: Tensor = mean + torch.einsum("bgn,bgnc->bgc", logits.softmax(-1), members)
        return out


class Dynamic(nn.Module):
    """The compressor and the projector that all ratios share, which begins as the model's own for features of twice the
    size."""

    def __init__(self, model: PreTrainedModel, inner: int):
        super().__init__()
        self.compressor = RegionAttention(int(vision_family_of(model).tower(model).config.hidden_size), inner)
        self.projector = readout(model)
        with torch.no_grad():
            self.projector[0].weight.mul_(0.5)  # type: ignore[operator,union-attr]

    def forward(self, patches: Tensor, side: int) -> Tensor:
        """Encoder features [B, H, W, C] -> tokens for the decoder, [B, H W / side^2, D]."""
        out: Tensor = self.projector(self.compressor(patches, side))
        return out


def load(artifact: Artifact, model: PreTrainedModel) -> Dynamic:
    """The trained network, in fp32 and frozen."""
    return artifact.restore(Dynamic(model, artifact.data["inner"]))
