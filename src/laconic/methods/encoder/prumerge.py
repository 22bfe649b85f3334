"""LLaVA-PruMerge: patches whose CLS attention is an outlier, each with its neighbours merged in (arXiv 2403.15388)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.families.vision import Visual, VisualSpan
from laconic.families.vision.encoder import EncoderAttention, layer_number
from laconic.method import register
from laconic.ops.outliers import iqr_outliers
from laconic.ops.select import best
from laconic.ops.similarity import cosine
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.views import Reduced, by_view, counts, vectors


@register(
    "prumerge",
    site="encoder",
    modality="image, video",
    mechanism="pruning, merging",
    principle="attention, similarity",
    source="arXiv 2403.15388",
    query_aware=False,
    inferred="a budget in place of the outlier ratio; received attention where the encoder has no CLS",
)
@dataclass(kw_only=True)
class PruMerge(TokenMethod):
    """Keep patches whose CLS attention is an outlier, add their 32 most similar neighbours, and one token for those dropped.

    How many stay depends on the image: as many as have an attention above ``Q3 + 1.5 (Q3 - Q1)``, about 5.5 % (with `plus`
    about 25 %), plus one. Tokens are in order of decreasing attention.

    Args:
        keep: share of the visual tokens instead, the extra one included; with `plus`, the largest outlier ratio that fits is
            used, and the rest goes to the next best patches.
        plus: PruMerge+: patches on a uniform grid stay too, three times as dense as the outliers.
        neighbours: tokens merged into each one that stays.
        layer: encoder layer whose queries and keys are read, all heads joined; by default the last one.
        paper_code: one outlier ratio for the whole batch, as the release computes it, instead of one per view.
        positions: "renumber", as published: without gaps; "gather": every token keeps its position, so the decoder knows
            where in the image it was.
    """

    plus: bool = False
    neighbours: int = 32
    layer: int = -1
    paper_code: bool = False
    positions: Policy = "renumber"

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise BudgetError(f"prumerge: neighbours={self.neighbours} must not be negative.")
        checks.one_of(self, "positions", *POLICIES)
        super().__post_init__()

    def encoder_layers(self, depth: int) -> Collection[int]:
        return () if self.neutral else (self.layer,)

    def cut(self, stream: Stream) -> Cut:
        joined = {m: self._joined(stream.visual, m) for m in sorted({span.modality for span in stream.visual.spans})}
        attention = [self._tokens(stream.visual, span, joined[span.modality][0]) for span in stream.visual.spans]
        budgets = {} if self.budget_from_parameters else counts(stream, self)
        ratio = float(iqr_outliers(torch.cat(attention)).float().mean()) if self.paper_code else None

        def reduce(number: int, span: VisualSpan, must: Tensor) -> Reduced:
            a, n = attention[number], len(span.tokens)
            if self.budget_from_parameters:
                outlying = int(iqr_outliers(a).sum()) if ratio is None else int(n * ratio + 1e-6)
                kept = selection(a, max(1, outlying, int(must.sum())), self.plus, must)
            else:
                kept = selection_of(a, budgets[number], self.plus, must)
            if len(kept) == n:
                return Reduced(torch.arange(n, device=kept.device), torch.arange(n, device=kept.device), scores=a)
            keys = stream.visual.pool(span, joined[span.modality][1][span.patches])
            x, read = vectors(stream.visual, span)
            mixed = merged(a, keys, x, kept, self.neighbours)
            dropped = torch.ones(n, dtype=torch.bool, device=a.device)
            dropped[kept] = False
            rest = dropped.nonzero()[-1:, 0]
            to = torch.where(dropped, rest, torch.arange(n, device=a.device))
            return Reduced(torch.cat([kept, rest]), to, read(mixed.to(x.dtype)), a)

        return by_view(stream, reduce, self.positions)

    def _joined(self, visual: Visual, modality: str) -> tuple[Tensor, Tensor]:
        """Attention [patches] and keys [patches, C] of all heads as one: softmax(q k^T / sqrt(C)), the row of CLS, or the
        mean of all rows where there is none."""
        found = visual.calls[modality].heads[layer_number(visual.family.tower(visual.model), self.layer)]
        queries, keys = (x.transpose(0, 1).flatten(1)[None] for x in (found.queries, found.keys))
        one = EncoderAttention(queries, keys, found.bounds, keys.shape[-1] ** -0.5, found.cls)
        attention = one.cls_attention(False) if visual.has_cls else one.received_attention()
        return attention[0], one.without_cls(keys)[0]

    def _tokens(self, visual: Visual, span: VisualSpan, attention: Tensor) -> Tensor:
        """Attention of a view's tokens, [n]: where one stands for several patches, the sum over them."""
        patches = span.patches.numel() / max(1, span.cells.numel())
        return visual.pool(span, attention[span.patches]) * patches


def selection(a: Tensor, count: int, plus: bool, must: Tensor | None = None) -> Tensor:
    """The `count` best of a [n] in decreasing order, ties in raster order, and with `plus` a grid after them.

    The grid is ``arange(0, n - 1, int(int(n / count) / 3))`` without those already chosen.
    """
    n = len(a)
    ranked = a if must is None else a.masked_fill(must, float("inf"))
    top = ranked.argsort(descending=True, stable=True)[:count]
    if not plus or count == 0:
        return top
    grid = torch.arange(0, n - 1, max(1, n // count // 3), device=a.device)
    return torch.cat([top, grid[~torch.isin(grid, top)]])


def selection_of(a: Tensor, count: int, plus: bool, must: Tensor) -> Tensor:
    """The same for a view that may keep `count` tokens in all: all of them, or one fewer and the token of those dropped.

    Raises:
        BudgetError: more tokens are protected.
    """
    n = len(a)
    room = n if count >= n else count - 1
    if int(must.sum()) > room:
        raise BudgetError(
            f"prumerge: {int(must.sum())} tokens of a view are protected, but the budget leaves {room} and the one for "
            "the dropped tokens. Raise it or protect less."
        )
    order = selection(a, n, False, must)
    if not plus or room == n:
        return order[:room]
    for outlying in range(room, 0, -1):
        kept = selection(a, outlying, True, must)
        if len(kept) <= room:
            more = order[~torch.isin(order, kept)][: room - len(kept)]
            return torch.cat([kept, more])
    return order[:room]


def merged(a: Tensor, keys: Tensor, x: Tensor, kept: Tensor, neighbours: int) -> Tensor:
    """Kept tokens with their neighbours, and the sum of the dropped ones, fp32 [k + 1, C].

    ``x_i + sum_j a_j x_j`` over the `neighbours` tokens j, kept ones included, whose keys have the highest cosine with that
    of i; and ``sum_j a_j x_j`` over all dropped tokens. Sums are not normalised.

    Args:
        a, keys, x: attention [n], keys [n, e], vectors [n, C] of all tokens. `kept`: their numbers, [k].
    """
    x, a = x.float(), a.float()
    similar = cosine(keys[kept], keys)
    similar[torch.arange(len(kept), device=kept.device), kept] = float("-inf")
    near = best(similar, min(neighbours, len(x) - 1))
    dropped = a.clone()
    dropped[kept] = 0.0
    return torch.cat([x[kept] + (near * a) @ x, dropped[None] @ x])
