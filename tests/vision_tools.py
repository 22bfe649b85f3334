"""A LLaVA-class model with random weights (the testbed's shape: 8 layers, 144 visual tokens) and prompts for it."""

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from laconic.testbed.scenes import SIZE
from laconic.testbed.vlm_model import IMAGE as IMAGE_WORD
from laconic.testbed.vlm_model import SPECIALS, VISUAL_TOKENS, build_model

IMAGE = SPECIALS.index(IMAGE_WORD)


def random_vlm() -> LlavaForConditionalGeneration:
    """Weights large enough for tokens to matter to each other."""
    torch.manual_seed(0)
    model = build_model().eval().requires_grad_(False)
    for parameter in model.model.language_model.parameters():
        parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def inputs(texts: list[tuple[int, int]], seed: int = 0, pictures: int = 1) -> dict[str, Tensor]:
    """A batch of random prompts, padded on the left: `texts[b]` = (text tokens before, behind the `pictures` pictures)."""
    torch.manual_seed(seed)
    rows = []
    for before, behind in texts:
        text = torch.randint(10, 400, (before + behind,))
        seen = torch.full((pictures * VISUAL_TOKENS,), IMAGE)
        rows.append(torch.cat([text[:before], seen, text[before:]]))
    most = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, row in enumerate(rows):
        ids[b, most - len(row) :], mask[b, most - len(row) :] = row, 1
    pixels = torch.randn(len(rows) * pictures, 3, SIZE, SIZE)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def laconic_hooks(model: nn.Module) -> list[str]:
    """Hooks of laconic's that a model still has (transformers leaves some of its own)."""
    hooks = [hook for m in model.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    return [repr(hook) for hook in hooks if getattr(hook, "__module__", "").startswith("laconic")]
