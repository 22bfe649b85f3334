"""A view's grid of visual tokens in the stream, and averages of it at another resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.errors import BudgetError, SessionError, UnsupportedModelError
from laconic.families.vision import VisualSpan
from laconic.stream.stream import Stream

STRETCH = 1.5
"""How far the cells of a smaller grid may be from square."""


def grid_rows(stream: Stream, span: VisualSpan) -> Tensor:
    """Rows of the stream that show the cells of a view, [rows, cols], without lines and columns that the model cropped away.

    Raises:
        SessionError: tokens of the view were removed by an earlier cut.
        UnsupportedModelError: the model itself leaves out single patches.
    """
    there = span.cells >= 0
    cells = span.cells[there.any(1)][:, there.any(0)].to(stream.place.device)
    lookup = torch.full((stream.ids.shape[1] + 1,), -1, dtype=torch.long, device=cells.device)
    at = stream.images(span.row)
    lookup[stream.place[span.row, at]] = at
    rows = lookup[cells]
    if bool((cells < 0).any()):
        raise UnsupportedModelError(
            f"this model gives {int((cells < 0).sum())} of {cells.shape[0]} x {cells.shape[1]} patches of a view no visual "
            "token, so they are no grid that can be averaged; use a method that ranks tokens."
        )
    if bool((rows < 0).any()):
        raise SessionError(
            f"a grid of {cells.shape[0]} x {cells.shape[1]} visual tokens has gaps before layer {stream.layer}: another "
            "method dropped some of them. Average first, or average in one dimension."
        )
    return rows


def smaller(rows: int, cols: int, count: int) -> tuple[int, int]:
    """The grid with the most cells, at most `count`, of nearly the same shape: the cells' aspect ratio changes by at most
    `STRETCH`, or as little as possible."""
    found = [(r, min(cols, count // r)) for r in range(1, min(rows, count) + 1)]

    def stretch(grid: tuple[int, int]) -> float:
        ratio = rows * grid[1] / (cols * grid[0])
        return max(ratio, 1 / ratio)

    allowed = max(STRETCH, min(map(stretch, found)))
    return max((g for g in found if stretch(g) <= allowed + 1e-9), key=lambda g: (g[0] * g[1], -stretch(g)))


def averaged(x: Tensor, rows: int, cols: int) -> Tensor:
    """x [r, c, D] -> means over the windows of an adaptive average, [rows * cols, D]: window i of m over n cells goes from
    floor(i n / m) to ceil((i + 1) n / m)."""
    return F.adaptive_avg_pool2d(x.permute(2, 0, 1).float(), (rows, cols)).flatten(1).T.to(x.dtype)


def middles(n: int, m: int) -> Tensor:
    """The middle cell of each of the m windows over n cells, [m]; no two are the same."""
    i = torch.arange(m)
    start, stop = i * n // m, -(-(i + 1) * n // m)
    return (start + stop - 1) // 2


def windows(n: int, m: int) -> Tensor:
    """The window of every cell, [n]; a cell that two windows share goes to the first of them."""
    return (torch.arange(n) * m) // n


def refuse_protected(stream: Stream, name: str) -> None:
    """Raise `BudgetError` when visual tokens are protected: an average cannot spare any."""
    if stream.protected is not None and bool((stream.protected & stream.shown).any()):
        raise BudgetError(
            f"{name}: averages cannot spare protected visual tokens. Protect text only, or use a method that ranks."
        )


def resized(stream: Stream, span: VisualSpan, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A view at the resolution `rows` x `cols`.

    Returns:
        rows of the stream that carry the averages, those in the middle of each window, [m]; the averages [m, D]; all rows of
        the view [n], and for each the row that carries it [n].
    """
    at = grid_rows(stream, span)
    device, (height, width) = at.device, at.shape
    carriers = at[middles(height, rows).to(device)][:, middles(width, cols).to(device)]
    into = carriers[windows(height, rows).to(device)][:, windows(width, cols).to(device)]
    return carriers.flatten(), averaged(stream.hidden[span.row, at], rows, cols), at.flatten(), into.flatten()


def views(stream: Stream, row: int) -> list[VisualSpan]:
    """The views of a batch row that have tokens."""
    return [span for span in stream.visual.spans if span.row == row and bool((span.cells >= 0).any())]
