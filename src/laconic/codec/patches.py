"""Images as rows of patches, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def patched(images: Tensor, patch: int) -> Tensor:
    """Images [..., C, H, W] as [..., n, C * patch^2], their patches line by line."""
    return F.pixel_unshuffle(images, patch).flatten(-2).transpose(-1, -2)


def unpatched(patches: Tensor, patch: int, side: int) -> Tensor:
    """The inverse of `patched`; `side` lines of `side` patches."""
    return F.pixel_shuffle(patches.transpose(-1, -2).unflatten(-1, (side, side)), patch)
