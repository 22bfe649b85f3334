"""LLaVA-1.5: one view per image, features of a CLIP layer without CLS, a projector of two layers (arXiv 2310.03744)."""

from __future__ import annotations

from transformers import PreTrainedModel

from laconic.families.vision.base import EncoderCall, VisionFamily, add
from laconic.families.vision.spans import Item, View, raster


class Llava(VisionFamily):
    """With the "full" feature strategy the CLS token has a placeholder of its own before the patches."""

    name = "LLaVA-1.5"
    model_types = ("llava",)

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        assert call.after is not None
        side, (views, tokens, _) = self.side(model), call.after.shape
        cells = raster(side, side, tokens - side**2)
        return [Item(tokens, (View(cells, raster(side, side, view * side**2)),)) for view in range(views)]


LLAVA = add(Llava())
