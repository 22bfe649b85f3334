"""A LLaVA-OneVision with random weights that reads videos of 9 frames of 16 tokens (as many as an image of the testbed)."""

import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from helpers import vision_zoo
from helpers.vision_tools import prompts
from laconic.testbed.vlm_model import VISUAL_TOKENS, VOCAB_SIZE

IMAGE, VIDEO = 440, 441
FRAMES, SIDE, PATCH = 9, 8, 6
FRAME_TOKENS = (SIDE // 2) ** 2
METHODS = {"evs", "fastvid", "uniform_frames", "vidcom2"}
"""Methods that are meant for videos."""


def random_video_model() -> LlavaOnevisionForConditionalGeneration:
    """Weights large enough for tokens to matter to each other."""
    torch.manual_seed(0)
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
        "vision_use_head": False,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_grid_pinpoints=[[48, 96]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 or "newline" in name:
            parameter.normal_(0, 0.3 if "vision" in name else 0.15)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def inputs(texts: list[tuple[int, int]], seed: int = 0, images: int = 1) -> dict[str, Tensor]:
    """As `vision_tools.inputs`, with as many videos; each ends with a separator."""
    torch.manual_seed(seed)
    assert FRAMES * FRAME_TOKENS == VISUAL_TOKENS
    given = prompts(texts, images * (VISUAL_TOKENS + 1) * [VIDEO])
    pixels = torch.randn(len(texts) * images, FRAMES, 3, SIDE * PATCH, SIDE * PATCH)
    return given | {"pixel_values_videos": pixels}


def kept_cells(case, images, given, session, row=0):
    """What a session kept of the `images` of a batch row at its first cut: the cells (crop, frame, row, column) of each."""
    stream = session.trace.events[0].stream[row].tolist()
    ids = given["input_ids"][row].tolist()
    seen = [at for at, token in enumerate(ids) if token in (vision_zoo.IMAGE, vision_zoo.VIDEO)]
    found = []
    for image in images:
        cells = case.cells(image)
        own, seen = dict(zip(seen, cells, strict=False)), seen[len(cells) :]
        found.append([own[at] for at in stream if own.get(at) is not None])
    return found
