"""Gemma 2 (soft-capped logits) and Gemma 3 (one RoPE per layer type); both alternate sliding-window and full layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from laconic.families.base import Family, add
from laconic.families.rotary import phases


@dataclass(frozen=True)
class Gemma3(Family):
    """Gemma 3 rotates sliding and full layers with different bases; the rotary module asks for the layer's type."""

    def cos_sin(
        self, stack: PreTrainedModel, layer: int, positions: torch.Tensor, within: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind = stack.config.layer_types[layer]
        x = torch.zeros(1, device=positions.device)
        return phases(stack.rotary_emb, x, positions, kind, within)  # type: ignore[arg-type]


GEMMA2 = add(Family("gemma2", ("gemma2",)))
GEMMA3 = add(Gemma3("gemma3", ("gemma3_text",)))
