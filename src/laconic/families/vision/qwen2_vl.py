"""Qwen2-VL: any grid, patches packed in merge blocks, no CLS, M-RoPE, the merger within the encoder (arXiv 2409.12191)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families.vision.base import EncoderCall, VisionFamily, add
from laconic.families.vision.spans import Item, View, raster


class Qwen2VL(VisionFamily):
    """A frame here is one temporal patch (two frames of the video, or a still image twice)."""

    name = "Qwen2-VL"
    model_types = ("qwen2_vl",)
    merges = True

    def tower(self, model: PreTrainedModel) -> Any:
        return self.core(model).visual

    def projector(self, model: PreTrainedModel) -> nn.Module | None:
        return None

    def feature_layer(self, model: PreTrainedModel) -> int:
        return len(self.tower(model).blocks) - 1

    def order(self, config: Any, frames: int, rows: int, cols: int) -> Tensor:
        """Index of every grid cell's merge block in the encoder's order, [frames, rows, cols]."""
        return torch.arange(frames * rows * cols).view(frames, rows, cols)

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        config = self.tower(model).config
        merge, items, first = config.spatial_merge_size, [], 0
        for frames, height, width in call.arguments["grid_thw"].tolist():
            rows, cols = height // merge, width // merge
            inside = torch.arange(merge**2).view(1, merge, 1, merge)
            blocks = self.order(config, frames, rows, cols)
            patches = (blocks[..., None, :, None] * merge**2 + inside).reshape(frames, height, width) + first
            views = (View(raster(rows, cols, t * rows * cols), patches[t], frame=t) for t in range(frames))
            items.append(Item(frames * rows * cols, tuple(views)))
            first += frames * height * width
        return items

    def patch_features(self, model: PreTrainedModel, call: EncoderCall) -> Tensor:
        return call.output.last_hidden_state


QWEN2_VL = add(Qwen2VL())
