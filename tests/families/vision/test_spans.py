"""Assigning placeholders to images, by hand."""

import pytest
import torch

from laconic.families.vision.spans import Item, View, VisualSpan, place, raster


def item(rows, cols, bare=0):
    return Item(rows * cols + bare, (View(raster(rows, cols), raster(rows, cols)),))


def mask(*rows):
    return torch.tensor([[int(c) for c in row] for row in rows]).bool()


def test_placeholders_go_to_images_in_order():
    """Also with other tokens in between, such as timestamps between frames."""
    spans, bare = place([item(1, 2), item(2, 2), item(1, 1, bare=1)], "image", mask("0110", "0000", "1111", "0110"))
    assert [(s.row, s.image, s.cells.tolist()) for s in spans] == [
        (0, 0, [[1, 2]]),
        (2, 1, [[0, 1], [2, 3]]),
        (3, 2, [[1]]),
    ]
    assert bare.tolist() == mask("0000", "0000", "0000", "0010").tolist()
    apart, _ = place([item(2, 2)], "video", mask("110011"))
    assert (apart[0].cells.tolist(), apart[0].start, apart[0].stop) == ([[0, 1], [4, 5]], 0, 6)


def test_cropped_cells_stay_cropped():
    cells = torch.tensor([[-1, 0], [-1, 1]])
    spans, _ = place(
        [Item(2, (View(cells, raster(2, 2)), View(torch.full((1, 1), -1), raster(1, 1), 1)))], "image", mask("011")
    )
    assert (spans[0].cells.tolist(), spans[0].tokens.tolist()) == ([[-1, 1], [-1, 2]], [1, 2])
    assert (spans[1].start, spans[1].stop, len(spans[1].tokens)) == (0, 0, 0)


def test_beams_repeat_rows():
    spans, bare = place([item(1, 2), item(1, 1)], "image", mask("110", "110", "001", "001"))
    assert [(s.row, s.image, s.tokens.tolist()) for s in spans] == [(0, 0, [0, 1]), (1, 0, [0, 1]), (2, 1, [2]), (3, 1, [2])]
    assert not bare.any()


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="batch row 0 has 3 image placeholder tokens, and its images take 4; expand"):
        place([item(1, 2), item(1, 2)], "image", mask("1110", "1000"))
    with pytest.raises(ValueError, match="batch row 0 has 3 image placeholder tokens, and its images take 2"):
        place([item(1, 2)], "image", mask("111"))
    with pytest.raises(ValueError, match="3 images were encoded, and the prompts have placeholders for fewer"):
        place([item(1, 1), item(1, 1), item(1, 2)], "image", mask("011"))


def test_grid():
    span = VisualSpan(0, "image", 0, 0, 0, raster(2, 3, 7), raster(4, 6))
    assert (span.grid, span.start, span.stop, span.tokens.tolist()) == ((2, 3), 7, 13, [7, 8, 9, 10, 11, 12])
