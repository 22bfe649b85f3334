"""The any-resolution form of ``testbed/vlm``: LLaVA-NeXT's class around the same weights, for images of 192 x 192.

An image becomes five views of 96 x 96: a thumbnail and 2 x 2 crops. Visual tokens: 144 of the thumbnail, then the 24 x 24
of the crops put together again, each row followed by the learned newline token: 744. Small words can only be read in the
crops.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from laconic.tasks.scenes.scenes import LARGE, SIZE, Scene, patch_labels
from laconic.testbed.vlm_model import PATCH, PIXELS, PLACES

CROPS = LARGE // SIZE
VIEWS = 1 + CROPS * CROPS
_CELLS = SIZE // PATCH
VISUAL_TOKENS = _CELLS**2 + CROPS * _CELLS * (CROPS * _CELLS + 1)
IGNORED = -100
"""Label of patches that no loss reads."""


def any_resolution(model: LlavaForConditionalGeneration) -> LlavaNextForConditionalGeneration:
    """The same weights in LLaVA-NeXT's class; only the newline token is new (and random)."""
    old = model.config
    config = LlavaNextConfig(
        vision_config=old.vision_config,
        text_config=old.text_config,
        image_token_index=old.image_token_index,
        image_seq_length=VISUAL_TOKENS,
        image_grid_pinpoints=[[LARGE, LARGE]],
        vision_feature_layer=old.vision_feature_layer,
        vision_feature_select_strategy=old.vision_feature_select_strategy,
        tie_word_embeddings=True,
    )
    larger = LlavaNextForConditionalGeneration(config)
    missing, unknown = larger.load_state_dict(model.state_dict(), strict=False)
    if unknown or missing != ["model.image_newline"]:
        raise RuntimeError(f"the two classes name their weights differently: missing {missing}, unknown {unknown}")
    larger.generation_config = model.generation_config
    return larger


def any_resolution_processor(tokenizer: Any) -> LlavaNextProcessor:
    """Cuts an image into its five views and writes one ``<image>`` for each of their tokens."""
    side = {"height": SIZE, "width": SIZE}
    images = LlavaNextImageProcessorPil(size=side, image_grid_pinpoints=[[LARGE, LARGE]], **PIXELS)
    return LlavaNextProcessor(images, tokenizer, **PLACES)


def cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The views [5, 96, 96, 3] of an image [192, 192, 3]: thumbnail, then crops row by row, as the processor makes them."""
    thumbnail = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    crops = image.reshape(CROPS, SIZE, CROPS, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
    return np.concatenate([thumbnail[None], crops])


def view_labels(scene: Scene) -> NDArray[np.int64]:
    """Labels of the patches of each view [5, 5, 12, 12]; those of the thumbnail are :data:`IGNORED`."""
    labels = patch_labels(scene, PATCH)
    crops = labels.reshape(-1, CROPS, _CELLS, CROPS, _CELLS).transpose(1, 3, 0, 2, 4).reshape(CROPS**2, -1, _CELLS, _CELLS)
    return np.concatenate([np.full_like(crops[:1], IGNORED), crops])


def view_scenes(scene: Scene) -> list[Scene]:
    """The whole scene for the thumbnail, and for each crop a scene of the shapes that have their centres in it."""
    parts = [scene]
    for row in range(CROPS):
        for column in range(CROPS):
            own = tuple(s for s in scene.shapes if (int(s.y) // SIZE, int(s.x) // SIZE) == (row, column))
            parts.append(Scene(SIZE, scene.background, scene.texture, own, ()))
    return parts


def image_sizes(rows: int) -> torch.Tensor:
    """Height and width of each of ``rows`` images [rows, 2]."""
    return torch.full((rows, 2), LARGE)
