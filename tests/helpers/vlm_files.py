"""Vision models as checkpoints, random weights, and images whose patches have one colour each."""

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.vision_tools import random_vlm
from laconic.tasks.scenes.scenes import SIZE
from laconic.testbed.any_resolution import LARGE, any_resolution, any_resolution_processor
from laconic.testbed.vlm_model import PATCH, build_processor, build_tokenizer


def save_llava(folder: Path) -> str:
    """LLaVA-1.5's class: one view of 12 x 12 tokens."""
    random_vlm().save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    return str(folder)


def save_llava_next(folder: Path) -> str:
    """LLaVA-NeXT's class: a thumbnail and 2 x 2 crops of 12 x 12 tokens."""
    any_resolution(random_vlm()).save_pretrained(folder)
    any_resolution_processor(build_tokenizer()).save_pretrained(folder)
    return str(folder)


def save_image(path: Path, size: int = SIZE, seed: int = 0) -> str:
    """Dark colours, one per patch; `LARGE` for the any-resolution model."""
    side = size // PATCH
    colours = np.random.default_rng(seed).integers(0, 140, (side, side, 3), dtype=np.uint8)
    Image.fromarray(colours.repeat(PATCH, 0).repeat(PATCH, 1)).save(path)
    return str(path)


__all__ = ["LARGE", "save_image", "save_llava", "save_llava_next"]
