"""Sessions on vision language models: dropping entries of images and text equals masking them in the stock model."""

import pytest
import torch
from helpers.masked_reference import hidden_from, reference_logits
from helpers.vision_zoo import CASES, IMAGE, VIDEO

import laconic
from laconic import FastKV, SnapKV, UnsupportedModelError
from laconic.families.base import GENERIC
from laconic.families.vision import vision_family_of

GENERATE = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True} | {
    "suppress_tokens": [IMAGE, VIDEO]  # a placeholder in the answer would have no image
}
VIDEOS = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
METHODS = {
    "snapkv": lambda: SnapKV(keep=0.3, window=4),
    "fastkv": lambda: FastKV(keep=0.3, tsp_rate=0.5, tsp_layer=0, window=4),
}


def longer(inputs, sequences):
    """The same images with the answer after the prompt."""
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    changed = {"input_ids": sequences, "attention_mask": torch.ones_like(sequences)}
    if "mm_token_type_ids" in inputs:
        changed["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new))
    return inputs | changed


@pytest.mark.filterwarnings("ignore:fastkv was asked")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_eviction_equals_masked_reference(vlm, name, method):
    model, case = vlm(name, "eager"), CASES[name]
    if method == "fastkv" and vision_family_of(model).deepstack(model) > 1:
        with pytest.raises(UnsupportedModelError, match="adds visual features"):
            laconic.compress(model, METHODS[method]())
        return
    hold_against_reference(model, case.inputs([[case.image(0)]]), METHODS[method]())


@pytest.mark.parametrize("method", ["snapkv:window=4", "evs:positions=gather"])
@pytest.mark.parametrize("shown", ["video", "image and video"])
@pytest.mark.parametrize("name", VIDEOS)
def test_videos_equal_masked_reference(vlm, name, shown, method):
    """Frames, temporal patches, positions in time, DeepStack; an image in the same prompt keeps its own."""
    model, case = vlm(name, "eager"), CASES[name]
    images = [case.image(1, video=4)] if shown == "video" else [case.image(0), case.image(1, video=4)]
    keep = 0.4 if shown == "video" else 0.9  # evs leaves an image and the first frame of a video whole
    session = hold_against_reference(model, case.inputs([images]), laconic.create_method(method, keep=keep))
    if method.startswith("evs"):
        assert session.trace.events[0].layer == -1 and session.stats.achieved == pytest.approx(keep, abs=0.04)


def hold_against_reference(model, inputs, method):
    """Generate in a session of ``method`` and with everything that it dropped masked; returns the session."""
    n = inputs["input_ids"].shape[1]
    with laconic.compress(model, method) as session:
        ours = model.generate(**inputs, **GENERATE)
        heads = GENERIC.stack(model).config.num_key_value_heads
        hidden = hidden_from(session, n, ours.sequences.shape[1], heads)
    after = slice(n - 1, n - 1 + len(ours.logits))
    whole = longer(inputs, ours.sequences)
    expected = reference_logits(model, whole, hidden)[0, after]
    torch.testing.assert_close(torch.cat(ours.logits), expected, atol=1e-4, rtol=1e-4)
    assert (expected - reference_logits(model, whole, {})[0, after]).abs().max() > 1e-3, "nothing was at stake"
    return session
