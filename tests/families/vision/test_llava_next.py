"""LLaVA-NeXT with its own processor: sizes, crops and padding as the processor makes them from real images."""

import pytest
import torch
from helpers import fake_processors as processors
from helpers.vision_zoo import IMAGE


@pytest.mark.parametrize(
    ("size", "grid"), [((8, 8), (2, 2)), ((4, 8), (1, 2)), ((8, 4), (2, 1)), ((4, 12), (1, 3)), ((12, 4), (3, 1))]
)
def test_crops_show_their_part_of_the_image(vlm, seen, size, grid):
    """An image as large as its canvas is cropped, not resized: crop and cell follow from the place in the image."""
    model, process = vlm("llava_next", blind=True), processors.llava_next()
    colours, image = processors.checked(*size)
    inputs = process(images=[image], text=["w5 <image> w6"], return_tensors="pt")
    visual = seen(model, dict(inputs))
    assert torch.equal(visual.mask, inputs["input_ids"] == IMAGE)
    assert visual.crop_grid(0) == grid
    assert int(visual.separators.sum()) == grid[0] * 4
    whole, *crops = visual.of(0, 0)
    assert (whole.crop, whole.grid) == (0, (4, 4))
    table = processors.of_one_colour(model, process.image_processor, colours).view(*size, -1)
    for span in crops:
        top, left = (span.crop - 1) // grid[1] * 4, (span.crop - 1) % grid[1] * 4
        shown = table[top : top + 4, left : left + 4]
        torch.testing.assert_close(visual.patches(span), shown, atol=1e-5, rtol=1e-4)
        features = model.model.multi_modal_projector(shown.reshape(-1, shown.shape[-1]))
        torch.testing.assert_close(visual.features(span), features, atol=1e-5, rtol=1e-4)


def test_lines_run_through_crops(vlm, seen):
    """The canvas is written line by line: crop 1, crop 2, line end, and so on; the tokens of a crop are not one run."""
    process = processors.llava_next()
    inputs = process(images=[processors.checked(8, 8)[1]], text=["w5 <image> w6"], return_tensors="pt")
    visual = seen(vlm("llava_next"), dict(inputs))
    start = 1 + 16
    assert visual.of(0, 0)[1].cells.tolist() == [[start + 9 * r + c for c in range(4)] for r in range(4)]
    assert visual.of(0, 0)[4].cells.tolist() == [[start + 9 * (r + 4) + 4 + c for c in range(4)] for r in range(4)]
    assert visual.separators[0].nonzero()[:, 0].tolist() == [start + 9 * r + 8 for r in range(8)]


def test_padded_batch_of_odd_sizes(vlm, seen):
    """Padding of the canvas is cropped where the processor says so; its placeholder count is the sum of cells and line
    ends."""
    process = processors.llava_next()
    images = [processors.checked(*size, patch=5)[1] for size in ((9, 12), (14, 3), (5, 5))]
    texts = ["w5 <image> w6 w7", "w5 <image> w7 <image> w8"]
    inputs = process(images=images, text=texts, return_tensors="pt", padding=True)
    visual, plain = seen(vlm("llava_next"), dict(inputs)), seen(vlm("llava_next"), dict(inputs), plain=True)
    assert [s.cells.tolist() for s in visual.spans] == [s.cells.tolist() for s in plain.spans]
    for row in range(2):
        tokens = sorted(t for span in visual.spans if span.row == row for t in span.tokens.tolist())
        tokens += visual.separators[row].nonzero()[:, 0].tolist()
        assert sorted(tokens) == (inputs["input_ids"][row] == IMAGE).nonzero()[:, 0].tolist()
    assert any((span.cells < 0).any() for span in visual.spans), "some padding was cropped"
