"""Rotary phases of decoders whose tokens have several positions (M-RoPE).

transformers up to 5.18 gives the layers of Qwen2-VL and Qwen2.5-VL one set of phases for each axis (time, height, width),
from which attention then picks channels; elsewhere layers get the phases that attention uses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.step import gather


def rows_of(phase: Tensor, rows: Tensor) -> Tensor:
    """Phases of the stream's `rows` [B, m], of [B or 1, n, d] or [3, B, n, d]."""
    return gather(phase, rows, 1) if phase.ndim == 3 else torch.stack([gather(axis, rows, 1) for axis in phase])


def as_used(phase: Tensor, stack: PreTrainedModel) -> Tensor:
    """Phases [B or 1, n, d] as attention uses them: sections of channels, each from one axis (arXiv 2409.12191)."""
    if phase.ndim == 3:
        return phase
    sections = list(stack.config.rope_parameters["mrope_section"]) * 2  # both halves of the channels
    return torch.cat([part[i % 3] for i, part in enumerate(phase.split(sections, -1))], -1)
