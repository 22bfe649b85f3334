"""Qwen3-VL: where DeepStack adds features, and frames that are separate."""

import pytest
import torch
from helpers.vision_zoo import CASES

from laconic.families.vision import VisionWatch

CASE = CASES["qwen3_vl"]


@pytest.mark.parametrize("video", [0, 2])
def test_deepstack_tells_how_far_features_are_added(vlm, video):
    """Between layer i and i + 1 the stream changes at visual tokens for i < deepstack, and nowhere else."""
    model = vlm("qwen3_vl")
    layers = model.model.language_model.layers
    inputs = CASE.inputs([[CASE.image(1, video=video)], [CASE.image(2), CASE.image(3, video=video)]])
    out, fed, visuals = {}, {}, []
    handles = []
    for i, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(lambda m, a, i=i: fed.update({i: a[0]})))
        handles.append(layer.register_forward_hook(lambda m, a, o, i=i: out.update({i: o})))
    with VisionWatch(model) as watch:
        model(**inputs)
        visuals.append(watch.visual)
    for handle in handles:
        handle.remove()
    visual = visuals[0]
    assert visual.deepstack == 2
    for i in range(len(layers) - 1):
        changed = (fed[i + 1] != out[i]).any(-1)
        assert torch.equal(changed, visual.mask if i < visual.deepstack else torch.zeros_like(visual.mask))


def test_frames_are_separate(vlm, seen):
    """A timestamp before every frame, and positions that restart after it."""
    clip = CASE.image(1, grid=(4, 6), video=3)
    inputs = CASE.inputs([[clip]])
    visual = seen(vlm("qwen3_vl"), inputs)
    spans = visual.of(0, 0, "video")
    assert [span.start for span in spans] == [4, 11, 18]
    assert [span.stop for span in spans] == [10, 17, 24]
    at = 0
    for span in spans:
        at += 4 if span.frame == 0 else 1  # two words, the start of a video and a timestamp, then one timestamp
        for r in range(2):
            for c in range(3):
                assert visual.positions[:, 0, span.cells[r, c]].tolist() == [at, at + r, at + c]
        at += 3
