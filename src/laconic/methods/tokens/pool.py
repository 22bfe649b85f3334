"""Pooling: averages of neighbouring visual tokens, on the grid or along the raster, or just every S-th token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic import checks
from laconic.method import register
from laconic.ops.similarity import means
from laconic.stream.assemble import assemble
from laconic.stream.blocks import blocks
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.grids import grid_rows, refuse_protected, resized, smaller, views, windows
from laconic.stream.shares import spread

MODES = ("grid", "raster", "sample")
PooledRows = tuple[Tensor, Tensor, Tensor, Tensor]
"""Rows that carry a value [m], the values [m, D], all rows [n], and the carrier of each [n] (-1: dropped)."""


@register(
    "pool",
    site="tokens",
    modality="image, video",
    mechanism="pooling",
    principle="transformation",
    source="baseline",
    query_aware=False,
    inferred="a budget gives the number of windows; a remainder makes a smaller window",
)
@dataclass(kw_only=True)
class Pool(TokenMethod):
    """Averages of windows that do not overlap, at the input or before a layer, independent of the text.

    "grid": S x S windows on the grid of every view (an adaptive average where sizes do not divide); "raster": S consecutive
    tokens of an image; "sample": every S-th token of an image, none averaged. A budget gives the number of windows instead
    of S; on the grid at the input that is `downsample`.

    Args:
        stride: S, where no budget is given; 1 changes nothing.
        mode: see above.
        layer: the decoder layer before which tokens are averaged; 0 is the input.
        positions: "renumber" or "gather"; None: renumbered at the input, and kept (those of the middle of each window)
            before an inner layer.
    """

    stride: int = 2
    mode: Literal["grid", "raster", "sample"] = "grid"
    layer: int = 0
    positions: Policy | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, "stride", 1)
        checks.one_of(self, "mode", *MODES)
        checks.one_of(self, "positions", *POLICIES, None)

    @property
    def neutral(self) -> bool:
        return super().neutral or (self.budget_from_parameters and self.stride == 1)

    def cuts(self, depth: int) -> tuple[int, ...]:
        return () if self.layer == depth else (self.layer,)

    def cut(self, stream: Stream) -> Cut | None:
        refuse_protected(stream, self.name)
        merged = torch.arange(stream.hidden.shape[1], device=stream.hidden.device).expand(stream.place.shape).clone()
        kept, values = [], []
        for b in range(len(stream.hidden)):
            pieces = self._grid(stream, b) if self.mode == "grid" else self._line(stream, b)
            for _, _, every, into in pieces:
                merged[b, every] = into
            kept.append(torch.cat([stream.images(b)[:0], *(piece[0] for piece in pieces)]))
            values.append(torch.cat([stream.hidden[b, :0], *(piece[1] for piece in pieces)]))
        return assemble(
            stream, kept, values, positions=self.positions or ("gather" if self.layer else "renumber"), merged=merged
        )

    def _shares(self, stream: Stream, row: int, sizes: list[int]) -> list[int]:
        return spread(tokens_after(self, stream, row), sizes, sizes)

    def _grid(self, stream: Stream, row: int) -> list[PooledRows]:
        spans = views(stream, row)
        shapes = [tuple(grid_rows(stream, span).shape) for span in spans]
        if self.budget_from_parameters:
            targets = [(-(-r // self.stride), -(-c // self.stride)) for r, c in shapes]
        else:
            shares = self._shares(stream, row, [r * c for r, c in shapes])
            targets = [smaller(r, c, share) for (r, c), share in zip(shapes, shares, strict=True)]
        return [resized(stream, span, *target) for span, target in zip(spans, targets, strict=True)]

    def _line(self, stream: Stream, row: int) -> list[PooledRows]:
        parts = blocks(stream, row)
        sizes = [len(rows) for rows in parts]
        counts = [-(-n // self.stride) for n in sizes] if self.budget_from_parameters else self._shares(stream, row, sizes)
        pieces = []
        for rows, n, m in zip(parts, sizes, counts, strict=True):
            window = (torch.arange(n) // self.stride if self.budget_from_parameters else windows(n, m)).to(rows.device)
            number = torch.arange(m, device=rows.device)
            first, end = (torch.searchsorted(window, number, right=right) for right in (False, True))
            if self.mode == "sample":
                into = torch.full_like(rows, -1)
                into[first] = rows[first]
                pieces.append((rows[first], stream.hidden[row, rows[first]], rows, into))
            else:
                middle = rows[(first + end - 1) // 2]
                mean = means(stream.hidden[row, rows], window, m)[0].to(stream.hidden.dtype)
                pieces.append((middle, mean, rows, middle[window]))
        return pieces
