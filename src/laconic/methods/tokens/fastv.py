"""FastV: after the first layers, drop the visual tokens that the last token hardly attends to (arXiv 2403.06764)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.method import register
from laconic.stream.assemble import assemble, choose
from laconic.stream.blocks import at_depth
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.draws import drawn
from laconic.stream.equal_budget import tokens_after, visual_total
from laconic.stream.observed import at_rows, observation


@register(
    "fastv",
    site="tokens",
    modality="image, video",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2403.06764",
    query_aware=True,
    inferred="K scales with the depth of the model",
)
@dataclass(kw_only=True)
class FastV(TokenMethod):
    """Before layer K, keep the visual tokens that got most of the last token's attention in layer K - 1.

    score_j = mean over heads of A[last, j]; the best ``round((1 - R) N)`` of all visual tokens of a sequence stay, in their
    order and at their positions. Layers from K on compute and store only these.

    Args:
        layer: K; None: 2 of 32, scaled to the model's depth, at least 1. 0 draws tokens at random at the input instead.
        ratio: R, the share that is dropped, where no budget is given.
        seed: of the draw with ``layer=0``.
    """

    layer: int | None = None
    ratio: float = 0.5
    seed: int = 0

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ratio < 1:
            raise ValueError(f"fastv: ratio={self.ratio} is the share of visual tokens to drop; it must be in [0, 1).")
        if self.layer is not None and self.layer < 0:
            raise ValueError(f"fastv: layer={self.layer} must be 0 or more.")

    def _k(self, depth: int) -> int:
        return at_depth(2, depth) if self.layer is None else self.layer

    def cuts(self, depth: int) -> tuple[int, ...]:
        return () if self._k(depth) == depth else (self._k(depth),)

    def observes(self, depth: int) -> Collection[int]:
        return [layer - 1 for layer in self.cuts(depth) if layer]

    def cut(self, stream: Stream) -> Cut | None:
        scores, kept = self._scores(stream), []
        for b, score in enumerate(scores):
            if self.budget_from_parameters:
                count = int((1 - self.ratio) * visual_total(stream, b) + 0.5)
            else:
                count = tokens_after(self, stream, b)
            at = stream.images(b)
            kept.append(at[choose(score, min(count, len(at)), stream.must(b))])
        return assemble(stream, kept, scores=scores)

    def _scores(self, stream: Stream) -> list[Tensor]:
        """One per visual token, [v] for every batch row."""
        rows = range(len(stream.hidden))
        if stream.layer == 0:
            return [drawn(len(stream.images(b)), self.seed).to(stream.hidden.device) for b in rows]
        attention = at_rows(stream, observation(stream).last().mean((1, 2)))
        return [attention[b, stream.images(b)] for b in rows]
