"""LLaVA-NeXT (1.6): thumbnail and crops, padding cropped away, `image_newline` after every line of the canvas."""

from __future__ import annotations

from transformers import PreTrainedModel

from laconic.families.vision.anyres import AnyRes
from laconic.families.vision.base import EncoderCall, VisionFamily, add
from laconic.families.vision.spans import Item


class LlavaNext(VisionFamily):
    name = "LLaVA-NeXT"
    model_types = ("llava_next",)

    def anyres(self, model: PreTrainedModel) -> AnyRes:
        """How the model lays images out."""
        size = model.config.vision_config.image_size
        canvases = sorted({(height // size, width // size) for height, width in model.config.image_grid_pinpoints})
        return AnyRes(self.side(model), tuple(canvases), self.core(model).image_newline)

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        assert call.after is not None
        packed = {id(features): features for features in call.output.pooler_output}  # beams repeat the same tensors
        return self.anyres(model).items(list(packed.values()), call.after)


LLAVA_NEXT = add(LlavaNext())
