"""The sheet: kept patches have the image's own colours, dropped ones are pale, merged ones have their holder's colour."""

import numpy as np
from helpers.image_gallery import gallery

from laconic.report import image_png as png
from laconic.report.image_page import Gallery, Level, View


def centre(image, view: View, width: int, row: int, column: int, left: int = 0, top: int = 0) -> np.ndarray:
    rows, cols = view.cells.shape
    height = width * view.pixels.shape[0] / view.pixels.shape[1]
    return np.asarray(image)[int(top + (row + 0.5) * height / rows), int(left + (column + 0.5) * width / cols)].astype(float)


def flat(colour: tuple[int, int, int]) -> Gallery:
    """One view of one colour, 2 x 2 cells: kept, merged into the first, half of the heads, dropped."""
    view = View(0, "v", np.full((40, 40, 3), colour, np.uint8), np.arange(4).reshape(2, 2))
    level = Level("0.5", 0.5, 0.5, [0], np.array([[1, 0, 0.5, 0]], np.float32), np.array([[0, 0, 2, -1]]))
    return Gallery([view], np.arange(4), [level])


def test_colours_of_patches():
    shown = flat((200, 30, 60))
    image = png._drawn(shown.views[0], shown.levels[0], 0, None, 80)
    own, paper = np.array([200, 30, 60.0]), np.array(png.PAPER, float)
    kept, merged, half, dropped = (centre(image, shown.views[0], 80, r, c) for r in (0, 1) for c in (0, 1))
    np.testing.assert_allclose(kept, own, atol=1)
    np.testing.assert_allclose(dropped, own + 0.86 * (paper - own), atol=1)
    np.testing.assert_allclose(half, own + 0.43 * (paper - own), atol=1)
    veiled = own + 0.35 * (paper - own)
    np.testing.assert_allclose(merged, veiled + png.TINT * (np.array(png._hue(0)) - veiled), atol=1)


def test_heat_is_the_ramp_and_paper_where_there_is_no_score():
    shown = flat((128, 128, 128))
    heat = np.array([0.0, 1.0, 0.5, np.nan])
    image = png._drawn(shown.views[0], shown.levels[0], 0, heat, 80)
    for token, (r, c) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        colour = png.PAPER if token == 3 else png.RAMP[[0, 8, 4][token]]
        np.testing.assert_allclose(centre(image, shown.views[0], 80, r, c), 128 + 0.78 * (np.array(colour) - 128), atol=1)


def test_a_line_per_budget_and_a_column_per_stretch_of_layers():
    shown = gallery()
    stages = png._stages(shown.levels)
    assert stages == [0, 1]
    names = [png._stretch(shown.levels[0].layers, stages, i, shown.levels) for i in range(2)]
    assert names == ["layer 0", "layers 1 to 4"]
    sheet, bare = png.image_png(shown, "title"), png.image_png(gallery(scores=False))
    assert bare.width < sheet.width and bare.height == sheet.height, "scores have a column of their own"
    single = png.image_png(Gallery(shown.views, shown.numbers, shown.levels[:1]))
    line = (sheet.height - single.height) / 2
    assert line > png.PANEL / 2


def test_many_stretches_of_layers_are_thinned_out():
    n, depth = 4, 20
    into = np.tile(np.arange(n), (depth, 1))
    share = np.arange(depth)[:, None].repeat(n, 1).astype(np.float32) / depth
    stages = png._stages([Level("a", 1, 1, range(depth), share, into)])
    assert len(stages) == png.MOST and stages[0] == 0 and stages[-1] == depth - 1


def test_ranks_leave_tokens_without_a_score_out():
    level = gallery().levels[0]
    level.cuts[0].scores[[2, 6]] = np.nan
    ranks = png._ranks(level)
    assert np.isnan(ranks[[2, 6]]).all()
    known = [t for t in range(9) if t not in (2, 6)]
    assert [t for _, t in sorted((ranks[t], t) for t in known)] == sorted(known, key=lambda t: level.cuts[0].scores[t])
    assert ranks[known].min() == 0 and ranks[known].max() == 1
