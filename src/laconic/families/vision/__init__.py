"""Where visual tokens are, on unmodified Hugging Face models: one short adapter per family, one `Visual` for all methods."""

from laconic.families.vision import internvl as internvl  # importing a family registers it
from laconic.families.vision import llava as llava
from laconic.families.vision import llava_next as llava_next
from laconic.families.vision import llava_onevision as llava_onevision
from laconic.families.vision import qwen2_5_vl as qwen2_5_vl
from laconic.families.vision import qwen2_vl as qwen2_vl
from laconic.families.vision import qwen3_vl as qwen3_vl
from laconic.families.vision.base import (
    VisionFamily,
    deepstack_of,
    encoder_depth,
    supported_vision_families,
    vision_family_of,
)
from laconic.families.vision.clock import EncoderClock, encoder_clock
from laconic.families.vision.shorten import shortened
from laconic.families.vision.spans import CANVAS, VisualSpan
from laconic.families.vision.visual import Visual
from laconic.families.vision.watch import VisionWatch

__all__ = [
    "CANVAS",
    "EncoderClock",
    "VisionFamily",
    "VisionWatch",
    "Visual",
    "VisualSpan",
    "deepstack_of",
    "encoder_clock",
    "encoder_depth",
    "shortened",
    "supported_vision_families",
    "vision_family_of",
]
