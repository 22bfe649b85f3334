"""Qwen2.5-VL: Qwen2-VL with window attention in most encoder layers (arXiv 2502.13923)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from laconic.families.vision.base import add
from laconic.families.vision.qwen2_vl import Qwen2VL


class Qwen2_5VL(Qwen2VL):
    """The encoder sorts merge blocks by attention window, and its features keep that order up to the merger."""

    name = "Qwen2.5-VL"
    model_types = ("qwen2_5_vl",)

    def order(self, config: Any, frames: int, rows: int, cols: int) -> Tensor:
        side = config.window_size // config.spatial_merge_size // config.patch_size
        t, r, c = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(cols), indexing="ij")
        windows = (t * rows + r // side) * cols + c // side
        return windows.flatten().argsort(stable=True).argsort().view(frames, rows, cols)


QWEN2_5_VL = add(Qwen2_5VL())
