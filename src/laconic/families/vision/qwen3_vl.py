"""Qwen3-VL: Qwen2-VL's layout, DeepStack, separate frames of a video (arXiv 2511.21631)."""

from __future__ import annotations

from transformers import PreTrainedModel

from laconic.families.vision.base import add
from laconic.families.vision.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    """DeepStack: features of earlier encoder layers are added to the stream after the first decoder layers, outside any
    module, so the stream must keep its length up to there. Timestamps stand between the frames of a video."""

    name = "Qwen3-VL"
    model_types = ("qwen3_vl",)

    def deepstack(self, model: PreTrainedModel) -> int:
        return len(self.tower(model).config.deepstack_visual_indexes)


QWEN3_VL = add(Qwen3VL())
