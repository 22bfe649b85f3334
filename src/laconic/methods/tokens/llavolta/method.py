"""LLaVolta: visual tokens are averaged in groups before one decoder layer, above all while training (arXiv 2406.20092)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

import torch

from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.pool import pool_positions, pool_rows
from laconic.stream.assemble import assemble
from laconic.stream.blocks import at_depth, blocks
from laconic.stream.contract import Cut, Stream
from laconic.stream.tuned import TunedMethod


def compression_ratio(layer: int, stride: int, depth: int) -> float:
    """CR(K, S) in percent: visual tokens of `depth` layers over those that run, when groups of `stride` are averaged before
    `layer`."""
    return 100 * depth / ((depth - layer) / stride + layer)


@register(
    "llavolta",
    site="tokens",
    modality="image",
    mechanism="pooling",
    principle="transformation",
    source="arXiv 2406.20092",
    query_aware=False,
    training="none",
    inferred="how a budget gives a stride; a thumbnail and its crops are averaged apart",
)
@dataclass(kw_only=True)
class LLaVolta(TunedMethod):
    """The Visual Context Compressor: average pooling (1-D, raster order) of every image before layer K with stride S.

    Groups of S tokens that follow each other become their mean, at the mean of their positions, rounded down; what is left
    over at the end of an image is dropped, as in ``avg_pool1d``. The published use is training in stages, after which the
    model runs without compression, or with that of the last stage: see `laconic.methods.tokens.llavolta.schedule`.

    Args:
        layer: K, the decoder layer before which tokens are averaged; 0 is right after the projector (the release's -1).
            None: 2 of 32, scaled to the model's depth, 1 at least.
        stride: S; 1 changes nothing. None: 8, or under a budget the smallest that meets it.
        artifact: what `laconic fit llavolta` wrote: a file, a shipped name, or a Hub id. The tuned decoder then runs, with
            the layer and the stride of its last stage (perhaps none) unless others or a budget are given. None: the model as
            it is.

    Raises:
        BudgetError: an image with fewer than S tokens.
    """

    layer: int | None = None
    stride: int | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and not self.budget_from_parameters:
            raise ValueError(f"llavolta: give stride={self.stride} or a budget ({self.budget}), not both.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"llavolta: stride={self.stride} must be at least 1.")

    @property
    def neutral(self) -> bool:
        return super().neutral or (self.budget_from_parameters and self._given == 1)

    @property
    def _given(self) -> int:
        """S where no budget says it."""
        return self.stride or self.tuned_with("stride") or 8

    def cuts(self, depth: int) -> tuple[int]:
        layer = self.tuned_with("layer") if self.layer is None else self.layer
        return (at_depth(2, depth) if layer is None else layer,)

    def cut(self, stream: Stream) -> Cut | None:
        kept, values = [], []
        positions, merged = stream.positions.clone(), torch.arange(stream.hidden.shape[1]).expand(stream.place.shape).clone()
        one = positions.ndim == 2  # of several positions per token (M-RoPE) there is no mean: the middle token's stay
        for b in range(len(stream.hidden)):
            stride, middles, means = self._stride(stream, b), [], []
            for rows in blocks(stream, b):
                if len(rows) < stride:
                    raise BudgetError(
                        f"llavolta: an image of {len(rows)} tokens has no group of stride={stride}; take a smaller stride "
                        "or a larger budget."
                    )
                middle = rows[(stride - 1) // 2 :: stride][: len(rows) // stride]
                if one:
                    positions[b, middle] = pool_positions(stream.positions[b, rows], stride)
                merged[b, rows] = -1
                merged[b, rows[: len(middle) * stride]] = middle.repeat_interleave(stride).to(merged)
                middles.append(middle)
                means.append(pool_rows(stream.hidden[b, rows], stride))
            kept.append(torch.cat(middles) if middles else stream.images(b))
            values.append(torch.cat(means) if means else None)
        cut = assemble(stream, kept, values, merged=merged)
        return replace(cut, positions=positions.gather(1, cut.keep.clamp(min=0))) if one else cut

    def _stride(self, stream: Stream, row: int) -> int:
        """S for one sequence."""
        if self.budget_from_parameters:
            return self._given
        now = len(stream.images(row))
        if not now:
            return 1
        total = int((stream.visual.mask & ~stream.visual.separators)[row].sum())
        mean = self.allowance(total, len(stream.texts(row)), stream.entry_bytes)
        return max(1, ceil(now / self.mean_after(mean, total, stream.layer, stream.depth) - 1e-6))
