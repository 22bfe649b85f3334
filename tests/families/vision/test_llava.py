"""LLaVA-1.5 with its own processor: images that need no resizing, in a padded batch."""

import pytest
import torch
from helpers import fake_processors as processors
from helpers.vision_zoo import CASES, IMAGE

from laconic import UnsupportedModelError, compress, create_method


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
    case = CASES["llava-full"]
    inputs = case.inputs([[case.image(1)]])
    visual = seen(vlm("llava-full"), inputs)
    first = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    assert visual.separators[0].nonzero()[:, 0].tolist() == [first]
    assert visual.spans[0].start == first + 1


def test_without_cls_the_default_features_leave_out_the_first_patch(vlm, seen):
    """SigLIP with the "default" strategy: no token for that patch, and no other token shifted to it."""
    case = CASES["llava-siglip"]
    images = [case.image(1), case.image(2)]
    model = vlm("llava-siglip", blind=True)
    visual = seen(model, case.inputs([images]))
    for span, image in zip(visual.spans, images, strict=True):
        assert span.cells.tolist()[0][0] == -1 and len(span.tokens) == 15
        table = case.encoded(model, torch.from_numpy(image.views[0]).flatten())
        torch.testing.assert_close(visual.patches(span).flatten(0, 1), table, atol=1e-5, rtol=1e-4)
        projected = model.model.multi_modal_projector(table[1:][None])[0]
        torch.testing.assert_close(visual.features(span), projected, atol=1e-4, rtol=1e-4)
        assert visual.pool(span, torch.arange(16.0).view(4, 4)).tolist() == list(range(1, 16))


@pytest.mark.parametrize("name", ["apet", "globalcom2", "prumerge", "visionzip"])
def test_methods_that_read_patches_run_without_the_first_one(vlm, name):
    case, model = CASES["llava-siglip"], vlm("llava-siglip")
    with torch.no_grad(), compress(model, create_method(name, keep=0.5)) as session:
        model(**case.inputs([[case.image(1)], [case.image(2)]]))
    assert session.stats.visual_in == 15 and 0 < session.stats.achieved < 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("pool:stride=2", r"gives 1 of 4 x 4 patches of a view no visual token"),
        ("downsample", r"gives 1 of 4 x 4 patches of a view no visual token"),
        ("tome", r"leaves the first patch of every view out .*vision_feature_select_strategy='full'"),
    ],
)
def test_methods_that_need_the_whole_grid_say_so(vlm, spec, words):
    case, model = CASES["llava-siglip"], vlm("llava-siglip")
    budget = {} if "stride" in spec else {"keep": 0.5}
    with pytest.raises(UnsupportedModelError, match=words), compress(model, create_method(spec, **budget)), torch.no_grad():
        model(**case.inputs([[case.image(1)]]))
