"""LLaVA-OneVision: any-resolution images, large canvases resampled, frames of videos pooled 2x2 (arXiv 2408.03326)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from laconic.families.vision.anyres import AnyRes
from laconic.families.vision.base import EncoderCall, add
from laconic.families.vision.llava_next import LlavaNext
from laconic.families.vision.spans import Item, View, raster


class LlavaOnevision(LlavaNext):
    """The encoder (SigLIP) has no CLS token. A video is a run of pooled frames with one `image_newline` at its end."""

    name = "LLaVA-OneVision"
    model_types = ("llava_onevision",)

    def anyres(self, model: PreTrainedModel) -> AnyRes:
        return replace(super().anyres(model), most=int(model.config.vision_aspect_ratio.removeprefix("anyres_max_")))

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        if modality == "image":
            return super().items(model, modality, call, runs)
        assert call.after is not None
        side = self.side(model)
        pooled = math.ceil(side / 2)
        features = call.output.pooler_output
        frames = features.shape[1] // pooled**2  # beams repeat the features, so their number says nothing of the frames
        tokens = frames * pooled**2 + 1
        if features.shape[1] < tokens:  # older transformers append the newline outside these features
            newline = self.core(model).image_newline.expand(features.shape[0], 1, -1)
            call.output.pooler_output = torch.cat([features, newline.to(features)], 1)
        return [
            Item(tokens, tuple(self._frame(first, frame, side, pooled) for frame in range(frames)))
            for first in range(0, len(call.after), frames)
        ]

    def _frame(self, first: int, frame: int, side: int, pooled: int) -> View:
        cells = raster(pooled, pooled, frame * pooled**2)
        return View(cells, raster(side, side, (first + frame) * side**2), frame=frame, resampled=True)


LLAVA_ONEVISION = add(LlavaOnevision())
