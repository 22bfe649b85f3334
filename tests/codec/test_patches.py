"""Patches line by line, and back."""

import torch

from laconic.codec.patches import patched, unpatched


def test_patches_are_those_of_a_loop_and_come_back():
    images = torch.randn(2, 5, 3, 8, 12)[..., :8]
    found = patched(images, 4)
    assert found.shape == (2, 5, 4, 48)
    for cell in range(4):
        line, column = divmod(cell, 2)
        block = images[..., 4 * line : 4 * line + 4, 4 * column : 4 * column + 4]
        assert torch.equal(found[..., cell, :], block.flatten(-3))
    assert torch.equal(unpatched(found, 4, 2), images)
