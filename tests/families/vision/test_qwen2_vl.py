"""Qwen2-VL: grids of any shape, frames of two images each, blocks in the image processor's order."""

import torch
from helpers.vision_zoo import CASES, pixels

CASE = CASES["qwen2_vl"]


def test_patches_are_in_the_processors_order(vlm, seen):
    """Patch (r, c) of a span is the row of `pixel_values` that holds the pixels of patch (r, c)."""
    images = [CASE.image(1, grid=(6, 8)), CASE.image(2, grid=(4, 10))]
    inputs = CASE.inputs([images])
    visual = seen(vlm("qwen2_vl"), inputs)
    for span in visual.spans:
        image = pixels(images[span.image].views[0], 4)
        for r in range(span.patches.shape[0]):
            for c in range(span.patches.shape[1]):
                row = inputs["pixel_values"][span.patches[r, c]].view(3, 2, 4, 4)
                shown = image[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
                assert torch.equal(row[:, 0], shown) and torch.equal(row[:, 1], shown)


def test_spans_of_several_images_count_on(vlm, seen):
    visual = seen(vlm("qwen2_vl"), CASE.inputs([[CASE.image(1, grid=(4, 4))], [CASE.image(2, grid=(2, 6))]]))
    first, second = visual.spans
    assert sorted(first.patches.flatten().tolist()) == list(range(16))
    assert sorted(second.patches.flatten().tolist()) == list(range(16, 28))
