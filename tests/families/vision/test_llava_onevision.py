"""LLaVA-OneVision: rows of several images, canvases too large to keep, images and videos together."""

import numpy as np
import pytest
import torch
from helpers import fake_processors as processors
from helpers.vision_zoo import CASES, ZooImage, numbers
from torch.nn.functional import interpolate

from laconic.families.vision import CANVAS

CASE = CASES["llava_onevision"]


@pytest.mark.parametrize("plain", [False, True], ids=["generate", "call"])
def test_images_of_one_row_are_one_view_each(vlm, seen, plain):
    """According to `batch_num_images`; an image that is alone in its row keeps its crops."""
    rows = [[CASE.image(1)], [CASE.image(2, plain=True), CASE.image(3, size=(64, 64), plain=True)]]
    inputs = CASE.inputs(rows) | {"batch_num_images": torch.tensor([1, 2])}
    visual = seen(vlm("llava_onevision"), inputs, plain=plain)
    assert [visual.crop_grid(k) for k in range(3)] == [(2, 2), (0, 0), (0, 0)]
    assert [(s.row, s.image, s.crop) for s in visual.spans if s.row] == [(1, 1, 0), (1, 2, 0)]
    for span in visual.of(1, 1) + visual.of(1, 2):
        assert span.grid == (4, 4)
        assert bool(visual.separators[1, span.stop])


def test_a_large_canvas_is_one_resampled_grid(vlm, seen):
    """3x3 crops of a model that keeps about two views: bilinear cells over all crops, and likewise values of patches."""
    model = vlm("llava_onevision", blind=True)
    ratio = model.config.vision_aspect_ratio
    model.config.vision_aspect_ratio = "anyres_max_2"
    try:
        image = ZooImage(list(numbers(4, 10, 4, 4)), (96, 80))
        lines = 6  # sqrt(12 * 10 / (2 * 16)) = 1.94, 12 // 1.94 = 6, 10 // 1.94 = 5
        image_cells = [(0, 0, r, c) for r in range(4) for c in range(4)] + [None] * lines * 6
        case = type(CASE)("one", CASE.config, CASE.prefix)
        case.cells = lambda p: image_cells
        visual = seen(model, case.inputs([[image]]))
        whole, canvas = visual.of(0, 0)
        assert (whole.crop, canvas.crop, canvas.grid, canvas.resampled) == (0, CANVAS, (6, 5), True)
        assert canvas.patches.shape == (12, 10) and visual.crop_grid(0) == (3, 3)
        joined = np.block([[image.views[1 + 3 * r + c] for c in range(3)] for r in range(3)])[:, 1:-1]
        used = torch.from_numpy(joined).unique()
        table = torch.zeros(600, 24)
        table[used] = CASE.encoded(model, used)
        torch.testing.assert_close(visual.patches(canvas), table[torch.from_numpy(joined)], atol=1e-5, rtol=1e-4)
        projected = model.model.multi_modal_projector(visual.patches(canvas)).permute(2, 0, 1)[None]
        expected = interpolate(projected, (6, 5), mode="bilinear")[0].permute(1, 2, 0).flatten(0, 1)
        torch.testing.assert_close(visual.features(canvas), expected, atol=1e-4, rtol=1e-4)
        values = torch.randn(12, 10, generator=torch.Generator().manual_seed(0))
        expected = interpolate(values[None, None], (6, 5), mode="bilinear").flatten()
        torch.testing.assert_close(visual.pool(canvas, values), expected)
        assert int(visual.separators.sum()) == lines
    finally:
        model.config.vision_aspect_ratio = ratio


def test_with_the_image_processor(vlm, seen):
    """Crops as the processor cuts them."""
    model, process = vlm("llava_onevision", blind=True), processors.onevision_images()
    colours, image = processors.checked(8, 4)
    media = process(images=[image], return_tensors="pt")
    image = CASE.image(1, size=(64, 32))
    inputs = CASE.inputs([[image]]) | dict(media)
    visual = seen(model, inputs)
    assert visual.crop_grid(0) == (2, 1)
    table = processors.of_one_colour(model, process, colours).view(8, 4, -1)
    for span in visual.of(0, 0)[1:]:
        top = 4 * (span.crop - 1)
        torch.testing.assert_close(visual.patches(span), table[top : top + 4], atol=1e-5, rtol=1e-4)


def test_a_video_ends_with_one_separator(vlm, seen):
    rows = [[CASE.image(1, video=2)], [CASE.image(2), CASE.image(3, video=2)]]
    visual = seen(vlm("llava_onevision"), CASE.inputs(rows))
    for row, image in ((0, 0), (1, 1)):
        frames = visual.of(row, image, "video")
        assert [span.frame for span in frames] == [0, 1]
        assert frames[0].stop == frames[1].start and bool(visual.separators[row, frames[1].stop])
        assert frames[0].patches.shape == (4, 4) and frames[0].grid == (2, 2)
