"""Fewer tokens from the first decoder layer on: the arguments of the decoder's call, gathered.

A pre-hook of the decoder is the only place, in every family, where images are in the stream and no layer has run, and where
DeepStack's features (Qwen3-VL) can be gathered too. Original positions stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from laconic.errors import UnsupportedModelError


def shortened(arguments: dict[str, Any], keep: Tensor) -> dict[str, Any]:
    """The decoder's keyword arguments for the tokens `keep` alone.

    Args:
        arguments: of the decoder's call: `inputs_embeds` [B, T, D] and, where given, `attention_mask` [B, T], `position_ids`
            [B or 1, T] or [3 or 4, B or 1, T], `visual_pos_masks` [B, T], `deepstack_visual_embeds` (a list of [n, D]).
        keep: token positions that stay, ascending, int [B, m].

    Raises:
        UnsupportedModelError: the call passes a mask of more than two dimensions, or no embeddings.
    """
    embeds, mask = arguments.get("inputs_embeds"), arguments.get("attention_mask")
    if embeds is None or (mask is not None and mask.ndim != 2):
        raise UnsupportedModelError(
            "tokens can be removed before the decoder only where it is called with inputs_embeds and a 2-D attention_mask "
            "[batch, tokens] or none; pass such a mask, or use a method that acts later."
        )
    batch, length = embeds.shape[:2]
    rows = torch.arange(batch, device=embeds.device)[:, None]
    positions = arguments.get("position_ids")
    if positions is None:
        positions = torch.arange(length, device=embeds.device)[None]
    positions = positions.expand(*positions.shape[:-2], batch, length)[..., rows, keep]
    result = arguments | {"inputs_embeds": embeds[rows, keep], "position_ids": positions}
    if mask is not None:
        result["attention_mask"] = mask[rows, keep]
    visual = arguments.get("visual_pos_masks")
    if visual is not None:
        place = visual.flatten().cumsum(0).view_as(visual) - 1
        stays = visual[rows, keep]
        result["visual_pos_masks"] = stays
        chosen = place[rows, keep][stays]
        result["deepstack_visual_embeds"] = [features[chosen] for features in arguments["deepstack_visual_embeds"]]
    return result
