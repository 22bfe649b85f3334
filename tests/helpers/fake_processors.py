"""Hugging Face processors from tiny configurations, without files: what they emit is what models are fed in earnest."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from helpers.vision_zoo import IMAGE, PINPOINTS, VOCAB


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words w3, w4 ... by number, <image> at its id, left padding."""
    words = {f"w{i}": i for i in range(VOCAB)} | {"<image>": IMAGE}
    words = {word: i for word, i in words.items() if word != f"w{IMAGE}"}
    words["<pad>"], words["<unk>"] = words.pop("w0"), words.pop("w2")
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    fast.padding_side = "left"
    return fast


def llava() -> transformers.LlavaProcessor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return transformers.LlavaProcessor(
        images, tokenizer(), patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def llava_next() -> transformers.LlavaNextProcessor:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
    )
    return transformers.LlavaNextProcessor(
        images, tokenizer(), patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def onevision_images():
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    return LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=[*PINPOINTS, [96, 96]])


def internvl_images():
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    return GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=6)


def checked(rows: int, cols: int, seed: int = 0, patch: int = 8) -> tuple[np.ndarray, Image.Image]:
    """Random colours [rows, cols, 3] and the image of rows x cols squares that has them."""
    colours = np.random.default_rng(seed).integers(0, 256, (rows, cols, 3), dtype=np.uint8)
    return colours, Image.fromarray(colours.repeat(patch, 0).repeat(patch, 1))


def plain(colour: np.ndarray, side: int = 32) -> Image.Image:
    """An image of one colour."""
    return Image.fromarray(np.full((side, side, 3), colour, dtype=np.uint8))


def of_one_colour(model, process, colours: np.ndarray) -> torch.Tensor:
    """What a blind encoder says of each colour, [n, C], from images of one colour; different colours differ."""
    values = [process([plain(colour)], return_tensors="pt")["pixel_values"] for colour in colours.reshape(-1, 3)]
    views = torch.stack([v[0, 0] if v.ndim == 5 else v[0] for v in values])
    hidden = model.base_model.vision_tower(views, output_hidden_states=True).hidden_states
    vectors = hidden[model.config.vision_feature_layer][:, -1]
    assert (torch.cdist(vectors, vectors) + torch.eye(len(vectors)) * 1e3).min() > 1e-3
    return vectors
