"""SparseVLM: words that look at the image rate its tokens; some of what is dropped is recycled (arXiv 2410.04417)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.method import register
from laconic.ops.density import density_peaks
from laconic.ops.similarity import means
from laconic.stream.assemble import assemble, choose
from laconic.stream.blocks import at_depth, blocks
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import fitted, mean_tokens, visual_total
from laconic.stream.observed import at_rows, observation
from laconic.stream.stream import Policy

LAYERS = (2, 6, 15)
OF = 576
PUBLISHED = {64: (66, 30, 17), 128: (303, 110, 36), 192: (300, 200, 110)}
"""Tokens of `OF` that stay after each pruning layer, by average budget; recycled ones come on top."""


@register(
    "sparsevlm",
    site="tokens",
    modality="image, video",
    mechanism="pruning, merging",
    principle="attention, query",
    source="arXiv 2410.04417",
    query_aware=True,
    inferred="counts for budgets other than the three published ones; neighbours of the density; layers scale with depth",
)
@dataclass(kw_only=True)
class SparseVLM(TokenMethod):
    """After each of three layers, keep the visual tokens that the raters attend to most; part of the others is clustered.

    Raters are the words after the last image whose relevance, from embeddings at the input, is above the mean. A visual
    token's score is the mean over heads and raters of that layer's attention. Of the dropped tokens the best 30 % become a
    tenth as many: density-peak groups, each a mean at its centre's position, after the kept tokens of its image.

    A budget counts recycled tokens and the layers before the first cut. The numbers that stay follow the published lists,
    interpolated geometrically between them, below them and up to all tokens, times one factor that meets the budget.

    Args:
        layers: pruning layers, whose attention ranks their own output; None: 2, 6, 15 of 32, scaled to the model's depth.
        counts: tokens that stay after each of them where no budget is given; None: the published list for a third
            (300, 200, 110 of 576), scaled to the number of visual tokens.
        recycle: keep groups of dropped tokens.
        neighbours: the density of a token is exp(-mean of its squared distances to this many nearest tokens, itself
            included).
        paper_code: as the release does: the shortened stream is renumbered from 0, groups come in the order of their
            centres' scores and keep no position of their own, and a density has as many neighbours as there are groups.
    """

    layers: tuple[int, ...] | None = None
    counts: tuple[int, ...] | None = None
    recycle: bool = True
    neighbours: int = 5
    paper_code: bool = False

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = LAYERS if self.layers is None else self.layers
        if len(layers) != len(PUBLISHED[192] if self.counts is None else self.counts):
            raise ValueError(f"sparsevlm: layers={layers} and counts={self.counts}: give one count for each layer.")
        if min(layers, default=-1) < 0 or any(a >= b for a, b in pairwise(layers)):
            raise ValueError(f"sparsevlm: layers={layers} must ascend, from 0 on.")
        checks.at_least(self, "neighbours", 1)

    def _layers(self, depth: int) -> list[int]:
        layers: list[int] = []
        for layer in LAYERS if self.layers is None else self.layers:
            if self.layers is None:
                layer = max(at_depth(layer + 1, depth) - 1, layers[-1] + 1 if layers else 0)  # as many full layers before it
            layers.append(layer)
        return [layer for layer in layers if layer + 1 != depth]  # nothing runs after the last layer

    def cuts(self, depth: int) -> Sequence[int]:
        return [0, *(layer + 1 for layer in self._layers(depth))]

    def observes(self, depth: int) -> Collection[int]:
        return self._layers(depth)

    def cut(self, stream: Stream) -> Cut | None:
        if stream.layer == 0:
            stream.memo["raters"] = [self._raters(stream, b) for b in range(len(stream.hidden))]
            return None
        attention = at_rows(stream, self._attention(stream))
        merged = torch.arange(stream.hidden.shape[1], device=stream.hidden.device).expand(stream.place.shape).clone()
        kept, values, scores = [], [], []
        for b, row in enumerate(attention):
            at = stream.images(b)
            scores.append(row[at])
            count = self._counts(stream, b)[list(self.cuts(stream.depth)).index(stream.layer) - 1]
            stays = at[choose(row[at], min(count, len(at)), stream.must(b))]
            dropped = at[~torch.isin(at, stays)]
            merged[b, dropped] = -1
            mixed = stream.hidden[b].clone()
            centres = dropped[:0]
            if self.recycle and len(dropped):
                taken = dropped[choose(row[dropped], _taken(len(dropped)))]
                groups = _groups(len(dropped))
                nearest = groups if self.paper_code else self.neighbours
                at_centre, group = density_peaks(mixed[taken], groups, nearest, ranked=self.paper_code)
                centres = taken[at_centre]
                mixed[centres] = means(mixed[taken], group, len(centres))[0].to(mixed.dtype)
                merged[b, taken] = centres[group]
            parts = [x[torch.isin(x, rows)] for rows in blocks(stream, b) for x in (stays, centres)]
            kept.append(torch.cat([at[:0], *parts]))
            values.append(mixed[kept[-1]])
        positions: Policy = "renumber" if self.paper_code else "gather"
        return assemble(stream, kept, values, positions=positions, order="given", merged=merged, scores=scores)

    # -- who rates -------------------------------------------------------------------------------------------------
    def _raters(self, stream: Stream, row: int) -> Tensor:
        """Distances of a batch row's raters from the end of the prompt, [r], 1 or more."""
        seen, text = stream.images(row), stream.texts(row)
        if not len(seen):
            return text[:0]
        text = text[text > seen[-1]]
        if not len(text):
            raise ValueError("sparsevlm: no text follows the last image, so no word can rate it; ask after the image.")
        chosen = text[raters(stream.hidden[row, seen], stream.hidden[row, text])]
        return stream.ids.shape[1] - stream.place[row, chosen]

    def _attention(self, stream: Stream) -> Tensor:
        """Mean over heads and raters of the attention that the observed layer's entries receive, [B, n]."""
        obs, noted = observation(stream), stream.memo["raters"]
        rows = obs.window(int(max(back.max() if len(back) else 1 for back in noted)))
        width = rows.shape[3]
        mean = rows.new_zeros(rows.shape[0], rows.shape[4])
        for b, back in enumerate(noted):
            if len(back):
                mean[b] = rows[b, :, :, width - back].mean((0, 1, 2))
        return mean

    # -- how many --------------------------------------------------------------------------------------------------
    def _counts(self, stream: Stream, row: int) -> list[int]:
        """Tokens of a batch row that stay after each layer, not counting recycled ones."""
        total, layers = visual_total(stream, row), [layer + 1 for layer in self._layers(stream.depth)]
        if self.budget_from_parameters or not total:
            given = [n * total / OF for n in PUBLISHED[192]] if self.counts is None else list(map(float, self.counts))
            return [max(1, int(n + 0.5)) for n in given]
        mean = mean_tokens(self, stream, row)
        shape = [share * total for share in published(mean / total)] if self.counts is None else self.counts

        def counts(x: float) -> list[int]:
            return [max(1, int(min(total, n * x / max(1 - x, 1e-9)) + 0.5)) for n in shape]

        def left(x: float) -> list[int]:
            return with_recycled(total, counts(x), self.recycle)[: len(layers)]

        return counts(fitted(self.name, mean, total, layers, stream.depth, left))


def raters(visual: Tensor, text: Tensor) -> Tensor:
    """Which words rate: visual [v, D] and text [t, D] embeddings -> bool [t].

    M = softmax over text of visual text^T; a word's relevance is its mean over the visual rows; those above the mean are
    raters, or all of them where none is above it.
    """
    relevance = (visual.float() @ text.float().mT).softmax(-1).mean(0)
    above = relevance > relevance.mean()
    return above if bool(above.any()) else torch.ones_like(above)


def published(share: float) -> list[float]:
    """Shares of the visual tokens that stay after each layer for an average `share`: log-log linear interpolation between
    the published lists and all tokens at 1, and the lowest line extended below 64 of 576."""
    points = [(log(m / OF), [log(n / OF) for n in counts]) for m, counts in PUBLISHED.items()] + [(0.0, [0.0] * 3)]
    x = log(share)
    (low, a), (high, b) = next(((p, q) for p, q in pairwise(points) if x <= q[0]), (points[-2], points[-1]))
    return [exp(p + (q - p) * (x - low) / (high - low)) for p, q in zip(a, b, strict=True)]


def with_recycled(total: int, counts: Sequence[int], recycle: bool = True) -> list[int]:
    """Visual tokens after every cut, recycled ones included, when `counts` of them stay."""
    left, now = [], total
    for count in counts:
        dropped = now - min(count, now)
        now -= dropped
        now += _groups(dropped) if recycle and dropped else 0
        left.append(now)
    return left


def _taken(dropped: int) -> int:
    return int(0.3 * dropped) + 1


def _groups(dropped: int) -> int:
    return _taken(dropped) // 10 + 1
