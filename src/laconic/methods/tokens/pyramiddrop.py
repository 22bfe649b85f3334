"""PyramidDrop: visual tokens are dropped in stages, ranked by the last token's attention (arXiv 2410.17247)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from laconic import checks
from laconic.method import register
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import fitted, mean_tokens, visual_total
from laconic.stream.lookahead import attention_of, last_rows


@register(
    "pyramiddrop",
    site="tokens",
    modality="image, video",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2410.17247",
    query_aware=True,
    training="none",
    inferred="with a budget, the ratio follows from it, and cuts come earlier where the published ones cost too much",
)
@dataclass(kw_only=True)
class PyramidDrop(TokenMethod):
    """Divide the decoder into equal stages; before each but the first, ``int(ratio^i N)`` of the N visual tokens stay.

    Before layer k the last prompt token's attention of layer k is computed ahead (one query row, all keys); visual tokens
    are ranked by its mean over heads, the best stay in their order, and positions are renumbered. Earlier turns in the cache
    play no part in the ranking.

    A budget determines the ratio. Below the published mean (0.47) the cuts move towards the input in proportion, so that the
    first stage takes the published share of the budget; explicitly given layers stay.

    Args:
        ratio: share of the previous stage's tokens that a stage keeps, where no budget is given.
        stages: how many.
        layers: the cuts, ascending, instead of equal stages.
    """

    ratio: float = 0.5
    stages: int = 4
    layers: tuple[int, ...] | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise ValueError(f"pyramiddrop: ratio={self.ratio} is the share that a stage keeps; it must be in (0, 1].")
        checks.at_least(self, "stages", 2)
        if self.layers is not None and (min(self.layers, default=0) < 1 or list(self.layers) != sorted(set(self.layers))):
            raise ValueError(f"pyramiddrop: layers={self.layers} must ascend, from 1 on.")

    def cuts(self, depth: int) -> Sequence[int]:
        if self.layers is not None:
            return self.layers
        length = depth / self.stages
        if not self.budget_from_parameters and self.keep is not None:
            length *= min(1.0, self.keep * self.stages / sum(0.5**i for i in range(self.stages)))
        return [max(i, int(i * length + 0.5)) for i in range(1, self.stages)]

    def cut(self, stream: Stream) -> Cut | None:
        attention = attention_of(stream, last_rows(stream))[:, :, 0].mean(1)
        kept, scores = [], []
        for b, row in enumerate(attention):
            at = stream.images(b)
            count = self._counts(stream, b)[list(self.cuts(stream.depth)).index(stream.layer)]
            scores.append(row[at])
            kept.append(at[choose(row[at], min(count, len(at)), stream.must(b))])
        return assemble(stream, kept, positions="renumber", scores=scores)

    def _counts(self, stream: Stream, row: int) -> list[int]:
        """Visual tokens of a batch row after every cut."""
        total, layers = visual_total(stream, row), self.cuts(stream.depth)

        def counts(ratio: float) -> list[int]:
            return [max(1, int(ratio**i * total + 1e-6)) for i in range(1, len(layers) + 1)]

        if self.budget_from_parameters or not total:
            return counts(self.ratio)
        return counts(fitted(self.name, mean_tokens(self, stream, row), total, layers, stream.depth, counts))
