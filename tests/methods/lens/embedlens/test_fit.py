"""The fit of EmbedLens: the anchors of a model, found in drawn scenes or in images of one's own, and what uses them."""

import pytest

from laconic import UnsupportedModelError, compress
from laconic.fit import Trainer
from laconic.fit.images import inputs, scenes
from laconic.methods.lens.embedlens.anchors import discover
from laconic.methods.lens.embedlens.fit import EmbedLensFit
from laconic.methods.lens.embedlens.method import EmbedLens
from laconic.testbed.vlm_model import build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def test_it_finds_what_discover_finds_and_a_method_takes_it(vlm, processor, tmp_path):
    lines = []
    found = Trainer(EmbedLensFit(samples=5, batch_size=2), vlm, processor, log=lines.append).run()
    asked = scenes(5, 0)
    want = discover(vlm, [inputs(processor, asked[:2]), inputs(processor, asked[2:4]), inputs(processor, asked[4:])])
    assert found.data == want.data | want.settings and found.data["images"] == 5
    assert found.kind == "measured" and found.fingerprint == want.fingerprint
    assert len(lines) == 1 and lines[0].startswith("5 images: vit_sink ")
    found.save(tmp_path / "a.safetensors")
    with compress(vlm, EmbedLens(prune="sinks", artifact=str(tmp_path / "a.safetensors"))):
        vlm(**inputs(processor, asked[:1]))


def test_a_processor_of_images_is_needed(vlm, processor):
    with pytest.raises(UnsupportedModelError, match="does not prepare images"):
        Trainer(EmbedLensFit(samples=2), vlm, processor.tokenizer).run()
