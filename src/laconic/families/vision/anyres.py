"""Any-resolution images (LLaVA-NeXT, LLaVA-OneVision): thumbnail, crops stitched together, padding cropped, line ends.

`generate()` drops `image_sizes` once it has encoded the images, and no hook sees them. They are not needed: line ends are
rows equal to the model's `image_newline`, which gives the size of the cropped canvas, and of the few canvases that a model
may choose only one reproduces the packed features from the projector's output, value by value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from laconic.errors import UnsupportedModelError
from laconic.families.vision.spans import CANVAS, Item, View, raster


@dataclass(frozen=True)
class AnyRes:
    """How a model lays images out.

    Attributes:
        side: patches along each side of a view.
        canvases: the (rows, cols) of crops that the model may choose from.
        newline: embedding of a line end, [D].
        most: larger canvases are resampled to about this many views (OneVision's anyres_max_9); None: never.
    """

    side: int
    canvases: tuple[tuple[int, int], ...]
    newline: Tensor
    most: int | None = None

    def items(self, packed: list[Tensor], projected: Tensor) -> list[Item]:
        """Items from packed features, a list of [n, D], and those of all views in order, [views, side^2, D].

        Raises:
            UnsupportedModelError: no layout, or more than one, reproduces the packed features.
        """
        found = list(islice(self._fit(packed, projected, 0), 2))
        if len(found) != 1:
            raise UnsupportedModelError(
                f"{len(found) or 'no'} layouts of {len(projected)} views explain the features of {len(packed)} images, so "
                "laconic cannot tell where the crops are. Blank images look alike: pass them one by one. Of very long and "
                "thin images the model keeps no crop: pad them."
            )
        return found[0]

    def _fit(self, packed: list[Tensor], projected: Tensor, view: int) -> Iterator[list[Item]]:
        if not packed:
            if view == len(projected):
                yield []
            return
        for item, views in self._one(packed[0], projected, view):
            for rest in self._fit(packed[1:], projected, view + views):
                yield [item, *rest]

    def _one(self, features: Tensor, projected: Tensor, view: int) -> Iterator[tuple[Item, int]]:
        """Layouts of one image whose first view is number `view`, with the number of its views."""
        side, area = self.side, self.side**2
        if view >= len(projected) or not torch.equal(features[:area], projected[view]):
            return
        thumbnail = View(raster(side, side), raster(side, side, view * area))
        ends = (features[area:] == self.newline.to(features)).all(-1).nonzero()[:, 0]
        if len(features) == area + 1 and len(ends):
            yield Item(area + 1, (thumbnail,)), 1
            return
        line = int(ends[0]) + 1 if len(ends) else 0
        if line < 2 or (len(features) - area) % line:
            return
        cells = raster((len(features) - area) // line, line, area)[:, :-1]
        for rows, cols in self.canvases:
            views = 1 + rows * cols
            if view + views > len(projected):
                continue
            patches = _stitch(torch.arange((view + 1) * area, (view + views) * area).view(-1, area), rows, cols, side)
            canvas = _stitch(projected[view + 1 : view + views], rows, cols, side)
            for top, left in self._trims(canvas, features[cells]):
                part = patches[top : patches.shape[0] - top, left : patches.shape[1] - left]
                if part.shape != cells.shape:
                    yield Item(len(features), (thumbnail, View(cells, part, CANVAS, resampled=True)), (rows, cols)), views
                    continue
                placed = torch.full_like(patches, -1)
                placed[top : placed.shape[0] - top, left : placed.shape[1] - left] = cells
                corners = [(r * side, c * side) for r in range(rows) for c in range(cols)]
                tiles = [
                    View(placed[r : r + side, c : c + side], patches[r : r + side, c : c + side], crop)
                    for crop, (r, c) in enumerate(corners, 1)
                ]
                yield Item(len(features), (thumbnail, *tiles), (rows, cols)), views

    def _trims(self, canvas: Tensor, shown: Tensor) -> Iterator[tuple[int, int]]:
        """(rows, columns) cut from both ends of a canvas [h, w, D] to leave `shown` [rows, cols, D]."""
        height, width = canvas.shape[:2]
        trims = [(top, 0) for top in range((height + 1) // 2)] + [(0, left) for left in range(1, (width + 1) // 2)]
        for top, left in trims:
            h, w = height - 2 * top, width - 2 * left
            ratio = math.sqrt(h * w / (self.most * self.side**2)) if self.most else 1.0
            size = (int(h // ratio), int(w // ratio)) if ratio > 1.1 else (h, w)
            if size != shown.shape[:2]:
                continue
            part = canvas[top : top + h, left : left + w]
            if ratio > 1.1:
                part = nn.functional.interpolate(part.permute(2, 0, 1)[None], size, mode="bilinear")[0].permute(1, 2, 0)
            if torch.allclose(part, shown, rtol=0, atol=0 if ratio <= 1.1 else 1e-5 * float(shown.abs().max())):
                yield top, left


def _stitch(views: Tensor, rows: int, cols: int, side: int) -> Tensor:
    """Views [rows * cols, side^2, ...] side by side, [rows * side, cols * side, ...]."""
    tiles = views.reshape(rows, cols, side, side, *views.shape[2:])
    return tiles.transpose(1, 2).reshape(rows * side, cols * side, *views.shape[2:])
