"""Images at a lower resolution: the plainest way to have fewer visual tokens, and a strong one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.method import register
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.grids import grid_rows, refuse_protected, resized, smaller, views
from laconic.stream.shares import spread


@register(
    "downsample",
    site="tokens",
    modality="image, video",
    mechanism="pooling",
    principle="transformation",
    source="baseline",
    query_aware=False,
    inferred="the smaller grid: as many cells as the budget allows, stretched by at most 1.5",
)
@dataclass(kw_only=True)
class Downsample(TokenMethod):
    """Average every view's features to a smaller grid of the same shape, at the input of the decoder.

    The grid has as many cells as fit the view's share of the budget while their sides are stretched by at most 1.5 (adaptive
    average: windows overlap where sizes do not divide). Positions are renumbered; separators such as line ends stay.
    """

    def cut(self, stream: Stream) -> Cut | None:
        refuse_protected(stream, self.name)
        merged = torch.arange(stream.hidden.shape[1], device=stream.hidden.device).expand(stream.place.shape).clone()
        kept, values = [], []
        for b in range(len(stream.hidden)):
            spans = views(stream, b)
            grids = [tuple(grid_rows(stream, span).shape) for span in spans]
            sizes = [rows * cols for rows, cols in grids]
            shares = spread(tokens_after(self, stream, b), sizes, sizes)
            carriers, means = [stream.images(b)[:0]], [stream.hidden[b, :0]]
            for span, (rows, cols), share in zip(spans, grids, shares, strict=True):
                carrier, mean, every, into = resized(stream, span, *smaller(rows, cols, share))
                carriers.append(carrier)
                means.append(mean)
                merged[b, every] = into
            kept.append(torch.cat(carriers))
            values.append(torch.cat(means))
        return assemble(stream, kept, values, positions="renumber", merged=merged)
