"""Where visual tokens are: views of images and frames, the token of every grid cell, the patches it shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANVAS = -1


@dataclass(frozen=True)
class View:
    """One view of an image, before it is placed in a prompt: the thumbnail, a crop, a frame, a tile.

    Attributes:
        cells: place of every grid cell among the placeholder tokens of its image, [rows, cols]; -1 where the model cropped
            the cell away (padding of an any-resolution canvas).
        patches: the encoder patches that the grid shows, as indices into all patches of the encoder call, [gh, gw].
        crop: 0 for the whole image, 1.. for crops in row-major order, `CANVAS` for crops that the model stitched and
            resampled into one grid.
        frame: number of the video frame, in units of what the model turns into one grid.
        resampled: tokens are bilinear mixtures of patches; otherwise every token stands for a block of patches (or for one).
    """

    cells: Tensor
    patches: Tensor
    crop: int = 0
    frame: int = 0
    resampled: bool = False


@dataclass(frozen=True)
class Item:
    """One image or video: how many placeholder tokens it takes and what they show.

    Attributes:
        crop_grid: (rows, cols) of its crops, (0, 0) without crops, None where the inputs do not tell.
    """

    tokens: int
    views: tuple[View, ...]
    crop_grid: tuple[int, int] | None = (0, 0)


@dataclass(frozen=True)
class VisualSpan:
    """One view in a prompt.

    Attributes:
        row: of the batch.
        modality: "image" or "video".
        image: number of the image (or video) in the batch, counted per modality; beams of one prompt share it.
        cells: token position of every grid cell, [rows, cols]; -1 where the model cropped the cell away. Tokens of one crop
            need not be adjacent: any-resolution models lay crops out line by line.
        patches, crop, frame, resampled: see `View`.
    """

    row: int
    modality: str
    image: int
    crop: int
    frame: int
    cells: Tensor
    patches: Tensor
    resampled: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of the cells."""
        return self.cells.shape[0], self.cells.shape[1]

    @property
    def tokens(self) -> Tensor:
        """Token positions in raster order without the cropped cells, [n]."""
        return self.cells[self.cells >= 0]

    @property
    def start(self) -> int:
        """First token; 0 for a view that has none left."""
        return int(self.tokens.min()) if len(self.tokens) else 0

    @property
    def stop(self) -> int:
        """One past the last token. Between `start` and `stop` there may be tokens of other crops and separators."""
        return int(self.tokens.max()) + 1 if len(self.tokens) else 0


def raster(rows: int, cols: int, first: int = 0) -> Tensor:
    """`first`, `first` + 1, ... row by row, [rows, cols]."""
    return torch.arange(first, first + rows * cols).view(rows, cols)


def place(items: list[Item], modality: str, placeholders: Tensor) -> tuple[list[VisualSpan], Tensor]:
    """Assign the placeholder tokens of a batch to its items, in order.

    Args:
        items: in the order of the encoder call.
        placeholders: which tokens are placeholders of this modality, bool [B, T].

    Returns:
        the spans, and the mask [B, T] of placeholders that stand for no patch (line ends and the like).

    Raises:
        ValueError: a row does not end where an item ends.
    """
    total, wanted = int(placeholders.sum()), sum(item.tokens for item in items)
    beams = total // wanted if wanted and total % wanted == 0 else 1  # beam search repeats rows, but not the encoder call
    batch = len(placeholders)
    left = iter(enumerate(items))
    spans, bare = [], placeholders.cpu().clone()
    for first in range(0, batch, beams):
        positions = bare[first].nonzero()[:, 0]
        used = 0
        while used < len(positions):
            number, item = next(left, (0, None))
            if item is None or used + item.tokens > len(positions):
                raise ValueError(
                    f"batch row {first} has {len(positions)} {modality} placeholder tokens, and its {modality}s take "
                    f"{used + (item.tokens if item else 0)}; expand placeholders with the model's processor."
                )
            where = torch.cat([positions[used : used + item.tokens], torch.tensor([-1])])  # for cells of -1
            used += item.tokens
            for row in range(first, first + beams):
                for view in item.views:
                    span = VisualSpan(
                        row, modality, number, view.crop, view.frame, where[view.cells], view.patches, view.resampled
                    )
                    spans.append(span)
                    bare[row, span.tokens] = False
    if next(left, None) is not None:
        raise ValueError(
            f"{len(items)} {modality}s were encoded, and the prompts have placeholders for fewer; expand placeholders with "
            "the model's processor."
        )
    return spans, bare.to(placeholders.device)
