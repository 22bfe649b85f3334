"""LLaVA-1.5 with its own processor: images that need no resizing, in a padded batch."""

import torch
from helpers import fake_processors as processors
from helpers.vision_zoo import IMAGE


def test_with_the_processor(vlm, seen):
    model, process = vlm("llava", blind=True), processors.llava()
    images = [processors.checked(4, 4, seed) for seed in range(3)]
    texts = ["w5 <image> w6", "w5 w6 <image> w7 <image> w8"]
    inputs = process(images=[image for _, image in images], text=texts, return_tensors="pt", padding=True)
    assert (inputs["input_ids"] == IMAGE).sum(1).tolist() == [16, 32]
    visual = seen(model, dict(inputs))
    assert [(span.row, span.image) for span in visual.spans] == [(0, 0), (1, 1), (1, 2)]
    assert torch.equal(visual.mask, inputs["input_ids"] == IMAGE)
    for span in visual.spans:
        colours = images[span.image][0]
        table = processors.of_one_colour(model, process.image_processor, colours)
        torch.testing.assert_close(visual.patches(span).flatten(0, 1), table, atol=1e-5, rtol=1e-4)
        assert span.tokens.tolist() == list(range(span.start, span.stop))
    assert not visual.separators.any()


def test_full_features_keep_cls_as_a_separator(vlm, seen):
    from helpers.vision_zoo import CASES

    case = CASES["llava-full"]
    inputs = case.inputs([[case.image(1)]])
    visual = seen(vlm("llava-full"), inputs)
    first = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    assert visual.separators[0].nonzero()[:, 0].tolist() == [first]
    assert visual.spans[0].start == first + 1
