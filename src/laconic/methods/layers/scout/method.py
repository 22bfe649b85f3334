"""SCOUT: a local mixer in every layer, and attention over one checkpoint token in every k (arXiv 2509.00935)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from laconic import checks
from laconic.layers.contract import ArchitectureMethod
from laconic.method import register
from laconic.methods.layers.scout.network import ScoutConfig, ScoutForCausalLM


@register(
    "scout",
    site="layers",
    mechanism="checkpoint attention",
    source="arXiv 2509.00935",
    query_aware=False,
    training="trained",
    inferred="the mixer is the sliding window alone, with the causal mask that the paper's text has; no Mamba mixer",
)
@dataclass(kw_only=True)
class Scout(ArchitectureMethod):
    """Every layer mixes the last `window` tokens, and then attends to every `every`-th token and to the token itself.

    Nothing is pooled: a token at the end of a stretch of `every` tokens has seen the stretch through the mixer, so that its
    own key and value stand for it. A layer stores the last `window` entries and one in `every` of all.

    Args:
        every: tokens of a stretch (k; 10 published, 1 is full attention).
        window: tokens that the mixer sees, the token itself included (w).
    """

    every: int = 10
    window: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "every", 1)
        checks.whole(self, "window", 1)

    def model(self, **sizes: Any) -> ScoutForCausalLM:
        return ScoutForCausalLM(ScoutConfig(every=self.every, window=self.window, **sizes))
