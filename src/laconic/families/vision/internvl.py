"""InternVL (the Hugging Face class): tiles of one size, 2x2 patches shuffled into the channels of one token, CLS dropped.

The processor writes the tiles of one image as one run of placeholders, crops in row-major order and the thumbnail last;
neither it nor the model passes on how the crops are arranged in the image.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.vision.base import EncoderCall, VisionFamily, add
from laconic.families.vision.spans import Item, View, raster


class InternVL(VisionFamily):
    """The model treats video frames as images, and so does this adapter: one image per frame."""

    name = "InternVL"
    model_types = ("internvl",)
    merges = True

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        assert call.after is not None
        views, tokens, _ = call.after.shape
        beams = max(1, sum(map(sum, runs)) // (views * tokens))
        items: list[Item] = []
        first = 0
        for length in [length for row in runs[::beams] for length in row]:
            count = length // tokens
            items.append(self._image(model, first, count, tokens))
            first += count
        return items

    def _image(self, model: PreTrainedModel, first: int, count: int, tokens: int) -> Item:
        side = self.side(model)
        merged = round(tokens**0.5)
        views = [
            View(raster(merged, merged, k * tokens), raster(side, side, (first + k) * side**2), (k + 1) % count)
            for k in range(count)
        ]
        views = [*views[-1:], *views[:-1]]
        return Item(count * tokens, tuple(views), None if count > 1 else (0, 0))

    def patch_features(self, model: PreTrainedModel, call: EncoderCall) -> Tensor:
        chosen = model.config.vision_feature_layer
        hidden = call.output.last_hidden_state if chosen == -1 else call.output.hidden_states[chosen]
        return hidden[:, 1:].flatten(0, 1)


INTERNVL = add(InternVL())
