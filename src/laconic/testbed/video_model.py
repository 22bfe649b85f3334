"""``testbed/video`` before training: LLaVA-OneVision's class around the weights of ``testbed/vlm``.

A frame of 48 x 48 pixels has 36 patches of 8, whose projected features are averaged two by two: 9 visual tokens a frame,
and one more at the end of a clip. The vision tower sees the middle of the images that it was trained on, so it keeps the
positions of that middle; words that both tokenizers know keep their embeddings.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    PreTrainedTokenizerFast,
)

from laconic.prompts.onevision import FrameProcessor, OnevisionProcessor
from laconic.shipped import model_path
from laconic.tasks.scenes.questions import vocabulary as scene_vocabulary
from laconic.tasks.video.clips import SIZE
from laconic.tasks.video.questions import vocabulary
from laconic.testbed.bpe import train_bpe
from laconic.testbed.vlm_model import CHAT_TEMPLATE, IMAGE, PATCH, SPECIALS, SPLIT

SIDE = SIZE // PATCH
FRAME_TOKENS = (SIDE // 2) ** 2
VOCAB_SIZE = 464
VIDEO = "<video>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the questions about scenes and clips; raises ``RuntimeError`` if a word of the latter is
    split.
    """
    lines = vocabulary()
    template = CHAT_TEMPLATE.replace("<image>", VIDEO).replace("'image'", "'video'")
    tokenizer = train_bpe([*scene_vocabulary(), *lines], SPLIT, VOCAB_SIZE, (*SPECIALS, VIDEO), template)
    bpe = tokenizer.backend_tokenizer
    words = {word for line in lines for word, _ in bpe.pre_tokenizer.pre_tokenize_str(line)}
    broken = sorted(word for word in words if bpe.token_to_id(word) is None)
    if broken:
        raise RuntimeError(f"{len(broken)} words are not single tokens (first: {broken[:8]}); raise VOCAB_SIZE")
    return tokenizer


def build_model(start: LlavaForConditionalGeneration, known: Any, tokenizer: Any) -> LlavaOnevisionForConditionalGeneration:
    """The weights of ``start`` in LLaVA-OneVision's class, for frames and for the words of ``tokenizer``.

    Args:
        known: the tokenizer of ``start``.

    Raises:
        RuntimeError: the two classes name their weights differently.
    """
    model = empty_model(tokenizer, start.config)
    weights = dict(start.state_dict())
    fresh = model.state_dict()
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = translated(weights[name], known.get_vocab(), tokenizer.get_vocab(), fresh[name])
    places = next(name for name in weights if name.endswith("position_embedding.weight"))
    weights[places] = middle(weights[places], SIDE)
    missing, unknown = model.load_state_dict(weights, strict=False)
    strange = [name for name in (*missing, *unknown) if "image_newline" not in name and "position_ids" not in name]
    if strange:
        raise RuntimeError(f"the two classes name their weights differently: {', '.join(strange)}")
    return model


def empty_model(tokenizer: Any, start: LlavaConfig | None = None) -> LlavaOnevisionForConditionalGeneration:
    """The model with random weights; ``start`` is the configuration of ``testbed/vlm``, None reads it."""
    start = start or LlavaConfig.from_pretrained(model_path("testbed/vlm"))
    written = start.to_dict()
    vision, text = written["vision_config"], written["text_config"]
    config = LlavaOnevisionConfig(
        vision_config={**vision, "image_size": SIZE},
        text_config={**text, "vocab_size": VOCAB_SIZE},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_grid_pinpoints=[[SIZE, SIZE]],
        vision_feature_layer=start.vision_feature_layer,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    return LlavaOnevisionForConditionalGeneration(config).float()  # its parts are saved as bfloat16, and say so


def build_processor(tokenizer: Any) -> OnevisionProcessor:
    """Frames of 48 x 48 pixels in -1 .. 1, and ``<video>`` once for each visual token of a clip."""
    side = {"height": SIZE, "width": SIZE}
    norm = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = LlavaOnevisionImageProcessorPil(size=side, image_grid_pinpoints=[[SIZE, SIZE]], **norm)
    return OnevisionProcessor(
        images,
        tokenizer,
        FrameProcessor(size=side, **norm),
        chat_template=tokenizer.chat_template,
        num_image_tokens=SIDE**2 + 1,
        vision_feature_select_strategy="default",
    )


def translated(rows: Tensor, old: dict[str, int], new: dict[str, int], fresh: Tensor) -> Tensor:
    """Embeddings [W, H] of the words ``new``: those that ``old`` knows from its ``rows``, the others ``fresh``."""
    out = fresh.clone()
    for word, number in new.items():
        if word in old:
            out[number] = rows[old[word]]
    return out


def middle(places: Tensor, side: int) -> Tensor:
    """Position embeddings [1 + S * S, D] of a CLS token and S x S patches, those of ``side`` x ``side`` in the middle."""
    whole = round((len(places) - 1) ** 0.5)
    grid = places[1:].view(whole, whole, -1)
    first = (whole - side) // 2
    return torch.cat([places[:1], grid[first : first + side, first : first + side].flatten(0, 1)])
