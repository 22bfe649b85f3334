"""InternVL with its image processor: crops row by row, the thumbnail last; one run of placeholders per image."""

import torch
from helpers import fake_processors as processors
from helpers.vision_zoo import CASES, ZooImage

CASE = CASES["internvl"]


def test_tiles_of_the_image_processor(vlm, seen):
    model, process = vlm("internvl", blind=True), processors.internvl_images()
    colours, image = processors.checked(8, 12)
    small = processors.checked(4, 4, seed=1)[1]
    media = process([image, small], return_tensors="pt")
    assert media["num_patches"].tolist() == [7, 1]
    inputs = CASE.inputs([[CASE.image(1, tiles=7), CASE.image(2)]]) | {"pixel_values": media["pixel_values"]}
    visual = seen(model, inputs)
    assert [span.crop for span in visual.of(0, 0)] == [0, 1, 2, 3, 4, 5, 6]
    table = processors.of_one_colour(model, process, colours)
    table = model.model.vision_tower.layernorm(table).view(8, 12, -1)
    for span in visual.of(0, 0)[1:]:
        top, left = (span.crop - 1) // 3 * 4, (span.crop - 1) % 3 * 4
        torch.testing.assert_close(visual.patches(span), table[top : top + 4, left : left + 4], atol=1e-5, rtol=1e-4)
    whole = visual.of(0, 0)[0]
    assert whole.start == max(span.stop for span in visual.of(0, 0)[1:]), "the thumbnail comes last"
    assert [span.crop for span in visual.of(0, 1)] == [0]


def test_one_run_is_one_image(vlm, seen):
    """The same four tiles as one image, and as four with words in between (as frames of a video are written)."""
    together = CASE.image(1, tiles=4)
    apart = [ZooImage([view]) for view in together.views]
    one = seen(vlm("internvl"), CASE.inputs([[together]]))
    four = seen(vlm("internvl"), CASE.inputs([apart]))
    assert [(s.image, s.crop) for s in one.spans] == [(0, 1), (0, 2), (0, 3), (0, 0)]
    assert [(s.image, s.crop) for s in four.spans] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    for a, b in zip(one.spans, four.spans, strict=True):
        assert torch.equal(one.features(a), four.features(b))
