"""Fewer pixels: means of squares, at the original size."""

import numpy as np
from PIL import Image

from laconic.media.coarse import coarse


def test_the_size_stays_and_detail_goes():
    flat = Image.new("RGB", (8, 8), (77, 77, 77))
    assert np.array_equal(np.asarray(coarse(flat)), np.asarray(flat))
    checks = (np.indices((16, 16)).sum(0)[..., None].repeat(3, -1) % 2 * 200).astype(np.uint8)
    assert np.ptp(np.asarray(coarse(Image.fromarray(checks)))) == 0 and coarse(Image.fromarray(checks)).size == (16, 16)
    blocks = np.kron(np.arange(16).reshape(4, 4) * 10, np.ones((2, 2)))[..., None].repeat(3, -1).astype(np.uint8)
    middle = np.asarray(coarse(Image.fromarray(blocks), 2).resize((4, 4), Image.Resampling.BOX))[..., 0]
    assert np.abs(middle.astype(int) - np.arange(16).reshape(4, 4) * 10).max() <= 6


def test_images_smaller_than_the_factor():
    assert coarse(Image.new("RGB", (5, 1))).size == (5, 1)
