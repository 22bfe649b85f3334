"""DivPrune: the visual tokens that are farthest from each other, whatever the question (CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.method import register
from laconic.ops.similarity import unit
from laconic.stream.assemble import assemble, check_protected
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after

STORED, BLOCK = 4096, 1024
"""Up to this many tokens all distances are held at once (64 MiB in fp32), which is faster; for more, a block at a time."""


@register(
    "divprune",
    site="tokens",
    modality="image",
    mechanism="pruning",
    principle="similarity",
    source="DivPrune, CVPR 2025",
    query_aware=False,
    inferred="protected tokens come first; equal distances go to the earlier token",
)
@dataclass(kw_only=True)
class DivPrune(TokenMethod):
    """The set of visual features with the greatest smallest distance, built greedily at the input of the decoder.

    d_ij = 1 - cos(i, j). First comes the token farthest from its nearest neighbour, then always the token farthest from
    those already chosen; they stay in their order, at renumbered positions. All images of a sequence share one set.

    Args:
        keep: the share r of the visual tokens; 0.098 is the paper's main setting.
    """

    default_keep: ClassVar[float | None] = 0.098

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for b in range(len(stream.hidden)):
            at = stream.images(b)
            kept.append(at[farthest(stream.hidden[b, at], tokens_after(self, stream, b), stream.must(b))])
        return assemble(stream, kept, positions="renumber")


def farthest(features: Tensor, count: int, must: Tensor | None = None) -> Tensor:
    """`count` of the features [v, D] far from each other in cosine distance, greedy max-min; ascending [count].

    Args:
        must: tokens that are chosen in any case, bool [v].

    Raises:
        BudgetError: more tokens must be chosen than may be.
    """
    x = unit(features)
    first = torch.zeros(0, dtype=torch.long, device=x.device) if must is None else must.nonzero()[:, 0]
    check_protected(len(first), count)
    if count == 0 or count == len(x):
        return torch.arange(count, device=x.device)
    whole = _distances(x, 0, len(x)) if len(x) <= STORED else None
    if not len(first):
        blocks = [whole] if whole is not None else (_distances(x, i, i + BLOCK) for i in range(0, len(x), BLOCK))
        first = torch.cat([block.amin(1) for block in blocks]).argmax()[None]
    chosen = list(first)
    nearest = (1 - x @ x[first].mT).amin(1)  # distance of every token to the chosen set
    nearest[first] = -1.0  # below every distance, so it stays
    for _ in range(count - len(chosen)):
        new = nearest.argmax()  # the first on ties
        chosen.append(new)
        nearest = torch.minimum(nearest, 1 - x @ x[new] if whole is None else whole[new])
        nearest[new] = -1.0
    return torch.stack(chosen).sort().values


def _distances(x: Tensor, start: int, stop: int) -> Tensor:
    """Distances of the unit vectors start .. stop of x [v, D] to all, [n, v]; a token is infinitely far from itself."""
    distances = (x[start:stop] @ x.mT).neg_().add_(1)
    own = torch.arange(len(distances), device=x.device)
    distances[own, own + start] = float("inf")
    return distances
