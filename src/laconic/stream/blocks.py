"""Which rows of the stream belong together: the tokens of one image, in order; and layer numbers of other depths."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.stream.contract import Stream

PAPER_DEPTH = 32
"""Layers of the 7B models for which papers give layer numbers."""


def blocks(stream: Stream, row: int) -> list[Tensor]:
    """Rows of the stream that show each image of a batch row, ascending, [k] each, images in prompt order.

    A frame of a video is a block, and so are a thumbnail and, together, the crops beside it (their lines interleave).
    Images without any token left in the stream are left out.
    """
    tokens: dict[tuple[str, int, int, bool], list[Tensor]] = {}
    for span in stream.visual.spans:
        if span.row == row:
            tokens.setdefault((span.modality, span.image, span.frame, span.crop != 0), []).append(span.tokens)
    at = stream.images(row)
    place = stream.place[row, at]
    found = [at[torch.isin(place, torch.cat(parts).to(place))] for parts in tokens.values()]
    return sorted((rows for rows in found if len(rows)), key=lambda rows: int(rows[0]))


def at_depth(layer: int, depth: int) -> int:
    """The layer of a model of `depth` layers at the same relative depth as `layer` of `PAPER_DEPTH`, rounded; at least 1
    unless `layer` is 0."""
    return max(min(layer, 1), int(layer * depth / PAPER_DEPTH + 0.5))
