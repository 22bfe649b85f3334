"""A made-up gallery for the pages of images."""

from dataclasses import replace

import numpy as np

from laconic.report.image_page import Gallery, ImageCut, Lens, Level, View


def gallery(scores: bool = True, lens: bool = False) -> Gallery:
    """Two views, 2 x 3 and 2 x 2 cells (one cropped): nine visual tokens, three layers, three budgets."""
    rng = np.random.default_rng(0)
    first = View(0, "whole <i>image</i>", rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.arange(6).reshape(2, 3))
    second = View(0, "crop 1", rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), np.array([[6, 7], [-1, 8]]), (0, 0))
    n = 9
    cut = ImageCut(1, "m", n, 4, 2, rng.standard_normal(n).astype(np.float32) if scores else None)
    share = np.ones((3, n), np.float32)
    share[1:] = [1, 0, 0, 0.5, 1, 0, 0, 0, 1]
    into = np.tile(np.arange(n), (3, 1))
    into[1:] = [0, 0, -1, 3, 4, 8, -1, -1, 8]
    tight = Level("0.25", 0.25, 0.26, [0, 1, 4], share, into, [cut], "tight <b>answer</b>")
    wide = Level("0.5", 0.5, 0.5, [0, 1, 4], np.maximum(share, 0.5), np.tile(np.arange(n), (3, 1)), [], "full answer")
    full = Level("1", 1.0, 1.0, [0, 1, 4], np.ones((3, n), np.float32), np.tile(np.arange(n), (3, 1)), [], "full answer")
    words = Lens("embedlens", [[f"w{i}", "</script>"] for i in range(n)], [[0.5, 0.25]] * n, ["alive", "dead", "dead"] * 3)
    return Gallery([first, second], np.arange(n) + 5, [tight, wide, full], words if lens else None)


def film() -> Gallery:
    """The same, as two frames of a video: the first is on screen for half a second, the second for one and a half."""
    made = gallery()
    first, second = made.views
    views = [replace(first, name="frame 1", time=(0.0, 0.5)), replace(second, name="frame 2", spot=None, time=(0.5, 2.0))]
    return replace(made, views=views)
