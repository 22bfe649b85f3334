"""A prompt's inputs on the model's device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

ALONG = ("inputs_embeds", "mm_token_type_ids", "token_type_ids")
"""Inputs with a value for every token."""


def on_device(model: PreTrainedModel, inputs: Mapping[str, Any], tokens: int | None = None) -> dict[str, Any]:
    """`inputs` on the model's device: pixels in the model's dtype; of values that run along the ids, the first `tokens`."""
    moved = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            value = value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        moved[name] = value[:, :tokens] if name in ALONG else value
    return moved
