"""ConceptMoE: only tokens at learned boundaries go through the deep middle of a model (arXiv 2601.21420)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from laconic import checks
from laconic.layers.contract import ArchitectureMethod
from laconic.method import register
from laconic.methods.layers.conceptmoe.network import ConceptConfig, ConceptForCausalLM


@register(
    "conceptmoe",
    site="layers",
    mechanism="concepts",
    source="arXiv 2601.21420",
    query_aware=False,
    training="trained",
    inferred="the weight of the loss on the ratio, positions of concepts, projections of joint decoding",
)
@dataclass(kw_only=True)
class ConceptMoE(ArchitectureMethod):
    """A few layers read every token, a deep mixture of experts reads one token in `ratio`, and a few layers read all again.

    A token that differs from the one before it is a boundary. Boundary tokens are the concepts of the deep middle, whose
    output, smoothed over concepts, is added to the tokens up to the next boundary. So the middle stores and computes a
    `ratio`-th of what it would, and runs in about one step of generation in `ratio`.

    Args:
        ratio: tokens for one concept that the training aims at (R; 2 and 1.5 published; 1: every token is a concept).
        outer: layers before the middle, and layers after it (2 published).
        weight: of the loss that keeps the ratio.
    """

    ratio: float = 2.0
    outer: int = 2
    weight: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "outer", 1)
        if self.ratio < 1 or self.weight < 0:
            raise ValueError(f"{self.name}: ratio={self.ratio} must be at least 1, and weight={self.weight} at least 0.")

    def model(self, **sizes: Any) -> ConceptForCausalLM:
        return ConceptForCausalLM(ConceptConfig(ratio=self.ratio, outer=self.outer, ratio_weight=self.weight, **sizes))
