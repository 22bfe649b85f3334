"""The processors of the models of `vision_zoo`, made from their classes with small sizes; most need torchvision."""

from __future__ import annotations

from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from helpers.vision_zoo import IDS, IMAGE, PINPOINTS, VIDEO, VOCAB

SPECIALS = {
    IMAGE: "<image>",
    VIDEO: "<video>",
    IDS["vision_start_token_id"]: "<start>",
    IDS["vision_end_token_id"]: "<end>",
}
NORM = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIDE = {"height": 32, "width": 32}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": SIDE, **NORM}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words w3, w4 ... by number, and the special tokens at their ids."""
    words = {SPECIALS.get(i, {0: "<pad>", 1: "<s>", 2: "<unk>"}.get(i, f"w{i}")): i for i in range(VOCAB)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {
        "image_token": "<image>",
        "context_image_token": "<image>",
        "video_token": "<video>",
        "vision_bos_token": "<start>",
        "vision_eos_token": "<end>",
        "start_image_token": "<start>",
        "end_image_token": "<end>",
    }
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", extra_special_tokens=named
    )


def template(image: str) -> str:
    """Turns as words, with `image` where an image stands, and the same with the video's placeholder for a video."""
    return (
        "{% for m in messages %} w3 {% for part in m['content'] %}{% if part['type'] == 'image' %} "
        + image
        + " {% elif part['type'] == 'video' %} "
        + image.replace("<image>", "<video>")
        + " {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} w4{% endif %}"
    )


def processor(name: str) -> Any:
    """Of a case of `vision_zoo`."""
    t, words, plain = transformers, tokenizer(), template("<image>")
    if name in ("llava", "llava_next"):
        options = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        if name == "llava":
            return t.LlavaProcessor(t.CLIPImageProcessor(**CROPPED), words, chat_template=plain, **options)
        images = t.LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **CROPPED)
        return t.LlavaNextProcessor(images, words, chat_template=plain, **options)
    if name == "llava_onevision":
        images = t.LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=[*PINPOINTS, [96, 96]], **NORM)
        videos = t.LlavaOnevisionVideoProcessor(size=SIDE, **NORM)
        options = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
        return t.LlavaOnevisionProcessor(images, words, videos, chat_template=plain, **options)
    if name == "internvl":
        images = t.GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, min_patches=1, max_patches=6, **NORM)
        videos = t.InternVLVideoProcessor(size=SIDE, **NORM)
        return t.InternVLProcessor(images, words, videos, image_seq_length=4, chat_template=plain)
    shape = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, **NORM}
    size = {"shortest_edge": 64, "longest_edge": 2304}
    images = t.Qwen2VLImageProcessor(size=size, **shape)
    videos = (t.Qwen3VLVideoProcessor if name == "qwen3_vl" else t.Qwen2VLVideoProcessor)(size=size, **shape)
    kinds = {"qwen2_vl": t.Qwen2VLProcessor, "qwen2_5_vl": t.Qwen2_5_VLProcessor, "qwen3_vl": t.Qwen3VLProcessor}
    return kinds[name](images, words, videos, chat_template=template("<start> <image> <end>"))
